"""What this machine, this Python and this front end can do: ``vlm_nb.doctor()`` and ``%vlm doctor``.

torch is imported by ``doctor`` only, when it is called.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from . import config, extras
from .machine import cached_models, gigabytes, model_cache
from .report import Report

_PACKAGES = (
    "ipython",
    "ipykernel",
    "torch",
    "transformers",
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "pillow",
    "matplotlib",
    "ipywidgets",
    "anywidget",
    "tqdm",
)
_OPTIONAL = {
    "pandas": ("tables: df.vlm, several images at once", extras.command("pandas")),
    "openai": ("models behind OpenAI-compatible servers", extras.command("openai")),
    "xgrammar": ("answers that follow a schema", extras.command("structured")),
    "pydantic": ("schemas as classes", extras.command("structured")),
    "peft": ("adapters (LoRA)", extras.command("peft")),
    "pillow-heif": ("HEIC photos", extras.command("heif")),
    "vllm": ("the vLLM engine", "see the documentation of the vllm engine"),
    "ray": ("the Ray Data engine", extras.command("ray")),
}


def doctor() -> Report:
    """Look at versions, device, memory, quantisation, front end and caches; say what is missing.

    The report shows itself in a notebook and prints as text; ``advice`` holds (problem, command) pairs.
    """
    report = Report()
    _versions(report)
    _device(report)
    _front_end(report)
    _caches(report)
    return report


def _versions(report: Report) -> None:
    from . import __version__

    section = report.section("Versions")
    section.add("vlm_nb", __version__)
    section.add("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _PACKAGES:
        found = version_of(name)
        section.add(name, found or "missing")
        if found is None and name != "ipykernel":
            report.advice.append((f"{name} is not installed", f"pip install {name}"))
    optional = report.section("Optional")
    for name, (purpose, command) in _OPTIONAL.items():
        found = version_of(name)
        optional.add(name, found or f"missing; {purpose}:  {command}")
    optional.add("torchvision", _torchvision())


def version_of(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torchvision() -> str:
    found = version_of("torchvision")
    if found is None:
        return "not installed (not needed)"
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # noqa: BLE001 - whatever a mismatched build raises
        return f"{found}, does not import ({type(error).__name__}); it is not used"
    return f"{found}, works"


def _device(report: Report) -> None:
    section = report.section("Device")
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - a broken installation is what the doctor is for
        section.add("torch", f"does not import: {type(error).__name__}: {error}")
        report.advice.append(("torch does not import", "pip install --force-reinstall torch"))
        return
    for number in range(torch.cuda.device_count()):
        section.add(f"cuda:{number}", _cuda_text(torch, number))
    if torch.backends.mps.is_available():
        section.add("mps", "Apple GPU")
    section.add("cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads for torch")
    total, free = _system_memory()
    section.add("memory", f"{gigabytes(free)} free of {gigabytes(total)}")
    section.add("default dtype", default_dtype(torch))
    section.add("quantisation", _quantisation(report))
    section.add("C++ compiler", _compiler())
    if torch.version.cuda is None and _has_nvidia():
        report.advice.append(
            ("an NVIDIA GPU is there, but this torch was built without CUDA", "pip install --upgrade torch")
        )


def _cuda_text(torch: Any, number: int) -> str:
    properties = torch.cuda.get_device_properties(number)
    free, total = torch.cuda.mem_get_info(number)
    return (
        f"{properties.name}, compute {properties.major}.{properties.minor}, "
        f"{gigabytes(free)} free of {gigabytes(total)}"
    )


def default_dtype(torch: Any) -> str:
    """What ``dtype=None`` means here: bfloat16 where the GPU computes it, else float16."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    return "bfloat16" if torch.backends.mps.is_available() else "chosen by the CPU's instructions"


def _quantisation(report: Report) -> str:
    if version_of("bitsandbytes") is None:
        return "none: bitsandbytes is missing"
    chatty = logging.getLogger("bitsandbytes.backends.cpu.ops")  # warns of a kernel that only speeds it up
    level = chatty.level
    try:
        chatty.setLevel(logging.ERROR)
        importlib.import_module("bitsandbytes")
    except Exception as error:  # noqa: BLE001 - the reason is what the user needs
        report.advice.append(
            (f"bitsandbytes does not import ({error})", "pip install --upgrade bitsandbytes")
        )
        return f"none: bitsandbytes does not import ({type(error).__name__})"
    finally:
        chatty.setLevel(level)
    return "4bit and 8bit (bitsandbytes)"


def _compiler() -> str:
    names = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    return found or "none: load(compile=True) would answer uncompiled on a CPU"


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


def _system_memory() -> tuple[int | None, int | None]:
    """(total, available) bytes of the machine, or of the container where that is less."""
    try:
        import psutil
    except ImportError:
        return None, None
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit = _container_limit()
    return (limit, min(free, limit)) if limit and limit < total else (total, free)


def _container_limit() -> int | None:
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _front_end(report: Report) -> None:
    section = report.section("Front end")
    section.add("shell", front_end())
    if version_of("jupyterlab"):
        section.add("jupyterlab", version_of("jupyterlab"))
    if version_of("notebook"):
        section.add("notebook", version_of("notebook"))
    kernel = version_of("ipykernel")
    if kernel is not None:
        live = int(kernel.split(".")[0]) >= 7
        section.add("buttons while a cell runs", "yes" if live else "no: pip install 'ipykernel>=7'")


def front_end() -> str:
    """Name where this Python talks to its user."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return "plain Python (magics need IPython)"
    if getattr(shell, "kernel", None) is None:
        return "IPython in a terminal"
    marks = {
        "COLAB_RELEASE_TAG": "Google Colab",
        "KAGGLE_KERNEL_RUN_TYPE": "Kaggle",
        "VSCODE_PID": "VS Code",
        "DATABRICKS_RUNTIME_VERSION": "Databricks",
    }
    return next((name for mark, name in marks.items() if os.environ.get(mark)), "a Jupyter kernel")


def _caches(report: Report) -> None:
    section = report.section("Caches and settings")
    found = cached_models()
    total = sum(model.size for model in found)
    section.add("models", f"{model_cache()}: {len(found)} vision models, {gigabytes(total)}")
    section.add("vlm_nb", config.cache_folder())
    file = config.config_file()
    section.add("settings", f"{file}{'' if file.exists() else ' (none yet)'}")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        section.add("network", "off: HF_HUB_OFFLINE is set")
