"""Images that were prepared before: the same tensors without the work, and never another image's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, noise
from engine_models import make_qwen
from flight import Flight, flying
from test_scheduler import of_family
from tiny_models import make_tiny

from vlm_nb.engines.hf import scheduler
from vlm_nb.engines.hf.patches import PatchConv3d
from vlm_nb.engines.hf.prepared import PreparedImages
from vlm_nb.request import Request

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Counting:
    """An image processor that counts; ``names`` of images stand for their content."""

    def __init__(self, columns: int = 4) -> None:
        self.calls: list[Any] = []
        self.columns = columns
        self.patch_size = 14

    def __call__(self, images: Any, *args: Any, **options: Any) -> dict[str, Any]:
        self.calls.append((images, options))
        if "bad" in str(options):
            raise ValueError("boom")
        return {"pixel_values": torch.full((2, self.columns), float(len(self.calls))), "rows": [1]}


def test_a_known_image_is_not_prepared_again() -> None:
    inner = Counting()
    prepared, one, other = PreparedImages(inner), object(), object()
    with prepared.knowing([one, other], ["a", "b"]):
        first = prepared([one], size=3)
        assert prepared(images=[one], size=3)["pixel_values"] is first["pixel_values"]
        assert len(inner.calls) == 1
        prepared([other], size=3)
        prepared([one], size=4)
        prepared([one, other], size=3)
        prepared([other, one], size=3)
        assert len(inner.calls) == 5
        prepared([[one], [other]], size=3)  # processors nest the images of a prompt
        assert len(inner.calls) == 5
    assert prepared.patch_size == 14


def test_images_that_nobody_named_are_prepared_every_time() -> None:
    inner = Counting()
    prepared, one = PreparedImages(inner), object()
    for _ in range(2):
        prepared([one])
        with prepared.knowing([one], ["a"]):
            prepared([one, object()])
            prepared([])
            prepared([one], "positional")
    assert len(inner.calls) == 8
    assert len(prepared.kept) == 0


def test_what_is_taken_out_of_a_result_is_there_again() -> None:
    prepared, one = PreparedImages(Counting()), object()
    with prepared.knowing([one], ["a"]):
        assert prepared([one]).pop("rows") == [1]
        assert prepared([one]).pop("rows") == [1]


def test_failures_are_not_kept_and_bytes_are_bounded() -> None:
    inner = Counting()
    prepared, images = PreparedImages(inner, cap=100), [object() for _ in range(4)]
    with prepared.knowing(images, list("abcd")):
        for _ in range(2):
            with pytest.raises(ValueError, match="boom"):
                prepared([images[0]], mode="bad")
        for image in images:  # 32 bytes each
            prepared([image])
        assert prepared.kept.bytes == 96
        prepared([images[3]])
        assert len(inner.calls) == 6
        prepared([images[0]])
        assert len(inner.calls) == 7
        inner.columns = 1000
        prepared([images[1], images[2]])
        assert prepared.kept.bytes == 96


def test_a_processor_with_it_is_copied_and_pickled_as_without() -> None:
    prepared = PreparedImages(Counting())
    for copied in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        assert type(copied) is Counting
        assert copied is not prepared._inner


# In a model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flight]:
    with pytest.MonkeyPatch.context() as patch:
        folder = make_qwen(tmp_path_factory.mktemp("qwen"))
        with flying(folder, patch, engine_args={"reuse": True}) as flight:
            yield flight


def encoded(flight: Flight, request: Request) -> dict[str, torch.Tensor]:
    inputs: dict[str, torch.Tensor] = flight.backend._loaded.encoder.encode(request).inputs
    return inputs


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_content_decides(flight: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, calls = type(flight.backend._loaded.encoder._prepared._inner), []
    plain = kind.__call__

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return plain(*args, **options)

    monkeypatch.setattr(kind, "__call__", counted)
    first = encoded(flight, about(noise(56, 84, seed=1), question="what?"))
    again = encoded(flight, about(noise(56, 84, seed=1).convert("RGBA"), question="what?"))
    assert len(calls) == 1
    assert same(first, again)
    other = encoded(flight, about(noise(56, 84, seed=2), question="what?"))
    assert len(calls) == 2
    assert not torch.equal(first["pixel_values"], other["pixel_values"])


def test_memory_that_ran_out_is_given_back(flight: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, failed, plain = flight.backend._loaded.encoder._prepared.kept, [], scheduler.prefill
    flight.run([about(noise(56, 56, seed=n), max_new_tokens=2) for n in range(3)])
    assert len(kept) >= 3

    def short(*args: Any) -> Any:
        if not failed:
            failed.append(len(kept))
            raise torch.OutOfMemoryError("planted")
        return plain(*args)

    monkeypatch.setattr(scheduler, "prefill", short)
    [answer] = flight.run([about(noise(56, 84, seed=8), max_new_tokens=2)])
    assert answer.completion.error is None
    assert failed
    assert len(kept) == 0


def test_a_loaded_model_embeds_patches_by_products(flight: Flight) -> None:
    assert any(type(part) is PatchConv3d for part in flight.model.modules())


def test_threads_get_their_own_images(flight: Flight) -> None:
    requests = [about(noise(56, 56, seed=n % 5), question="what?") for n in range(40)]
    expected = [encoded(flight, request) for request in requests[:5]]
    flight.backend._loaded.encoder._prepared.kept.clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda request: encoded(flight, request), requests))
    assert all(same(one, expected[n % 5]) for n, one in enumerate(found))


@pytest.mark.parametrize("kind", ["idefics3", "internvl", "llava_next", "gemma3"])
def test_processors_that_take_results_apart(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flying(make_tiny(kind, tmp_path / kind), monkeypatch, engine_args={"reuse": True}) as flight:
        first, again = (encoded(flight, of_family(kind, 1)) for _ in range(2))
        assert same(first, again)
        assert len(flight.backend._loaded.encoder._prepared.kept) == 1


@pytest.mark.parametrize("options", [{"engine_args": {"reuse": False}}, {"trust_remote_code": True}])
def test_nothing_is_kept_where_that_is_not_wanted(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"engine_args": {}, **options}
    with flying(make_qwen(tmp_path / "qwen"), monkeypatch, **options) as flight:
        assert flight.backend._loaded.encoder._prepared is None
