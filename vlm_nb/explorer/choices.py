"""What can be chosen before loading: models on this machine, devices with their free memory, precision."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry
from ..engines.spec import LoadSpec
from ..errors import unknown_option
from .servers import SERVER, address_of

if TYPE_CHECKING:
    from ..model import VLM

DEMO = "demo"
PRECISIONS = {
    "auto": "Auto (16-bit, else 4-bit)",
    "16bit": "16-bit",
    "8bit": "8-bit",
    "4bit": "4-bit",
}
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to load: ``server`` is the address where ``device`` is SERVER; ``keep`` leaves the loaded ones."""

    name: str
    precision: str = "auto"
    device: str = "auto"
    server: str = ""
    keep: bool = False

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> Wish:
        """Read the browser's message."""
        texts = {key: str(message.get(key) or "").strip() for key in ("precision", "device", "server")}
        chosen = {key: text for key, text in texts.items() if text}
        return cls(name=str(message.get("model") or "").strip(), keep=bool(message.get("keep")), **chosen)

    @property
    def unspecific(self) -> bool:
        """Whether a loaded model of the name is what is meant."""
        return self.precision == "auto" and self.device == "auto"


def model_choices(offered: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Loaded models, the demo model, vision-language models in the local cache, then those of servers.

    ``offered`` maps a server's address to its models. Each has a name and a hint, those of servers their
    ``server`` too.
    """
    found = {model.name: "loaded" for model in registry.loaded() if address_of(model) is None}
    found.setdefault(DEMO, "small, drawn scenes only")
    for name in cached_models():
        found.setdefault(name, "in the local cache")
    local = [{"name": name, "hint": hint} for name, hint in found.items()]
    remote = [
        {"name": name, "hint": f"at {address}", "server": address}
        for address, names in offered.items()
        for name in names
    ]
    return local + remote


def labels(models: Sequence[VLM]) -> list[str]:
    """A name for each of several loaded models, with precision or place, then a number, where two are one."""
    made = [model.name for model in models]
    kinds = [f"{model.name} ({_kind(model)})" for model in models]
    made = [kind if made.count(name) > 1 else name for name, kind in zip(made, kinds, strict=True)]
    return [f"{name}, {i}" if made.count(name) > 1 else name for i, name in enumerate(made, 1)]


def _kind(model: VLM) -> str:
    info = model.info
    return str(info.quantization or model.spec.quantization or info.dtype or info.device)


def cached_models(cache: Path | None = None) -> list[str]:
    """Hub ids in the local Hugging Face cache whose snapshot holds an image processor, sorted."""
    folder = cache or _hub_cache()
    try:
        kept = [path for path in folder.glob("models--*") if _has_processor(path)]
    except OSError:
        return []
    return sorted(path.name.removeprefix("models--").replace("--", "/") for path in kept)


def _hub_cache() -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _has_processor(model: Path) -> bool:
    return any(next(model.glob(f"snapshots/*/{name}"), None) for name in _PROCESSORS)


def device_choices() -> list[dict[str, Any]]:
    """Auto, each GPU with its free memory, the CPU, a server: id, label.

    Asks the driver's own tool: importing torch for it would hold the whole kernel up for seconds.
    """
    found: list[dict[str, Any]] = [{"id": "auto", "label": "Auto"}, *_gpus()]
    if (sys.platform, platform.machine()) == ("darwin", "arm64"):
        found.append({"id": "mps", "label": "Apple GPU (mps)"})
    free = free_memory()
    found.append({"id": "cpu", "label": f"CPU, {gigabytes(free)} free" if free else "CPU"})
    return [*found, {"id": SERVER, "label": "A server"}]


def _gpus() -> list[dict[str, Any]]:
    query = ["nvidia-smi", "--query-gpu=index,name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return [made for line in done.stdout.splitlines() if (made := _gpu(line.split(", ")))]


def _gpu(fields: list[str]) -> dict[str, Any] | None:
    try:
        index, name, free, total = fields
        room = f"{gigabytes(float(free) * 2**20)} of {gigabytes(float(total) * 2**20)} free"
    except ValueError:
        return None
    return {"id": f"cuda:{index}", "label": f"{name} (cuda:{index}), {room}"}


def free_memory() -> int | None:
    """Bytes of main memory that are free, None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def gigabytes(count: float) -> str:
    """A byte count as people read it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def load_keywords(precision: str, device: str) -> dict[str, Any]:
    """The keywords of ``vlm_nb.load`` for what was chosen; "auto" adds none."""
    keywords: dict[str, Any] = {}
    if precision in ("4bit", "8bit"):
        keywords["quantization"] = precision
    if device not in ("", "auto"):
        keywords["device_map"] = device
    return keywords


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords for every load; raises OptionError for an unknown one, before Load is pressed."""
    for key in options:
        if key not in LoadSpec.names() or key == "keep":
            raise unknown_option("load keyword", key, LoadSpec.names())
    return dict(options)
