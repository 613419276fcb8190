"""Cosmos-Reason1: a Qwen2.5-VL that thinks first; its boxes follow that architecture (unsure).

Source: nvidia-cosmos/cosmos-reason1, README.md (``<think>…</think><answer>…</answer>``). Told apart from
Qwen2.5-VL by its name, since its ``model_type`` is the same.
"""

from __future__ import annotations

from dataclasses import replace

from .qwen2_5_vl import QWEN2_5_VL

COSMOS_REASON1 = replace(
    QWEN2_5_VL,
    name="cosmos_reason1",
    model_types=("cosmos_reason1", "qwen2_5_vl"),
    name_patterns=("cosmos-reason1", "cosmos_reason1"),
    notes="Boxes as Qwen2.5-VL by architecture; not published by its authors.",
)
