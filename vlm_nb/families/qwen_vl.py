"""Qwen-VL and Qwen-VL-Chat: phrases and corner pairs in tags, 0..1000. For use through servers.

Sources: QwenLM/Qwen-VL, README.md ("Generate the caption in English with grounding:"), TUTORIAL.md (format),
issue 233 ("Generate the bounding box of …", the demo's wording).
"""

from __future__ import annotations

from .base import Family

QWEN_VL = Family(
    name="qwen_vl",
    model_types=("qwen_vl",),
    name_patterns=("qwen-vl-chat", "qwen_vl", "qwen/qwen-vl"),
    format="qwen_vl",
    detect_prompt="Generate the caption in English with grounding:",
    locate_prompt="Generate the bounding box of {phrase}",
    keep_special_tokens=True,
    in_transformers=False,
)
