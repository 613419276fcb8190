"""GLM-4.1V, 4.5V and 4.6V: bracketed lists in answer tags, 0..1000, after their reasoning.

Source: zai-org/GLM-V, README.md, section Grounding (prompt, space, tags); geometry from
huggingface/transformers, models/glm4v/image_processing_glm4v.py: Qwen's rule, with limits that count an image
as two video frames.
"""

from __future__ import annotations

from .base import Family
from .preparation import ImageLimits, SmartResize

GLM4V = Family(
    name="glm4v",
    model_types=("glm4v", "glm4v_moe", "glm46v"),
    name_patterns=("glm-4.1v", "glm-4.5v", "glm-4.6v", "glm-4v", "glm4v"),
    format="glm4v",
    detect_prompt="Help me to locate every object in the image and give me its bounding boxes.",
    locate_prompt="Help me to locate {phrase} in the image and give me its bounding boxes.",
    keep_special_tokens=True,
    quantization_skips=("model.visual",),
    limits=ImageLimits(min_pixels=112 * 112 // 2, max_pixels=1280 * 28 * 28, patch=28),
    geometry=SmartResize(frames=2),
    processor_kwargs={"do_resize": False},
)
