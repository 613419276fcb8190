"""Large linear layers of a model on a CPU, their weights laid out for oneDNN once instead of at every call.

``torch.nn.functional.linear`` hands the weight over as it lies, and with a few rows (a decode step) bringing
it into blocks takes as long as the product. inductor packs frozen weights with the same two operators, for
sizes that do not vary; here they serve models compiled or not. ``benchmarks/products.py`` measures both.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from . import operators

SMALLEST = {torch.float32: 1 << 18, torch.bfloat16: 1 << 14}
"""Elements below which a weight stays as it is: there the call costs more than packing saves."""
SHARE = 0.5
"""The part of the free memory that the packed copies may take together."""


class PackedLinear(nn.Linear):
    """A linear layer with a packed copy of its weight.

    The plain weight stays: others may read, train or replace it. Once it has changed it is used itself again;
    torch does not count changes in place of ``weight.data``.
    """

    packed: Tensor
    packed_from: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] → [..., out_features]."""
        if torch.is_grad_enabled():
            return super().forward(input)
        if torch.compiler.is_compiling():
            found: Tensor = _node(input, self.weight, self.bias)
            return found
        return self.product(input)

    def product(self, states: Tensor) -> Tensor:
        """With the packed weight, where it can be used."""
        if not self._serves(states):
            return linear(states, self.weight, self.bias)
        packing: Any = torch.ops.mkldnn
        product: Tensor = packing._linear_pointwise(states, self.packed, self.bias, "none", [], "")
        return product

    def _serves(self, states: Tensor) -> bool:
        """Whether the copy is of the weight as it is now, and can be used for these states."""
        fresh = self.packed_from == _state(self.weight)
        return fresh and states.dtype == self.weight.dtype and states.numel() > 0


_by_weight: weakref.WeakValueDictionary[int, PackedLinear] = weakref.WeakValueDictionary()
"""Layers by where their plain weights lie: a graph has no place for packed ones, and finds them so."""


def _product(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    layer = _by_weight.get(weight.data_ptr())
    its = layer is not None and _same(layer.weight, weight) and _same(layer.bias, bias)
    return layer.product(states) if layer is not None and its else linear(states, weight, bias)


def _same(own: Tensor | None, given: Tensor | None) -> bool:
    """Whether a graph was given what the layer has now."""
    if own is None or given is None:
        return own is given
    return own.data_ptr() == given.data_ptr()


def _shape(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return states.new_empty(*states.shape[:-1], weight.shape[0])


_node = operators.define("linear(Tensor states, Tensor weight, Tensor? bias) -> Tensor", _product, _shape)


def pack(model: nn.Module, free: int | None) -> int:
    """Pack the large linear layers of ``model`` in place and return the bytes that this takes.

    ``free`` are the bytes that may be used up, None for any number. Nothing is packed where a copy of all of
    them would take more than ``SHARE`` of it, where the weights are not fp32 or bf16 on a CPU, or where torch
    was built without oneDNN.
    """
    kinds = types()
    plain = [
        layer for layer in model.modules() if type(layer) is nn.Linear
    ]  # others have a forward of their own
    layers = [layer for layer in plain if _worth_it(layer.weight, kinds)]
    size = sum(layer.weight.nbytes for layer in layers)
    if not layers or not _can_pack() or (free is not None and size > SHARE * free):
        return 0
    for layer in layers:
        _pack(layer)
    return size


def _worth_it(weight: Tensor, kinds: tuple[torch.dtype, ...]) -> bool:
    plain = type(weight) in (nn.Parameter, Tensor) and not weight.is_inference()
    there = weight.device.type == "cpu" and weight.dtype in kinds
    return plain and there and weight.numel() >= SMALLEST[weight.dtype]


def types() -> tuple[torch.dtype, ...]:
    """The types of weights that this processor has packed products for."""
    packing: Any = torch.ops.mkldnn
    return (torch.float32, torch.bfloat16) if packing._is_mkldnn_bf16_supported() else (torch.float32,)


def _can_pack() -> bool:
    onednn: Any = torch.backends.mkldnn
    return bool(onednn.is_available() and onednn.enabled)


def _pack(layer: Any) -> None:
    packing: Any = torch.ops.mkldnn
    packed = packing._reorder_linear_weight(layer.weight.detach(), None)
    layer.__class__ = PackedLinear
    layer.packed, layer.packed_from = packed, _state(layer.weight)
    _by_weight[layer.weight.data_ptr()] = layer


def _state(weight: Tensor) -> tuple[int, int]:
    """What changes when other values are put into the weight."""
    return weight.data_ptr(), weight._version
