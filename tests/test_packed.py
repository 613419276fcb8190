"""Linear layers packed for the CPU: the same numbers, plain weights whenever they have changed."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from vlm_nb.engines.hf import packed
from vlm_nb.engines.hf.packed import PackedLinear, pack

WIDE = 640


def two_layers(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    small = nn.Linear(WIDE, 8)  # stays as it is
    return nn.Sequential(nn.Linear(WIDE, 2048), nn.Linear(2048, WIDE, bias=False), small).to(dtype).eval()


def packed_layers(model: nn.Module) -> int:
    return sum(isinstance(layer, PackedLinear) for layer in model.modules())


@pytest.mark.parametrize("dtype", packed.types())
@pytest.mark.parametrize("shape", [(WIDE,), (1, WIDE), (2, 3, WIDE), (24, WIDE), (2, 0, WIDE)])
def test_products_are_those_of_plain_layers(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    model = two_layers(dtype)
    states = torch.randn(shape, dtype=dtype)
    with torch.inference_mode():
        plain = model(states)
        size = pack(model, None)
        assert size == 2 * 2048 * WIDE * dtype.itemsize
        assert packed_layers(model) == 2
        torch.testing.assert_close(model(states), plain)


def test_inputs_may_lie_in_memory_as_they_like() -> None:
    model, states = two_layers(), torch.randn(WIDE, 4)
    with torch.inference_mode():
        plain = model(states.T), model(states[:, :1].T.expand(3, WIDE)), model(states[:, ::2].T)
        pack(model, None)
        again = model(states.T), model(states[:, :1].T.expand(3, WIDE)), model(states[:, ::2].T)
    torch.testing.assert_close(again, plain)


def plain_products(model: Any, states: torch.Tensor) -> torch.Tensor:
    for layer in model:
        states = linear(states, layer.weight, layer.bias)
    return states


def test_a_weight_that_changes_is_used_as_it_is_now() -> None:
    model, states = two_layers(), torch.randn(2, WIDE)
    pack(model, None)
    with torch.no_grad():
        before = model(states)
        model[0].weight.mul_(2)
        model[0].bias.mul_(2)
        torch.testing.assert_close(model(states), plain_products(model, states))
        model[0].weight.data = torch.zeros_like(model[0].weight)
        model[0].bias.zero_()
        assert not model[0](states).any()
    assert not torch.allclose(before, model(states))


def test_a_graph_uses_what_it_is_given() -> None:
    """Weights that changed places, and one weight of two layers."""
    model, states = nn.Sequential(nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE)).eval(), torch.randn(3, WIDE)
    pack(model, None)
    graph = torch.compile(model, backend=lambda graph, inputs: graph.forward, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(graph(states), plain_products(model, states))
        first, second = model
        first.weight.data, second.weight.data = second.weight.data, first.weight.data
        torch.testing.assert_close(graph(states), plain_products(model, states))
        second.weight = first.weight
        pack(model, None)
        torch.testing.assert_close(graph(states), plain_products(model, states))


def test_weights_of_inference_mode_stay_as_they_are() -> None:
    with torch.inference_mode():
        model = two_layers()
        assert pack(model, None) == 0
        model(torch.randn(2, WIDE))


def test_gradients_are_those_of_plain_layers() -> None:
    model, states = two_layers(), torch.randn(2, WIDE, requires_grad=True)
    pack(model, None)
    model(states).sum().backward()
    assert states.grad is not None
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("free", [0, 2 * 2048 * WIDE * 4])
def test_without_room_for_copies_nothing_is_packed(free: int) -> None:
    model = two_layers()
    assert pack(model, free) == 0
    assert packed_layers(model) == 0


def test_other_types_and_kinds_stay_as_they_are() -> None:
    class Own(nn.Linear):
        pass

    assert pack(nn.Sequential(Own(WIDE, 2048), two_layers(torch.float16)), None) == 0
    assert pack(nn.Linear(WIDE, 2048, device="meta"), None) == 0


def test_without_onednn_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pack(two_layers(), None) == 0


def test_graphs_use_the_packed_weights_as_long_as_they_are_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, states, served = two_layers(), torch.randn(3, WIDE), []
    plain = PackedLinear.product

    def watched(self: PackedLinear, states: torch.Tensor) -> torch.Tensor:
        served.append(self.out_features)
        return plain(self, states)

    pack(model, None)
    monkeypatch.setattr(PackedLinear, "product", watched)
    with torch.no_grad():
        expected = model(states)
        served.clear()
        graph = torch.compile(model, backend=lambda graph, inputs: graph.forward, fullgraph=True)
        torch.testing.assert_close(graph(states), expected)
        assert served == [2048, WIDE]
        model[0].weight.mul_(2)
        model[1].weight.data = model[1].weight.data.clone()  # unknown there: the plain product
        torch.testing.assert_close(graph(states), plain_products(model, states))
        assert not torch.allclose(graph(states), expected)


def test_layers_that_are_gone_are_forgotten() -> None:
    first = two_layers()
    pack(first, None)
    where = [layer.weight.data_ptr() for layer in first[:2]]
    assert all(packed._by_weight[place] is layer for place, layer in zip(where, first[:2], strict=True))
    del first
    gc.collect()
    assert not any(place in packed._by_weight for place in where)
