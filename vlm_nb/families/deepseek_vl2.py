"""DeepSeek-VL2: phrases and nested lists between special tokens, 0..999. For use through servers.

Source: deepseek-ai/DeepSeek-VL2, README.md (``<|ref|>…<|/ref|>.``, and ``<|grounding|>`` before a question).
"""

from __future__ import annotations

from .base import Family

DEEPSEEK_VL2 = Family(
    name="deepseek_vl_v2",
    model_types=("deepseek_vl_v2",),
    name_patterns=("deepseek-vl2", "deepseek_vl2", "deepseek-vl-v2"),
    format="deepseek_vl2",
    detect_prompt="<|grounding|>Can you describe this image?",
    locate_prompt="<|ref|>{phrase}<|/ref|>.",
    keep_special_tokens=True,
    in_transformers=False,
)
