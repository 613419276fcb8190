"""Families that are mostly reached through servers, with little published about their grounding.

- NVILA (NVlabs/VILA): a bare list in 0..1, unsure, a weak grounder; LLaVA's wording.
- Yi-VL (01-ai/Yi, issue 376: an author gives the prompt and 0..999): bare lists.
- Kimi-VL (arXiv 2504.07491): JSON in 0..1; no wording is published, Qwen2.5-VL's is used. Transformers has
  its successor Kimi-K2.5 (``kimi_k25``).
- Gemini, through its OpenAI-compatible endpoint (google-gemini/cookbook,
  quickstarts/Spatial_understanding.ipynb: "Detect the 2d bounding boxes of …"): JSON in 0..1000, y first.
- Moondream (m87-labs/moondream, README.md): its detect call gives a dict of objects in 0..1; there is no
  wording for a chat prompt.
"""

from __future__ import annotations

from .base import Family

_DESCRIBES = "provide the bounding box coordinate of the region this sentence describes:"

NVILA = Family(
    name="nvila",
    model_types=("nvila", "vila", "llava_llama"),
    name_patterns=("nvila", "vila1.5", "vila-1.5"),
    format="nvila",
    locate_prompt=f"Please {_DESCRIBES} {{phrase}}",
    in_transformers=False,
)

YI_VL = Family(
    name="yi_vl",
    model_types=("yi_vl",),
    name_patterns=("yi-vl", "yi_vl"),
    format="yi_vl",
    locate_prompt=f"Given the image, {_DESCRIBES}\n{{phrase}}\n",
    in_transformers=False,
)

KIMI_VL = Family(
    name="kimi_vl",
    model_types=("kimi_vl", "kimi_k25"),
    name_patterns=("kimi-vl", "kimi_vl", "kimi-k2.5"),
    format="kimi_vl",
    quantization_skips=("model.vision_tower", "model.mm_projector"),
)

GEMINI = Family(
    name="gemini",
    model_types=("gemini",),
    name_patterns=("gemini",),
    format="gemini",
    caption_prompt="Caption this image.",
    detect_prompt="Detect the 2d bounding boxes of all prominent items in the image.",
    locate_prompt="Detect the 2d bounding boxes of {phrase}",
    in_transformers=False,
)

MOONDREAM = Family(
    name="moondream",
    model_types=("moondream", "moondream1", "moondream3"),
    name_patterns=("moondream",),
    format="moondream",
    in_transformers=False,
)
