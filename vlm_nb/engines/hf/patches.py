"""Patch embeddings as the matrix products that they are.

Towers of the Qwen-VL kind get an image as rows of patches and embed each by a convolution of just that size.
A convolution routine is several times as slow at it as the product of patches and weights
(``benchmarks/products.py``).
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn.functional import linear


class PatchConv2d(nn.Conv2d):
    """A convolution that multiplies where its input is no larger than its kernel."""

    def forward(self, input: Tensor) -> Tensor:
        """[patches, channels, height, width] → [patches, out_channels, 1, 1], for patches."""
        return _product(self, input) if _fits(self, input) else super().forward(input)


class PatchConv3d(nn.Conv3d):
    """A convolution that multiplies where its input is no larger than its kernel."""

    def forward(self, input: Tensor) -> Tensor:
        """[patches, channels, frames, height, width] → [patches, out_channels, 1, 1, 1], for patches."""
        return _product(self, input) if _fits(self, input) else super().forward(input)


KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: PatchConv2d, nn.Conv3d: PatchConv3d}


def embed_by_products(model: nn.Module) -> int:
    """Change the convolutions of ``model`` that may be patch embeddings, in place; return how many."""
    found = [layer for layer in model.modules() if type(layer) in KINDS and _embeds(layer)]
    for layer in found:
        layer.__class__ = KINDS[type(layer)]
    return len(found)


def _embeds(layer: nn.Module) -> bool:
    """Whether it is a plain convolution that moves on by its own size."""
    assert isinstance(layer, nn.Conv2d | nn.Conv3d)  # noqa: S101 - what was looked for
    plain = layer.groups == 1 and not any(layer.padding) and all(step == 1 for step in layer.dilation)
    return plain and layer.stride == layer.kernel_size


def _fits(layer: nn.Conv2d | nn.Conv3d, patches: Tensor) -> bool:
    return patches.shape[1:] == layer.weight.shape[1:]


def _product(layer: nn.Conv2d | nn.Conv3d, patches: Tensor) -> Tensor:
    found = linear(patches.flatten(1), layer.weight.flatten(1), layer.bias)
    return found.reshape(*found.shape, *itertools.repeat(1, patches.ndim - 2))
