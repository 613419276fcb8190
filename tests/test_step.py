"""The decode step's spans: the cheapest cut, and attention that leaves out nothing but padding."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.cache_utils import DynamicLayer

from vlm_nb.engines.hf import gate, step
from vlm_nb.engines.hf.prefill import first_tokens
from vlm_nb.engines.hf.room import RoomyLayer
from vlm_nb.engines.hf.step import Span, Step, cut

CALL = 20
SIZE = step.CALL // CALL


def cost(spans: tuple[Span, ...], width: int) -> int:
    return sum(CALL + (end - begin) * (width - first) for begin, end, first in spans)


def every_cut(starts: list[int]) -> list[tuple[Span, ...]]:
    found = []
    for places in itertools.product((False, True), repeat=len(starts) - 1):
        edges = [0, *(n + 1 for n, cuts in enumerate(places) if cuts), len(starts)]
        found.append(tuple((a, b, min(starts[a:b])) for a, b in itertools.pairwise(edges)))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_no_other_cut_is_cheaper(seed: int) -> None:
    rng = random.Random(seed)
    width = rng.randint(10, 200)
    starts = [rng.randrange(width) for _ in range(rng.randint(1, 7))]
    found = cut(starts, width, SIZE)
    assert found in every_cut(starts)
    assert cost(found, width) == min(cost(other, width) for other in every_cut(starts))


@pytest.mark.parametrize(
    ("starts", "size", "expected"),
    [
        ([0], SIZE, ((0, 1, 0),)),
        ([7, 7, 7], SIZE, ((0, 3, 7),)),
        ([0, 90, 90, 90], SIZE, ((0, 1, 0), (1, 4, 90))),
        ([0, 90, 90, 90], 1, ((0, 4, 0),)),  # little to sum: a call costs more than columns
        ([0, 50, 99], step.CALL * 2, ((0, 1, 0), (1, 2, 50), (2, 3, 99))),
    ],
)
def test_cuts(starts: list[int], size: int, expected: tuple[Span, ...]) -> None:
    assert cut(starts, 100, size) == expected


def layer_of(rows: int, columns: int) -> Any:
    stock = DynamicLayer()
    stock.update(*(torch.randn(rows, 2, columns, 8) for _ in range(2)))
    return RoomyLayer(stock)


class Module:
    layer_idx = 0


def attended(starts: list[int], spans: tuple[Span, ...], *, heads: int = 6) -> torch.Tensor:
    torch.manual_seed(3)
    rows, width = len(starts), 40
    layer = layer_of(rows, width - 1)
    query, key, value = (torch.randn(rows, count, 1, 8) for count in (heads, 2, 2))
    mask = torch.zeros(rows, 1, 1, width)
    for row, start in enumerate(starts):
        mask[row, ..., :start] = -torch.inf
    step._running.step = Step([layer], mask, spans)
    found, _ = step.attend(Module(), query, key, value, None, scaling=0.5)
    assert layer.keys.shape[2] == width
    assert torch.equal(layer.keys[:, :, -1:], key)
    assert torch.equal(layer.values[:, :, -1:], value)
    for row, start in enumerate(starts):  # every head by itself
        for head in range(heads):
            own = (slice(row, row + 1), head * 2 // heads, slice(start, None))
            scores = (query[row, head] * 0.5 @ layer.keys[own][0].T).softmax(-1)
            torch.testing.assert_close(found[row, 0, head], (scores @ layer.values[own][0])[0])
    return found


def test_attention_is_the_same_however_rows_are_cut() -> None:
    starts = [0, 30, 12, 39, 5]
    whole = attended(starts, ((0, 5, 0),))
    for spans in every_cut(starts):
        torch.testing.assert_close(attended(starts, spans), whole)


TEXT = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "sliding_window": None,
}  # fmt: skip
VISION = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
}  # fmt: skip


def llava_of(kind: str) -> Any:
    """A LLaVA whose language model is of type ``kind``."""
    config = LlavaConfig(text_config={"model_type": kind, **TEXT}, vision_config=VISION, image_token_index=99)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.pad_token_id = 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
    return model


@pytest.mark.parametrize("kind", sorted(kind for kind in gate.STEPPED if not kind.endswith("_text")))
def test_language_models_step_as_they_do_by_themselves(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of Qwen-VL and GLM-4V are tested with their families (test_scheduler)."""
    monkeypatch.setattr(step, "CALL", 1)
    model = llava_of(kind)
    assert gate.refusal(model) is None
    ids = torch.tensor([[0, 0, 0, 5, 6, 7, 8, 9], [11, 12, 13, 4, 5, 6, 7, 8]])
    mask, tokens = (ids != 0).long(), torch.tensor([[21], [22]])
    with torch.inference_mode():
        block, _ = first_tokens(model, {"input_ids": ids, "attention_mask": mask})
        assert gate.unexpected(block.cache, block.width) is None
        for _ in range(3):
            found = block.decode(model, tokens)
            assert len(block.own or ()) == 2
            ids, mask = torch.cat([ids, tokens], 1), torch.cat([mask, torch.ones_like(tokens)], 1)
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            whole = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
            torch.testing.assert_close(found, whole, atol=1e-3, rtol=1e-3)
            tokens = found.argmax(-1, keepdim=True)
    assert step._running.step is None, "the cache must not outlive its rows"


@pytest.mark.parametrize("kind", ["jetmoe", "diffllama"])
def test_language_models_that_are_not_known_keep_their_own_cache(kind: str) -> None:
    model = llava_of(kind)
    ids = torch.tensor([[0, 0, 5, 6], [11, 12, 13, 4]])
    with torch.inference_mode():
        block, _ = first_tokens(model, {"input_ids": ids, "attention_mask": (ids != 0).long()})
        assert block.decode(model, torch.tensor([[21], [22]])).isfinite().all()
    assert block.own == ()


def test_heads_of_their_own() -> None:
    attended([3, 0], ((0, 2, 0),), heads=2)


def test_the_package_may_be_imported_again() -> None:
    """As autoreload does, or a test that takes modules out of ``sys.modules``."""
    script = (
        "import importlib, sys\n"
        "from vlm_nb.engines.hf import packed, step\n"
        "from vlm_nb.engines.hf import operators\n"
        "for module in (step, operators, packed, step):\n"
        "    importlib.reload(module)\n"
        "for name in [name for name in sys.modules if name.startswith('vlm_nb')]:\n"
        "    del sys.modules[name]\n"
        "from vlm_nb.engines.hf import packed, step as again\n"
        "print(again is not step)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
