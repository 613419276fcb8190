"""Compute docs/models.md's table of what fits on which card: ``python docs/tools/what_fits.py``.

The library's own estimate (``vlm_nb/engines/hf/memory.py``) over skeletons of well-known models: their public
configs, no weights, nothing loaded or measured. ``--check`` only says whether the page has these figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "models.md"
BEGIN, END = "<!-- what fits: begin -->", "<!-- what fits: end -->"
CARDS = (4, 6, 8, 16, 24, 80)
USABLE = 0.85  # the rest: the CUDA context, a desktop, activations of larger images
WAYS = ("16bit", "8bit", "4bit")
GIB = 2**30


@dataclass(frozen=True)
class Known:
    """A published model: its config class and what differs from that class's defaults."""

    name: str
    config: str
    billions: float  # as published, to check the skeleton against
    text: dict[str, Any]
    vision: dict[str, Any] = field(default_factory=dict)
    tied: bool = False


def _decoder(hidden: int, layers: int, heads: int, kv_heads: int, inner: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        **more,
    }


def _qwen3(hidden: int, layers: int, heads: int, inner: int, **more: Any) -> dict[str, Any]:
    return _decoder(hidden, layers, heads, 8, inner, head_dim=128, vocab_size=151936, **more)


def _vit25(inner: int, out: int) -> dict[str, Any]:
    size = {"depth": 32, "hidden_size": 1280, "num_heads": 16}
    return {**size, "intermediate_size": inner, "out_hidden_size": out}


def _vit3(out: int, *, large: bool) -> dict[str, Any]:
    size = (27, 1152, 4304, [8, 16, 24]) if large else (24, 1024, 4096, [5, 11, 17])
    names = ("depth", "hidden_size", "intermediate_size", "deepstack_visual_indexes")
    return {**dict(zip(names, size, strict=True)), "out_hidden_size": out}


def _internvl(hidden: int, layers: int, heads: int, inner: int) -> dict[str, Any]:
    return {"model_type": "qwen3", "tie_word_embeddings": False, **_qwen3(hidden, layers, heads, inner)}


_QWEN25, _QWEN3, _INTERN = "Qwen2_5_VLConfig", "Qwen3VLConfig", "InternVLConfig"
_V25 = {"vocab_size": 152064}
_SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False, "patch_size": 14}
_SIGLIP |= {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
}
_GEMMA3 = _decoder(2560, 34, 8, 4, 10240, head_dim=256, vocab_size=262208, model_type="gemma3_text")

MODELS = (
    Known("OpenGVLab/InternVL3_5-1B-HF", _INTERN, 1.06, _internvl(1024, 28, 16, 3072)),
    Known("OpenGVLab/InternVL3_5-2B-HF", _INTERN, 2.35, _internvl(2048, 28, 16, 6144)),
    Known(
        "Qwen/Qwen3-VL-2B-Instruct", _QWEN3, 2.13, _qwen3(2048, 28, 16, 6144), _vit3(2048, large=False), True
    ),
    Known(
        "google/paligemma-3b-mix-224",
        "PaliGemmaConfig",
        2.92,
        {"model_type": "gemma", "vocab_size": 257216, **_decoder(2048, 18, 8, 1, 16384)},
        _SIGLIP,
        True,
    ),
    Known(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        _QWEN25,
        3.75,
        _decoder(2048, 36, 16, 2, 11008, vocab_size=151936),
        _vit25(3420, 2048),
        True,
    ),
    Known("google/gemma-3-4b-it", "Gemma3Config", 4.30, _GEMMA3, {**_SIGLIP, "image_size": 896}, True),
    Known(
        "Qwen/Qwen3-VL-4B-Instruct", _QWEN3, 4.44, _qwen3(2560, 36, 32, 9728), _vit3(2560, large=False), True
    ),
    Known("llava-hf/llava-1.5-7b-hf", "LlavaConfig", 7.06, {"model_type": "llama", "vocab_size": 32064}),
    Known(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        _QWEN25,
        8.29,
        _decoder(3584, 28, 28, 4, 18944, **_V25),
        _vit25(3420, 3584),
    ),
    Known("OpenGVLab/InternVL3_5-8B-HF", _INTERN, 8.53, _internvl(4096, 36, 32, 12288)),
    Known("Qwen/Qwen3-VL-8B-Instruct", _QWEN3, 8.77, _qwen3(4096, 36, 32, 12288), _vit3(4096, large=True)),
    Known(
        "Qwen/Qwen2.5-VL-32B-Instruct",
        _QWEN25,
        33.5,
        _decoder(5120, 64, 40, 8, 27648, **_V25),
        _vit25(3456, 5120),
    ),
    Known(
        "Qwen/Qwen2.5-VL-72B-Instruct",
        _QWEN25,
        73.4,
        _decoder(8192, 80, 64, 8, 29568, **_V25),
        _vit25(3456, 8192),
    ),
)


@dataclass(frozen=True)
class Fit:
    """Parameters, and the bytes that weights and one request take in each way."""

    parameters: int
    needed: dict[str, int]

    def best(self, card: int) -> str | None:
        """The most exact way that fits on a card of that many GiB, or None."""
        return next((way for way in WAYS if self.needed[way] <= card * USABLE * GIB), None)


def built(known: Known) -> tuple[Any, Any]:
    """Return the config of a model and its skeleton."""
    import transformers

    from vlm_nb.engines.hf import memory

    config_class = getattr(transformers, known.config)
    parts = {"text_config": dict(known.text)} | (
        {"vision_config": dict(known.vision)} if known.vision else {}
    )
    config = config_class(**parts, tie_word_embeddings=known.tied)
    return config, memory.skeleton(config, transformers.AutoModelForImageTextToText, trust_remote_code=False)


def compute(known: Known) -> Fit:
    """Estimate one model with the library's code."""
    import torch

    from vlm_nb.engines.hf import memory, quantization
    from vlm_nb.families import family_for

    config, model = built(known)
    keep = quantization.modules_to_keep(model, family_for(config.model_type).quantization_skips)
    ways = {way: None if way == "16bit" else way for way in WAYS}
    needed = {
        way: memory.estimate(model, config, torch.bfloat16, asked, keep).needed for way, asked in ways.items()
    }
    return Fit(sum(parameter.numel() for parameter in model.parameters()), needed)


def row(known: Known, fit: Fit) -> str:
    """One line of the table."""
    sizes = [f"{fit.needed[way] / GIB:.1f}" for way in WAYS]
    cards = [(fit.best(card) or "–").removesuffix("bit") for card in CARDS]
    cells = [f"`{known.name}`", f"{fit.parameters / 1e9:.2f} G", *sizes, *cards]
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """The whole table."""
    names = ["model", "parameters", "16 bit, GiB", "8 bit", "4 bit", *(f"{card} GB" for card in CARDS)]
    head = f"| {' | '.join(names)} |\n|{'---|' * len(names)}"
    return "\n".join([head, *(row(known, compute(known)) for known in MODELS)])


def rewrite(page: Path, marks: tuple[str, str], table: Callable[[], str], description: str | None) -> None:
    """Put ``table()`` between the two marks of ``page``; with ``--check`` only compare."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page differs")
    options = parser.parse_args()
    text = page.read_text(encoding="utf-8")
    start, stop = text.index(marks[0]) + len(marks[0]), text.index(marks[1])
    made = f"{text[:start]}\n{table()}\n{text[stop:]}"
    if options.check and made != text:
        raise SystemExit(f"docs/{page.name} has other figures: run this script without --check")
    if not options.check:
        page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    rewrite(PAGE, (BEGIN, END), table, __doc__)
