"""The one table of output formats: name → space, syntaxes, writer, source."""

from __future__ import annotations

import re

from .base import Format, Space
from .objects import read_objects
from .points import read_points, write_molmo, write_molmo2
from .tags import read_glm, read_pairs, read_tags, tag_writer
from .tokens import (
    GRID,
    read_florence,
    read_kosmos,
    read_paligemma,
    write_florence,
    write_kosmos,
    write_paligemma,
)
from .writing import json_writer, list_writer, objects_writer

PER_MILLE = Space(scale=1000, top=1000)
FRACTION = Space(scale=1, top=1, step=0.001)
_QWEN_SPECIALS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>")
_BOS_EOS = ("<s>", "</s>", "<pad>", "<bos>", "<eos>")

_ALL = (
    Format(
        name="qwen_vl",
        space=PER_MILLE,
        syntaxes=(read_tags, read_objects, read_pairs),
        writer=tag_writer(("<ref>", "</ref>"), ("<box>", "</box>"), "pairs"),
        specials=_QWEN_SPECIALS,
        source="QwenLM/Qwen-VL, TUTORIAL.md, section Grounding Capability",
        sign=re.compile(r"<box>\s*\("),
    ),
    Format(
        name="qwen2_vl",
        space=PER_MILLE,
        syntaxes=(read_tags, read_objects, read_pairs),
        writer=tag_writer(
            ("<|object_ref_start|>", "<|object_ref_end|>"), ("<|box_start|>", "<|box_end|>"), "pairs"
        ),
        specials=_QWEN_SPECIALS,
        source="Qwen2-VL technical report, arXiv 2409.12191, section 2.2.1: 0..1000",
        sign=re.compile(r"<\|box_start\|>"),
    ),
    Format(
        name="qwen2_5_vl",
        space=Space(scale=None),
        syntaxes=(read_objects, read_points, read_tags),
        writer=json_writer("bbox_2d"),
        source="QwenLM/Qwen2.5-VL, cookbooks/spatial_understanding.ipynb: pixels of the resized image",
    ),
    Format(
        name="qwen3_vl",
        space=PER_MILLE,
        syntaxes=(read_objects, read_points, read_tags),
        writer=json_writer("bbox_2d"),
        source="QwenLM/Qwen3-VL, cookbooks/2d_grounding.ipynb: 0..1000",
        sign=re.compile(r"bbox_2d|point_2d"),
    ),
    Format(
        name="internvl",
        space=PER_MILLE,
        syntaxes=(read_tags, read_objects),
        writer=tag_writer(("<ref>", "</ref>"), ("<box>", "</box>"), "nested"),
        specials=(*_QWEN_SPECIALS, "</s>"),
        source="OpenGVLab/InternVL documentation, get_started/chat_data_format: 0..1000",
        sign=re.compile(r"<box>\s*\["),
    ),
    Format(
        name="deepseek_vl2",
        space=Space(scale=999, top=999),
        syntaxes=(read_tags, read_objects),
        writer=tag_writer(("<|ref|>", "<|/ref|>"), ("<|det|>", "<|/det|>"), "nested"),
        specials=("<｜end▁of▁sentence｜>", "<|grounding|>"),
        source="deepseek-ai/DeepSeek-VL2, README.md and deepseek_vl2/serve/app_modules/utils.py: 0..999",
        sign=re.compile(r"<\|det\|>"),
    ),
    Format(
        name="minicpmv",
        space=PER_MILLE,
        syntaxes=(read_tags, read_objects),
        writer=tag_writer(("<ref>", "</ref>"), ("<box>", "</box>"), "bare"),
        specials=(*_QWEN_SPECIALS, "</s>"),
        source="OpenBMB/MiniCPM-V, issue 982: x1 y1 x2 y2 in 0..1000",
        sign=re.compile(r"<box>\s*[0-9]"),
    ),
    Format(
        name="glm4v",
        space=PER_MILLE,
        syntaxes=(read_glm, read_objects),
        writer=tag_writer(("<ref>", "</ref>"), ("<|begin_of_box|>", "<|end_of_box|>"), "nested"),
        specials=("<|endoftext|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        source="zai-org/GLM-V, README.md, section Grounding: 0..1000, brackets vary",
        sign=re.compile(r"<\|begin_of_box\|>\s*[\[(<]"),
    ),
    Format(
        name="llava",
        space=FRACTION,
        syntaxes=(read_objects,),
        writer=list_writer,
        source="haotian-liu/LLaVA, issue 606 and the training data: 0..1 of the square-padded image",
    ),
    Format(
        name="nvila",
        space=FRACTION,
        syntaxes=(read_objects,),
        writer=list_writer,
        source="NVlabs/VILA: 0..1 (unsure: the repository publishes no grounding format)",
    ),
    Format(
        name="yi_vl",
        space=Space(scale=999, top=999),
        syntaxes=(read_objects,),
        writer=list_writer,
        source="01-ai/Yi, issue 376: 0..999",
    ),
    Format(
        name="paligemma",
        space=Space(scale=1024, top=1023, y_first=True),
        syntaxes=(read_paligemma,),
        writer=write_paligemma,
        empty_is_none=True,
        specials=_BOS_EOS,
        source="google-research/big_vision, configs/proj/paligemma/README.md: 1024 bins, y x y x",
        sign=re.compile(r"<loc[0-9]{4}>"),
    ),
    Format(
        name="florence2",
        space=Space(scale=1000, top=999, bin=0.5),
        syntaxes=(read_florence,),
        writer=write_florence,
        empty_is_none=True,
        specials=_BOS_EOS,
        source="huggingface/transformers, models/florence2/processing_florence2.py: bin centres; "
        "text regions are four corners, read as the box around them",
        sign=re.compile(r"<loc_[0-9]{1,4}>"),
    ),
    Format(
        name="kosmos-2",
        space=Space(scale=GRID, top=GRID, step=0),
        syntaxes=(read_kosmos,),
        writer=write_kosmos,
        specials=("</s>", "<s>", "<pad>"),
        source="huggingface/transformers, models/kosmos2/processing_kosmos2.py: 32 × 32 cells",
        sign=re.compile(r"<patch_index_[0-9]{4}>"),
    ),
    Format(
        name="molmo",
        space=Space(scale=100, top=100, step=0.1),
        syntaxes=(read_points,),
        writer=write_molmo,
        points=True,
        source="allenai/molmo, olmo/data/data_formatter.py: percent",
        sign=re.compile(r"<points?\s[^<>]{0,400}?\bx[0-9]{0,6}\s?="),
    ),
    Format(
        name="molmo2",
        space=PER_MILLE,
        syntaxes=(read_points,),
        writer=write_molmo2,
        points=True,
        source="allenai/molmo2, olmo/preprocessing/point_formatter.py: image, then id x y in 0..1000",
        sign=re.compile(r"<(?:points|tracks)\s[^<>]{0,400}?\bcoords="),
    ),
    Format(
        name="kimi_vl",
        space=FRACTION,
        syntaxes=(read_objects,),
        writer=json_writer("bbox_2d"),
        source="Kimi-VL technical report, arXiv 2504.07491: relative coordinates in 0..1",
    ),
    Format(
        name="gemini",
        space=Space(scale=1000, top=1000, y_first=True),
        syntaxes=(read_objects,),
        writer=json_writer("box_2d", "point"),
        source="google-gemini/cookbook, quickstarts/Spatial_understanding.ipynb: 0..1000, y x y x",
        sign=re.compile(r"""["']box_2d["']"""),
    ),
    Format(
        name="moondream",
        space=FRACTION,
        syntaxes=(read_objects,),
        writer=objects_writer,
        source="m87-labs/moondream, README: objects with x_min, y_min, x_max, y_max in 0..1",
        sign=re.compile(r"""["']x_min["']"""),
    ),
)

FORMATS: dict[str, Format] = {spec.name: spec for spec in _ALL}
