"""Starting engines and asking them, for the engine's tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm_nb.engines.base import Engine, Progress
from vlm_nb.engines.scripted import ScriptedBackend
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.request import GenerationConfig, ImageRef, Message, Request


def ignore(progress: Progress) -> None:
    """A progress callback for nobody."""


@contextmanager
def scripted(script: Any = None, **engine_args: Any) -> Iterator[Engine]:
    """An engine over the scripted backend."""
    spec = LoadSpec(model="scripted", engine="scripted", script=script, engine_args=engine_args)
    engine = Engine(ScriptedBackend(spec), "scripted")
    try:
        engine.load(ignore, threading.Event()).result(20)
        yield engine
    finally:
        engine.close()


@contextmanager
def loaded(
    model: Path | str, *, dtype: Any = "float32", wait: float = 120, **options: Any
) -> Iterator[Engine]:
    """An engine over transformers with ``model`` loaded, within ``wait`` seconds."""
    from vlm_nb.engines.transformers import TransformersBackend

    engine = Engine(TransformersBackend(LoadSpec(model=str(model), dtype=dtype, **options)), "transformers")
    try:
        engine.load(ignore, threading.Event()).result(wait)
        yield engine
    finally:
        engine.close()


def text(question: str = "hello", *, interactive: bool = True, **generation: Any) -> Request:
    """A request without images."""
    return Request(
        messages=(Message("user", (question,)),),
        generation=GenerationConfig(**generation),
        interactive=interactive,
    )


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def about(*images: Image.Image, question: str = "what?", keep: bool = False, **generation: Any) -> Request:
    """A request about prepared images: the processor changes nothing."""
    parts = (*(ImageRef(index) for index in range(len(images))), question)
    return Request(
        messages=(Message("user", parts),),
        images=images,
        generation=GenerationConfig(**generation),
        processor_kwargs={"do_resize": False},
        keep_special_tokens=keep,
    )
