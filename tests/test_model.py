"""The facade: the (result, error) contract, prompts, settings, boxes, errors in their own place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import boxes_json, picture, scripted

from vlm_nb.errors import (
    CapabilityError,
    GenerationError,
    ModelUnloaded,
    OptionError,
    PromptError,
    SourceError,
    SourceNotFound,
    VLMError,
)
from vlm_nb.model import VLM
from vlm_nb.request import Completion, GenerationConfig, Request
from vlm_nb.results import Frame, Outcome, Prediction


@pytest.fixture
def model() -> Iterator[VLM]:
    vlm = scripted(lambda request: request.messages[-1].text.upper())
    yield vlm
    vlm.unload()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.png", "c.png"):
        picture().save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_one_image_gives_one_outcome(model: VLM, folder: Path) -> None:
    result, error = model(source=folder / "a.png", user_prompt="what is it")
    assert error is None
    assert result.caption == "WHAT IS IT"
    assert result.raw == "WHAT IS IT"
    assert result.prompt == "what is it"
    assert result.model == "scripted"
    assert result.image_size == (112, 84)
    assert result.source is not None
    assert result.source.endswith("a.png")
    assert result.preview is not None
    assert len(result.preview) <= 100_000


def test_a_missing_file_is_an_error_and_also_a_builtin_one(model: VLM, tmp_path: Path) -> None:
    result, error = model(source=tmp_path / "nothing.png", user_prompt="what")
    assert result is None
    assert isinstance(error, SourceNotFound)
    assert isinstance(error, FileNotFoundError)
    assert "nothing.png" in str(error)
    assert error.index == 0


def test_a_folder_expands_sorted_and_the_bad_one_fails_alone(model: VLM, folder: Path) -> None:
    outcomes = model(source=str(folder), user_prompt="what", show_progress=False)
    assert [type(outcome) for outcome in outcomes] == [Outcome] * 4
    names = [Path(str(o.result.source if o.result else o.error.source)).name for o in outcomes]
    assert names == ["a.png", "b.png", "bad.png", "c.png"]
    assert [o.error is None for o in outcomes] == [True, True, False, True]
    assert isinstance(outcomes[2].error, SourceError)
    assert outcomes[2].error.index == 2


def test_a_list_with_a_prompt_for_each(model: VLM, folder: Path) -> None:
    items = [folder / "a.png", picture(), folder / "none.png", folder / "a.png"]
    outcomes = model(source=items, user_prompt=["one", "two", "three", "four"], show_progress=False)
    assert [o.result.caption if o.result else None for o in outcomes] == ["ONE", "TWO", None, "FOUR"]
    assert [o.result.index if o.result else o.error.index for o in outcomes] == [0, 1, 2, 3]


def test_a_wrong_number_of_prompts_is_the_call_s_error(model: VLM, folder: Path) -> None:
    with pytest.raises(PromptError, match="2 prompts were given for 3 inputs"):
        model(source=[folder / "a.png"] * 3, user_prompt=["one", "two"])


def test_a_missing_prompt_finds_every_object() -> None:
    model = scripted({"Locate every object": boxes_json((28, 21, 84, 63))})
    outcome = model(source=picture(112, 84))
    assert outcome.result.grounding == "found"
    box = outcome.result.grounded_phrases[0].bbox
    assert box == pytest.approx((28 / 112, 21 / 84, 84 / 112, 63 / 84))
    model.unload()


def test_boxes_come_back_in_the_original_upright_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def answer(request: Request) -> str:
        width, height = request.input_sizes[0]
        seen.append((width, height))
        return boxes_json((0, 0, width / 2, height))

    model = scripted(answer)
    path = tmp_path / "turned.jpg"
    exif = picture().getexif()
    exif[0x0112] = 6  # a phone held upright: the stored image lies on its side
    picture(300, 200).save(path, exif=exif)
    prediction = model.ground(path, "left half")
    assert prediction.image_size == (200, 300)
    assert seen[0][0] < seen[0][1]
    assert prediction.grounded_phrases[0].bbox == pytest.approx((0, 0, 0.5, 1), abs=0.01)
    model.unload()


@pytest.mark.parametrize("phrase", ["the red car", "red car", " A red car"])
def test_an_article_does_not_follow_every(model: VLM, phrase: str) -> None:
    assert model.ground(picture(), phrase).prompt.startswith("Locate every red car in the image")


def test_single_calls_raise(model: VLM, tmp_path: Path) -> None:
    for call in (model.caption, lambda path: model.ask(path, "x"), lambda path: model.ground(path, "x")):
        with pytest.raises(SourceNotFound):
            call(tmp_path / "nothing.png")


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_an_empty_prompt_is_one_clear_error(model: VLM, prompt: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        model.ask(picture(), prompt)
    with pytest.raises(PromptError, match="empty"):
        model(source=picture(), user_prompt=prompt)


def test_an_unknown_generation_key_names_the_nearest(model: VLM) -> None:
    with pytest.raises(OptionError, match="max_new_tokens"):
        model.ask(picture(), "x", max_tokens=3)
    with pytest.raises(OptionError, match="max_new_tokens"):
        model(source=picture(), user_prompt="x", generation_config={"max_new_token": 3})


def test_max_new_tokens_cuts_and_says_so(model: VLM) -> None:
    prediction = model.ask(picture(), "one two three four", max_new_tokens=2)
    assert prediction.caption == "ONE TWO"
    assert prediction.usage.finish_reason == "length"
    assert "cut at max_new_tokens" in prediction.notes


def test_stream_yields_pieces_and_returns_the_prediction(model: VLM) -> None:
    pieces, stream = [], model.stream(picture(), "one two three")
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as stop:
            prediction = stop.value
            break
    assert len(pieces) == 3
    assert "".join(pieces) == prediction.raw == "ONE TWO THREE"


def test_leaving_a_stream_early_cancels_it() -> None:
    model = scripted("word " * 1000, delay=0.005)
    stream = model.stream(picture(), "go on")
    next(stream)
    stream.close()
    assert model.ask(picture(), "again", max_new_tokens=1).caption == "word"
    model.unload()


def test_several_images_in_one_prompt(model: VLM) -> None:
    prediction = model.ask([picture(), picture(60, 60)], "compare")
    assert prediction.caption == "COMPARE"


def test_several_images_where_the_model_takes_one() -> None:
    model = scripted("x", capabilities={"multi_image": False})
    with pytest.raises(CapabilityError, match="one image"):
        model.ask([picture(), picture()], "compare")
    model.unload()


def test_a_folder_is_not_one_prompt(model: VLM, folder: Path) -> None:
    with pytest.raises(OptionError, match="many images"):
        model.caption(folder)


def test_an_engine_error_reaches_its_own_request() -> None:
    model = scripted(lambda request: 1 / 0 if "bad" in request.messages[-1].text else "fine")
    outcomes = model(source=[picture()] * 3, user_prompt=["good", "bad", "good"], show_progress=False)
    assert [o.error is None for o in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, GenerationError)
    model.unload()


def test_a_changed_size_is_an_error_never_a_shifted_box(model: VLM) -> None:
    job = model.job(picture(), "x")
    prepared = model.asker.prepare(job)
    with pytest.raises(GenerationError, match="misplaced"):
        model.finish(job, prepared, Completion(text="x", seen_sizes=((28, 28),)))


def test_after_unload_the_handle_says_so(model: VLM) -> None:
    model.unload()
    model.unload()
    with pytest.raises(ModelUnloaded, match="%vlm load"):
        model.ask(picture(), "x")
    assert "unloaded" in repr(model)


def test_settings_precedence_call_over_load() -> None:
    model = scripted("x")
    assert model.generation({}).max_new_tokens == 512
    assert model.generation({"max_new_tokens": 7}).max_new_tokens == 7
    assert not model.generation({}).sampling
    assert model.generation({"temperature": 0.5}).sampling
    assert not model.generation({"temperature": 0.0, "do_sample": True}).sampling
    model.unload()


@pytest.mark.parametrize(
    "changes",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 1.5},
        {"max_new_tokens": True},
        {"temperature": -1},
        {"temperature": "hot"},
        {"top_p": 2},
        {"seed": -1},
        {"stop": [""]},
        {"num_beams": 0},
    ],
    ids=str,
)
def test_values_out_of_range_name_the_key(changes: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(changes))):
        GenerationConfig().updated(changes)


def test_frames_map_there_and_back() -> None:
    frame = Frame((400, 100), (200, 200), (0, 75, 200, 125))
    box = (0.25, 0.2, 0.5, 0.8)
    assert frame.to_original(frame.to_seen(box)) == pytest.approx(box)
    assert frame.to_original((-50, 0, 500, 90)) == pytest.approx((0, 0, 1, 0.3))
    assert frame.to_original((100, 100, 0, 75)) == pytest.approx((0, 0, 0.5, 0.5))


def test_outcome_unwraps() -> None:
    assert Outcome(Prediction("x"), None).unwrap().caption == "x"
    with pytest.raises(VLMError, match="broken"):
        Outcome(None, VLMError("broken")).unwrap()


def test_max_pixels_reaches_the_preparation() -> None:
    from vlm_nb.engines.spec import LoadSpec
    from vlm_nb.opening import open_model

    seen: list[tuple[int, int]] = []
    spec = LoadSpec(
        model="x", engine="scripted", script=lambda r: seen.extend(r.input_sizes) or "y", max_pixels=56 * 56
    )
    model = open_model(spec)
    model.caption(picture(400, 300))
    assert seen[0][0] * seen[0][1] <= 56 * 56
    model.unload()


def test_a_box_without_a_name_gets_the_asked_phrase() -> None:
    model = scripted("<|box_start|>(100,100),(500,500)<|box_end|>", model_type="qwen2_vl")
    assert [p.phrase for p in model.ground(picture(), "red box").grounded_phrases] == ["red box"]
    model.unload()
