"""The one table of output formats: name → space, syntaxes, writer, source."""

from __future__ import annotations

from .base import Format, Space
from .objects import read_objects, writer

PER_MILLE = Space(scale=1000, top=1000)

_ALL = (
    Format(
        name="qwen2_5_vl",
        space=Space(scale=None),
        syntaxes=(read_objects,),
        writer=writer("bbox_2d"),
        source="QwenLM/Qwen2.5-VL, cookbooks/spatial_understanding.ipynb: pixels of the resized image",
    ),
    Format(
        name="qwen3_vl",
        space=PER_MILLE,
        syntaxes=(read_objects,),
        writer=writer("bbox_2d"),
        source="QwenLM/Qwen3-VL, cookbooks/2d_grounding.ipynb: 0..1000",
    ),
)

FORMATS: dict[str, Format] = {spec.name: spec for spec in _ALL}
