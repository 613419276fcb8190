"""The transformers engine's answers: batches against single requests and ``generate``; streams, cancel."""

from __future__ import annotations

import json
import shutil
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, loaded, noise, text
from engine_models import byte_tokenizer, make_llava, make_qwen

from vlm_nb.engines.base import Engine, generate, stream
from vlm_nb.engines.hf import generation
from vlm_nb.engines.hf.decoding import TextStream
from vlm_nb.errors import CapabilityError, ContextTooLong, GenerationError, OutOfMemory
from vlm_nb.request import Completion, GenerationConfig, ImageRef, Message, Request


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen(tmp_path_factory.mktemp("qwen"), hidden=64)


@pytest.fixture(scope="module")
def qwen(qwen_folder: Path) -> Iterator[Engine]:
    with loaded(qwen_folder) as engine:
        yield engine


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with loaded(make_llava(tmp_path_factory.mktemp("llava"), hidden=64)) as engine:
        yield engine


def model_of(engine: Engine) -> Any:
    return engine._backend._loaded.model


def mixed(count: int = 12, **generation: Any) -> list[Request]:
    """Requests of many lengths: no image to two, short and long questions, few and many new tokens."""
    made = []
    for n in range(count):
        images = [
            noise(56 + 28 * (n % 4), 28 * (1 + n % 3), seed=n * 7 + k) for k in range((1, 2, 0, 1)[n % 4])
        ]
        settings = {"max_new_tokens": 3 + 5 * (n % 5), **generation}
        made.append(about(*images, question="why? " * (1 + n % 5), **settings))
    return made


def assert_same(one: Completion, other: Completion) -> None:
    assert one.error is None, one.error
    assert other.error is None, other.error
    assert one.text == other.text
    assert one.token_texts == other.token_texts
    assert one.usage.finish_reason == other.usage.finish_reason
    assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)


# Batches ----------------------------------------------------------------------------------------------------


def test_batches_answer_as_single_requests_do(qwen):
    requests = mixed()
    single = [qwen.submit(request).result(60) for request in requests]
    together = dict(generate(qwen, requests))
    for index, alone in enumerate(single):
        assert_same(alone, together[index])
        assert alone.usage.new_tokens == requests[index].generation.max_new_tokens
    assert len({answer.text for answer in single}) > len(requests) // 2


def test_batches_of_llava_answer_as_single_requests_do(llava):
    requests = [
        about(
            *(noise(56, 56, seed=n + k) for k in range(1 + n % 2)), question="what " * n, max_new_tokens=6 + n
        )
        for n in range(1, 9)
    ]
    single = [llava.submit(request).result(60) for request in requests]
    together = dict(generate(llava, requests))
    for index, alone in enumerate(single):
        assert_same(alone, together[index])
        assert alone.seen_sizes == ((56, 56),) * len(requests[index].images)


def test_a_single_request_answers_as_plain_generate_does(qwen, qwen_folder):
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(qwen_folder)
    request = about(noise(84, 56), question="describe", max_new_tokens=20)
    inputs = qwen._backend._loaded.encoder.encode(request).inputs
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    expected = out[0, inputs["input_ids"].shape[1] :].tolist()
    answer = qwen.submit(request).result(60)
    assert answer.text == byte_tokenizer().decode(expected, skip_special_tokens=True).rstrip("\ufffd")
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    assert answer.token_logprobs[0] == pytest.approx(logits.log_softmax(-1)[expected[0]].item(), abs=1e-4)


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.7}, {"min_new_tokens": 5}, {"num_beams": 3}])
def test_settings_do_what_plain_generate_does(qwen, qwen_folder, settings):
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(qwen_folder)
    request = about(noise(56, 56), question="settings", max_new_tokens=16, **settings)
    inputs = qwen._backend._loaded.encoder.encode(request).inputs
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=16, do_sample=False, **settings)
    expected = byte_tokenizer().decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert qwen.submit(request).result(60).text == expected.rstrip("\ufffd")


def test_sampling_depends_on_the_seed_only(qwen):
    def ask(seed: int) -> Request:
        return about(noise(56, 56), max_new_tokens=24, temperature=1.5, top_p=0.95, top_k=50, seed=seed)

    alone = qwen.submit(ask(5)).result(60)
    crowd = dict(generate(qwen, [*mixed(4, temperature=0.7), ask(5), ask(6), ask(5)]))
    assert_same(alone, crowd[4])
    assert_same(alone, crowd[6])
    assert crowd[5].text != alone.text


def test_sampling_without_a_seed_varies_and_follows_manual_seed(qwen):
    request = about(noise(56, 56), max_new_tokens=24, temperature=2.0)
    texts = {qwen.submit(request).result(60).text for _ in range(4)}
    assert len(texts) > 1


def test_the_checkpoints_sampling_counts_only_when_asked_for(qwen_folder, tmp_path):
    folder = shutil.copytree(qwen_folder, tmp_path / "model")
    config = json.loads((folder / "generation_config.json").read_text())
    config |= {
        "do_sample": True,
        "temperature": 0.01,
        "top_k": 1,
        "repetition_penalty": 1.8,
        "max_length": 50,
    }
    (folder / "generation_config.json").write_text(json.dumps(config))
    request = about(noise(56, 56), max_new_tokens=20)
    with loaded(qwen_folder) as plain, loaded(folder) as other:
        greedy = plain.submit(request).result(60)
        assert_same(greedy, other.submit(request).result(60))
        assert other.info.generation_defaults["temperature"] == 0.01
        sampled = other.submit(about(noise(56, 56), max_new_tokens=20, do_sample=True)).result(60)
        penalised = plain.submit(about(noise(56, 56), max_new_tokens=20, repetition_penalty=1.8)).result(60)
        assert sampled.text == penalised.text != greedy.text


# Ends -------------------------------------------------------------------------------------------------------


def test_the_end_token_ends_an_answer_and_stays_out_of_it(qwen, qwen_folder, tmp_path):
    request = about(noise(56, 56), question="end", max_new_tokens=20, keep=True)
    backend = qwen._backend
    whole = qwen.submit(request).result(60)
    expected = whole.token_texts
    folder = shutil.copytree(qwen_folder, tmp_path / "model")
    tokens = plain_tokens(qwen, backend._loaded.encoder.encode(request).inputs)
    at = next(i for i in range(4, 20) if tokens[i] not in tokens[:i])
    config = json.loads((folder / "generation_config.json").read_text())
    config["eos_token_id"] = [config["eos_token_id"], tokens[at]]
    (folder / "generation_config.json").write_text(json.dumps(config))
    with loaded(folder) as engine:
        neighbours = [about(noise(84, 56, seed=3), question="x", max_new_tokens=20), request]
        answer = dict(generate(engine, neighbours))[1]
    assert answer.usage.finish_reason == "stop"
    assert answer.usage.new_tokens == at
    assert whole.text.startswith(answer.text)
    assert "".join(expected[:at]).startswith(answer.text.rstrip("\ufffd"))


def plain_tokens(engine: Engine, inputs: Any) -> list[int]:
    """The tokens that the model generates for a row's tensors, through plain ``generate``."""
    out = engine.call(lambda: model_of(engine).generate(**inputs, max_new_tokens=20, do_sample=False)).result(
        60
    )
    return out[0, inputs["input_ids"].shape[1] :].tolist()


def test_a_stop_string_ends_an_answer_and_stays_out_of_it(qwen):
    whole = qwen.submit(about(noise(56, 56), max_new_tokens=40)).result(60).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
    events = list(stream(qwen, about(noise(56, 56), max_new_tokens=40, stop=(stop, "never this"))))
    answer = events[-1]
    assert answer.text == whole[: whole.index(stop)]
    assert answer.text == "".join(events[:-1])
    assert answer.usage.finish_reason == "stop"


def test_deltas_are_the_text(qwen):
    *deltas, last = stream(qwen, about(noise(56, 56), max_new_tokens=30))
    assert "".join(deltas) == last.text == "".join(last.token_texts)
    assert last.usage.first_token_seconds <= last.usage.seconds


@pytest.mark.parametrize("answer", ["naïve café", "a 👩‍👩‍👧 family 🎉", "汉字と仮名", "e\u0301 ok"])
def test_characters_come_whole(answer):
    tokenizer = byte_tokenizer()
    words = TextStream(tokenizer)
    deltas = [words.add(token) for token in tokenizer(answer).input_ids]
    assert "".join([*deltas, words.finish()]) == answer
    assert not any("\ufffd" in delta for delta in deltas)


def test_half_a_character_at_the_end_is_dropped():
    tokenizer = byte_tokenizer()
    words = TextStream(tokenizer)
    shown = "".join(words.add(token) for token in tokenizer("ok 🎉").input_ids[:-1]) + words.finish()
    assert shown == "ok "


@pytest.mark.parametrize(
    ("answer", "stop", "expected"),
    [
        ("one two END three", ("END",), "one two "),
        ("one EN two", ("END",), "one EN two"),
        ("one EN", ("END",), "one EN"),
        ("aab", ("ab",), "a"),
        ("x\n\ny", ("\n\n", "y"), "x"),
    ],
)
def test_no_part_of_a_stop_string_is_shown(answer, stop, expected):
    tokenizer = byte_tokenizer()
    words, shown = TextStream(tokenizer, stop=stop), ""
    for token in tokenizer(answer).input_ids:
        shown += words.add(token)
        assert expected.startswith(shown)
        if words.stopped:
            break
    assert shown + words.finish() == expected


def test_special_tokens_are_kept_only_on_request():
    tokenizer = byte_tokenizer()
    ids = tokenizer("a<|vision_start|>b").input_ids
    for skip, expected in ((True, "ab"), (False, "a<|vision_start|>b")):
        words = TextStream(tokenizer, skip_special=skip)
        assert "".join(words.add(token) for token in ids) + words.finish() == expected


# Cancel, errors, memory -------------------------------------------------------------------------------------


def test_cancel_in_mid_generation_leaves_the_neighbours_alone(qwen):
    keep = about(noise(84, 56), max_new_tokens=60)
    expected = qwen.submit(keep).result(60)
    doomed = qwen.submit(about(noise(56, 56), max_new_tokens=3000, cut_repeats=False))
    kept = qwen.submit(keep)
    while not doomed.text:
        time.sleep(0.01)
    doomed.cancel()
    started = time.monotonic()
    partial = doomed.result(30)
    assert time.monotonic() - started < 5
    assert partial.usage.finish_reason == "cancelled"
    assert partial.text
    assert_same(expected, kept.result(60))


def test_cancel_before_the_first_token(qwen):
    ticket = qwen.submit(about(noise(56, 56), max_new_tokens=3000, cut_repeats=False))
    ticket.cancel()
    assert ticket.result(20).usage.finish_reason == "cancelled"


def test_unload_in_mid_generation_is_quick(qwen_folder):
    with loaded(qwen_folder) as engine:
        ticket = engine.submit(about(noise(56, 56), max_new_tokens=3000, cut_repeats=False))
        while not ticket.text:
            time.sleep(0.01)
        assert engine.close(timeout=20)
        assert type(ticket.result(1).error).__name__ == "ModelUnloaded"


def test_unload_frees_the_model(qwen_folder):
    with loaded(qwen_folder) as engine:
        answer = engine.submit(about(noise(56, 56), max_new_tokens=4)).result(60)
        backend = engine._backend
        held = [weakref.ref(backend._loaded.model), weakref.ref(backend._loaded.encoder._processor)]
        held.append(weakref.ref(model_of(engine).lm_head.weight))
        assert engine.close(timeout=20)
    assert [reference() for reference in held] == [None] * 3
    assert answer.text is not None
    assert engine.memory.after is not None


def test_an_error_frees_the_tensors_of_its_batch(qwen, monkeypatch):
    held: list[weakref.ref[torch.Tensor]] = []
    model = model_of(qwen)

    def broken(**inputs: Any) -> None:
        held.append(weakref.ref(inputs["input_ids"]))
        raise RuntimeError("boom")

    monkeypatch.setattr(model, "forward", broken)
    failed = qwen.submit(about(noise(56, 56, seed=404)))
    assert "boom" in str(failed.result(20).error)
    del failed
    qwen.call(lambda: None).result(5)
    assert held[0]() is None
    monkeypatch.undo()
    assert qwen.submit(text("fine", max_new_tokens=2)).result(20).error is None


STATIC = {"in_flight": False}


def test_out_of_memory_halves_a_static_batch_and_it_goes_on_where_it_was(qwen_folder, monkeypatch):
    requests = mixed(8, max_new_tokens=14)
    with loaded(qwen_folder, engine_args=STATIC) as engine:
        expected = [engine.submit(request).result(60) for request in requests]
    sizes: list[int] = []
    deliver = generation._Deliver.__call__

    def limited(self: Any, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        done = deliver(self, input_ids, scores, **kwargs)
        if len(self._rows) > 2 and min(len(row.new_ids) for row in self._rows) >= 3:
            sizes.append(len(self._rows))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return done

    monkeypatch.setattr(generation._Deliver, "__call__", limited)
    with loaded(qwen_folder, max_batch_size=8, engine_args=STATIC) as engine:
        held = engine.call(lambda: time.sleep(0.3))
        tickets = [engine.submit(request) for request in requests]
        held.result(5)
        for ticket, answer in zip(tickets, expected, strict=True):
            assert_same(answer, ticket.result(60))
            assert "".join(event for event in ticket.events() if isinstance(event, str)) == answer.text
        assert sizes
        assert engine.slots <= 2


def test_a_request_that_cannot_fit_alone_is_out_of_memory(qwen, monkeypatch):
    def full(**inputs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model_of(qwen), "forward", full)
    answer = qwen.submit(about(noise(56, 56, seed=405))).result(20)
    assert isinstance(answer.error, OutOfMemory)
    assert "out of memory" in str(answer.error)
    assert "max_pixels" in str(answer.error)


def test_a_prompt_beyond_the_context_is_refused_with_counts(qwen):
    answer = qwen.submit(about(noise(56, 56), question="x" * 5000)).result(20)
    assert isinstance(answer.error, ContextTooLong)
    for number in ("4096", "4 of them for 1 image(s)"):
        assert number in str(answer.error)


def test_the_answer_stops_where_the_context_ends(tmp_path):
    with loaded(make_qwen(tmp_path, context=64)) as engine:
        answer = engine.submit(text("x" * 10, max_new_tokens=500)).result(60)
        assert answer.usage.finish_reason == "length"
        assert answer.usage.prompt_tokens + answer.usage.new_tokens == 64


def test_an_image_that_the_processor_changes_is_an_error_not_a_shifted_box(qwen):
    image = noise(70, 50)
    request = Request(messages=(Message("user", (ImageRef(0), "where?")),), images=(image,))
    answer = qwen.submit(request).result(20)
    assert isinstance(answer.error, GenerationError)
    assert "wrong place" in str(answer.error)
    assert qwen.submit(about(image)).result(20).error is not None


def test_a_refused_request_fails_alone(qwen):
    good, bad = about(noise(56, 56), max_new_tokens=4), about(noise(30, 30), max_new_tokens=4)
    answers = dict(generate(qwen, [good, bad, good]))
    assert answers[0].error is None
    assert_same(answers[0], answers[2])
    assert isinstance(answers[1].error, GenerationError)


def test_sizes_and_counts_are_what_the_model_saw(qwen):
    images = (noise(84, 56), noise(28, 112))
    answer = qwen.submit(about(*images, max_new_tokens=2)).result(20)
    assert answer.seen_sizes == ((84, 56), (28, 112))
    assert answer.usage.image_tokens == 3 * 2 + 1 * 4


def test_a_complete_prompt_is_taken_as_it_is(qwen):
    messages = (Message("user", (ImageRef(0), "what?")),)
    image = noise(56, 56)
    rendered = about(image, max_new_tokens=8)
    prompt = qwen._backend._loaded.encoder.render(rendered)
    given = Request(
        messages=messages,
        images=(image,),
        prompt=prompt,
        processor_kwargs={"do_resize": False},
        generation=GenerationConfig(max_new_tokens=8),
    )
    assert_same(qwen.submit(rendered).result(20), qwen.submit(given).result(20))


def test_an_answer_that_is_begun_is_gone_on_with(qwen):
    messages = (Message("user", ("hello",)), Message("assistant", ("well then",)))
    rendered = qwen._backend._loaded.encoder.render(Request(messages=messages))
    assert rendered.endswith("well then")


def test_without_a_chat_template_a_conversation_is_an_error(qwen_folder, tmp_path):
    folder = shutil.copytree(qwen_folder, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with loaded(folder) as engine:
        answer = engine.submit(text("hello")).result(20)
        assert isinstance(answer.error, CapabilityError)
        assert "chat_template=" in str(answer.error)
        assert engine.submit(Request(messages=(), prompt="hello")).result(60).error is None


def test_the_engine_never_prints(qwen_folder, capfd):
    with loaded(qwen_folder) as engine:
        engine.submit(about(noise(56, 56), max_new_tokens=4, temperature=0)).result(60)
        engine.submit(about(noise(56, 56), max_new_tokens=4, temperature=0.5)).result(60)
    assert capfd.readouterr() == ("", "")


def test_generation_pauses_while_another_model_is_loaded(qwen, qwen_folder):
    ticket = qwen.submit(about(noise(56, 56), max_new_tokens=3000, cut_repeats=False))
    while not ticket.text:
        time.sleep(0.01)
    with loaded(qwen_folder, dtype="bfloat16") as other:
        assert other.info.dtype == "bfloat16"
        assert other.submit(text("both", max_new_tokens=3)).result(60).error is None
        assert not ticket.done
    ticket.cancel()
    assert ticket.result(20).usage.finish_reason == "cancelled"
