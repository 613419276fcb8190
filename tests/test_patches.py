"""Patch embeddings as products: the convolution's numbers, and other convolutions as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import make_qwen
from torch import nn
from transformers import AutoModelForImageTextToText

from vlm_nb.engines.hf.patches import PatchConv3d, embed_by_products

FRAMES = (2, 14, 14)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("patches", [0, 1, 7])
@pytest.mark.parametrize(("kind", "size"), [(nn.Conv2d, (14, 14)), (nn.Conv3d, FRAMES)])
def test_patches_are_embedded_as_by_the_convolution(
    kind: Any, size: tuple[int, ...], patches: int, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = kind(3, 32, size, stride=size, bias=bias)
    states = torch.randn(patches, 3, *size)
    with torch.no_grad():
        plain = layer(states)
        assert embed_by_products(layer) == 1
        torch.testing.assert_close(layer(states), plain, atol=1e-5, rtol=1e-5)


def test_what_is_larger_than_a_patch_is_convolved() -> None:
    layer, states = nn.Conv2d(3, 8, 14, stride=14), torch.randn(2, 3, 28, 42)
    plain = layer(states)
    embed_by_products(layer)
    assert torch.equal(layer(states), plain)
    assert plain.shape == (2, 8, 2, 3)


def test_a_wrong_shape_fails_as_before() -> None:
    layer = nn.Conv2d(3, 8, 14, stride=14)
    embed_by_products(layer)
    with pytest.raises(RuntimeError, match="channels"):
        layer(torch.randn(1, 4, 14, 14))


class Own(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 14, stride=7),
        nn.Conv2d(4, 8, 14, stride=14, padding=1),
        nn.Conv2d(4, 8, 14, stride=14, padding="valid"),
        nn.Conv2d(4, 8, 14, stride=14, dilation=2),
        nn.Conv2d(4, 8, 14, stride=14, groups=2),
        nn.Conv1d(4, 8, 14, stride=14),
        Own(4, 8, 14, stride=14),
    ],
)
def test_others_stay_as_they_are(layer: nn.Module) -> None:
    kind = type(layer)
    assert embed_by_products(nn.Sequential(layer)) == 0
    assert type(layer) is kind


def test_a_tower_can_still_be_trained_and_saved(tmp_path: Path) -> None:
    folder = make_qwen(tmp_path / "qwen")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert embed_by_products(model) == 1
    [layer] = [part for part in model.modules() if isinstance(part, PatchConv3d)]
    layer(torch.randn(4, 3, *layer.kernel_size)).sum().backward()
    assert layer.weight.grad is not None
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    assert torch.equal(dict(again.named_parameters())["model.visual.patch_embed.proj.weight"], layer.weight)
