"""Bad input through Python: one clear line of ours, whatever was given, and nothing else lost."""

from __future__ import annotations

import contextlib
import re
import sqlite3

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vlm_nb
from vlm_nb import config, registry
from vlm_nb.errors import LedgerError, OptionError, PromptError, SourceError, VLMError
from vlm_nb.request import GenerationConfig

pytestmark = pytest.mark.usefixtures("fresh_registry")
PICTURE = Image.new("RGB", (64, 48), "red")
NAN = float("nan")


@pytest.fixture
def model():
    return vlm_nb.load("scripted", engine="scripted", script="two dogs")


def refused(call, kind=VLMError):
    with pytest.raises(kind) as caught:
        call()
    line = str(caught.value)
    assert line
    assert "\n" not in line
    assert len(line) < 500
    return line


# Questions, settings, options -------------------------------------------------------------------------------

PROMPTS = {
    "a number": (lambda m: m.ask(PICTURE, 5), "a prompt must be text, not int 5"),
    "a list": (lambda m: m.ground(PICTURE, ["a", "b"]), "must be text, not list"),
    "a number to stream": (lambda m: list(m.stream(PICTURE, 5)), "must be text"),
    "a number in a chat": (lambda m: m.chat(PICTURE).ask(5), "must be text"),
    "a number for all": (lambda m: m(source=PICTURE, user_prompt=5), "must be text"),
    "bytes for all": (lambda m: m(source=[PICTURE], user_prompt=b"what"), "must be text"),
    "a system prompt": (lambda m: m.ask(PICTURE, "x", system=5), "system= must be text"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_that_are_no_text(model, name):
    call, words = PROMPTS[name]
    assert words in refused(lambda: call(model), PromptError)


def test_a_prompt_that_is_no_text_costs_its_own_row_only(model):
    outcomes = model(source=[PICTURE] * 3, user_prompt=["a", 5, "b"], show_progress=False)
    assert [error is None for _, error in outcomes] == [True, False, True]
    assert "must be text" in str(outcomes[1].error)


@pytest.mark.parametrize(
    "given", [5, [1], "max_new_tokens=3", {5: 6}, {"stop": 5}, {"stop": [5]}, {"seed": NAN}]
)
def test_generation_settings_of_the_wrong_shape(model, given):
    refused(lambda: model(source=PICTURE, generation_config=given), OptionError)
    refused(lambda: model.ask(PICTURE, "x", generation_config=given), OptionError)


def test_numbers_of_numpy_are_numbers():
    made = GenerationConfig(max_new_tokens=np.int64(5), temperature=np.float32(0.5), top_k=np.uint8(3))
    assert made.to_dict() == {"max_new_tokens": 5, "temperature": 0.5, "top_k": 3}
    assert all(type(value) in (int, float) for value in made.to_dict().values())


@pytest.mark.parametrize(
    "options",
    [
        {"output": "/"},
        {"output": 5},
        {"output": ""},
        {"output": "/proc/nope/rows.jsonl"},
        {"ledger": 5},
        {"verify": "x"},
        {"reuse_sampled": 1},
        {"show_progress": "x"},
        {"no_such": 1},
    ],
)
def test_run_options(model, options):
    refused(lambda: model(source=[PICTURE], user_prompt="x", **options), OptionError)


@pytest.mark.parametrize("requests", [5, None, "abc", b"abc", {"messages": []}])
def test_what_is_no_list_of_requests(model, requests):
    assert "list of requests" in refused(lambda: model.generate(requests), OptionError)


# Images -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (0, 5)),
        np.zeros((5, 5), dtype=object),
        np.zeros((5, 5, 3), dtype=complex),
        np.array("x"),
        np.zeros((3, 3), dtype="datetime64[s]"),
        pd.NA,
        NAN,
        {"bytes": b"", "path": 5},
        lambda: 1,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_image(model, image):
    refused(lambda: model.ask(image, "x"))
    outcomes = model(source=[PICTURE, image, PICTURE], user_prompt="x", show_progress=False)
    assert outcomes[0].error is None
    assert outcomes[-1].error is None


# Files that are somebody's own ----------------------------------------------------------------------------


@pytest.fixture
def kept():
    """A model whose answers a ledger keeps."""
    args = {"fingerprint": "f"}
    return vlm_nb.load("scripted", engine="scripted", script="two dogs", engine_args=args)


@pytest.mark.parametrize(
    "content", [b"hello", b"hello\n", b"\x89PNG\r\n", b"a,b\n1,2", b"[1, 2]", b'{\n  "a": 1\n}']
)
def test_an_output_that_is_another_file_stays_as_it_was(kept, tmp_path, content):
    target = tmp_path / "notes.txt"
    target.write_bytes(content)
    line = refused(lambda: kept(source=[PICTURE], user_prompt="x", output=target, ledger=False), OptionError)
    assert "no output of vlm_nb" in line
    assert target.read_bytes() == content


def test_a_database_of_something_else_stays_as_it_was(kept, tmp_path):
    place = tmp_path / "mine.db"
    with contextlib.closing(sqlite3.connect(place)) as db:
        db.execute("CREATE TABLE notes (text)")
    before = place.read_bytes()
    for look in (vlm_nb.ledger.size, vlm_nb.ledger.runs, vlm_nb.ledger.prune):
        assert "database of something else" in refused(lambda look=look: look(place), LedgerError)
    with pytest.warns(UserWarning, match="database of something else"):
        (outcome,) = kept(source=[PICTURE], user_prompt="x", ledger=place, show_progress=False)
    assert outcome.unwrap().caption == "two dogs"
    assert place.read_bytes() == before


@pytest.mark.parametrize("limit", [{"max_gb": -1}, {"max_gb": NAN}, {"max_gb": "x"}, {"older_than_days": -5}])
def test_a_limit_that_is_none_prunes_nothing(kept, tmp_path, limit):
    place = tmp_path / "ledger.sqlite3"
    kept(source=[PICTURE], user_prompt="x", ledger=place, show_progress=False)
    refused(lambda: vlm_nb.ledger.prune(place, **limit), OptionError)
    assert vlm_nb.ledger.prune(place) == 1


OTHERS = {
    "an export into a folder": lambda m, d: vlm_nb.ledger.export(d),
    "an export into nowhere": lambda m, d: vlm_nb.ledger.export(d / "no" / "x.jsonl"),
    "a ledger that is a number": lambda m, d: vlm_nb.ledger.size(5),
    "a ledger with a zero in its name": lambda m, d: m(source=[PICTURE], user_prompt="x", ledger="a\0b"),
    "an output with a zero in its name": lambda m, d: m(source=[PICTURE], user_prompt="x", output="a\0b"),
    "a number of conversations": lambda m, d: m.run_jsonl(5, output=d / "o.jsonl"),
    "a model type that is a number": lambda m, d: vlm_nb.parse_grounding("x", 5, image_size=(1, 1)),
    "a list of model types": lambda m, d: vlm_nb.parse_grounding("x", ["a"], image_size=(1, 1)),
    "a frame of a number": lambda m, d: vlm_nb.to_frame(5),
    "a frame of numbers": lambda m, d: vlm_nb.to_frame([5]),
    "a comparison with a number": lambda m, d: m.compare(5, PICTURE),
    "an overlay into a number": lambda m, d: m.ask(PICTURE, "x").save(5),
    "an overlay into a folder": lambda m, d: m.ask(PICTURE, "x").save(d),
    "an overlay into nowhere": lambda m, d: m.ask(PICTURE, "x").save(d / "no" / "x.png"),
    "an overlay of no format": lambda m, d: m.ask(PICTURE, "x").save(d / "x.zzz"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_places_and_other_arguments(model, tmp_path, name):
    refused(lambda: OTHERS[name](model, tmp_path), OptionError)


def test_a_function_is_no_schema(model):
    assert "is no schema" in refused(lambda: model.extract(PICTURE, lambda: 1))


def test_an_overlay_without_a_suffix_is_a_png(model, tmp_path):
    assert model.ask(PICTURE, "x").save(tmp_path / "overlay") == tmp_path / "overlay.png"
    assert (tmp_path / "overlay.png").is_file()


# load -------------------------------------------------------------------------------------------------------

KEYWORDS = [
    *({"max_pixels": value} for value in (-1, 0, "x", 1.5, True)),
    *({"max_batch_size": value} for value in (0, "a")),
    *({"dtype": value} for value in (5, "int3")),
    *({"device_map": value} for value in (5, 1.5, "gpu9")),
    *({"generation_config": value} for value in (5, {"x": 1}, {"max_new_tokens": 0})),
    *(
        {name: 5}
        for name in ("engine", "adapter", "processor", "family", "chat_template", "revision", "token")
    ),
    *(
        {name: 5}
        for name in ("model_kwargs", "engine_args", "attn_implementation", "quantization", "compile")
    ),
    *({name: "x"} for name in ("quantization_config", "local_files_only", "low_cpu_mem_usage", "compile")),
    {"family": "qwenn"},
    {"engine": "vllm", "compile": True},
    {"base_url": "http://localhost"},
    {"api_key": "sk-secret"},
    {"tensor_parallel": 2},
    {"engine": "openai", "base_url": 5},
    {"engine": "openai", "base_url": "http://127.0.0.1:9", "api_key": 5},
    {"engine": "openai", "base_url": "http://127.0.0.1:9", "max_concurrency": 0},
    {"engine": "openai", "base_url": "http://127.0.0.1:9", "engine_args": {"timeout": "x"}},
    {"engine": "openai", "base_url": "http://127.0.0.1:9", "engine_args": {"retries": -1}},
]


@pytest.mark.parametrize("keywords", KEYWORDS, ids=str)
def test_keywords_of_load(model, keywords):
    line = refused(lambda: vlm_nb.load("demo", **keywords), OptionError)
    assert "secret" not in line
    assert registry.loaded() == [model]
    assert model.ask(PICTURE, "x").caption == "two dogs"


@pytest.mark.parametrize("name", [5, "", "  ", b"demo", ["demo"]])
def test_names_that_are_none(model, name):
    assert "no name of a model" in refused(lambda: vlm_nb.load(name), OptionError)
    assert registry.loaded() == [model]


def test_what_is_no_loaded_model(model):
    for call in (registry.use, registry.unload, registry.current):
        assert "no loaded model" in refused(lambda call=call: call(5), OptionError)


# Settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        *(
            "max_pixels = -5",
            "max_pixels = 1.7",
            "max_pixels = true",
            "max_pixels = 'x'",
            "max_new_tokens = 0",
        ),
        *(
            "url_timeout = nan",
            "url_timeout = -1",
            "url_max_mb = 0",
            "ledger_max_gb = inf",
            "ledger_max_gb = true",
        ),
        *("model = 5", "model = ['a']", "model = ' '", "ledger = 5", "show_progress = 5", "stream = 'maybe'"),
    ],
)
def test_a_wrong_setting_names_its_file(line):
    file = config.config_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line)
    assert refused(config.settings, OptionError).startswith(str(file))


def test_false_switches_the_ledger_off():
    file = config.config_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("ledger = false")
    assert config.settings().ledger == "off"


# Tables -----------------------------------------------------------------------------------------------------

TABLE = {
    "a model that is none": lambda df: df.vlm.caption(model=5),
    "a count that is none": lambda df: df.vlm.show("x"),
    "a negative count": lambda df: df.vlm.show(-1),
    "rows that are none": lambda df: df.vlm.estimate(rows="x"),
    "a column without boxes": lambda df: df.vlm.boxes("image"),
    "COCO into a folder": lambda df: df.vlm.to_coco("/"),
    "COCO into a number": lambda df: df.vlm.to_coco(5),
    "Label Studio into a folder": lambda df: df.vlm.to_label_studio("/"),
    "lines into a folder": lambda df: df.vlm.to_jsonl("/"),
    "lines into nothing": lambda df: df.vlm.to_jsonl(""),
    "YOLO into a file": lambda df: df.vlm.to_yolo(df["image"].iloc[0]),
    "YOLO where nothing can be made": lambda df: df.vlm.to_yolo("/proc/nope"),
    "nothing to retry": lambda df: df.vlm.retry_failed(),
}


@pytest.mark.parametrize("name", TABLE)
def test_tables(model, tmp_path, name):
    PICTURE.save(tmp_path / "a.png")
    frame = pd.DataFrame({"image": [str(tmp_path / "a.png"), None]})
    refused(lambda: TABLE[name](frame), OptionError)


NOTES = [
    5,
    {"calls": 5},
    {"calls": {"caption": 5}},
    {"calls": {"caption": {}}},
    {"calls": {"caption": {"columns": 5}}},
]


@pytest.mark.parametrize("note", NOTES, ids=str)
def test_a_note_that_somebody_edited_is_no_note(model, note):
    frame = pd.DataFrame({"image": [PICTURE]})
    frame.attrs["vlm"] = note
    captioned = frame.vlm.caption(show_progress=False)
    assert captioned["caption"].tolist() == ["two dogs"]
    assert "no earlier call" in refused(frame.vlm.retry_failed, OptionError)


BOXES = [
    *("x", 5, {"a": 1}, [{"phrase": "a"}], [{"phrase": "a", "bbox": [1]}], [None]),
    *([{"phrase": "a", "bbox": ["x"] * 4}], [{"phrase": "a", "bbox": [NAN] * 4}]),
]


@pytest.mark.parametrize("cell", BOXES, ids=str)
def test_boxes_that_are_none(model, tmp_path, cell):
    frame = pd.DataFrame({"image": [PICTURE], "boxes": [cell], "image_width": [64], "image_height": [48]})
    for use in (frame.vlm.boxes, frame.vlm.show, lambda: frame.vlm.to_coco(tmp_path / "c.json")):
        assert "no list of boxes" in refused(use, OptionError)


def test_a_categorical_column_of_paths_is_one_of_images(model, tmp_path):
    PICTURE.save(tmp_path / "a.png")
    frame = pd.DataFrame(
        {"picture": pd.Categorical([str(tmp_path / "a.png")] * 2), "n": pd.Categorical([1, 2])}
    )
    assert frame.vlm.caption(show_progress=False)["caption"].tolist() == ["two dogs"] * 2


def test_an_estimate_of_no_rows_measures_none(model):
    frame = pd.DataFrame({"image": [PICTURE, None]})
    assert frame.vlm.estimate(rows=0).measured == 0


def test_tensors_without_numbers(model):
    torch = pytest.importorskip("torch")
    for tensor in (torch.zeros(3, 5, 5, device="meta"), torch.eye(5).to_sparse()):
        assert "its numbers cannot be read" in refused(
            lambda tensor=tensor: model.ask(tensor, "x"), SourceError
        )


def test_the_byte_order_of_an_array_does_not_matter(model):
    array = np.full((6, 8), 257 * 200, dtype=">u2")
    assert vlm_nb.load_image(array).getpixel((0, 0)) == (200, 200, 200)


ALONE = {
    "ask": lambda m: m.ask(None, "How many?"),
    "caption": lambda m: m.caption(None),
    "ground": lambda m: m.ground(None, "circle"),
    "every object": lambda m: m.ground(None),
    "stream": lambda m: list(m.stream(None, "How many?")),
    "call": lambda m: m(source=None, user_prompt="How many?").unwrap(),
    "extract": lambda m: m.extract(None, ["yes", "no"]),
}


@pytest.mark.parametrize("name", ALONE)
def test_none_is_no_image(model, name):
    assert "no image in None" in refused(lambda: ALONE[name](model), SourceError)


def test_captions_and_boxes_are_of_an_image(model):
    for call in (lambda: model.caption([]), lambda: model.ground([], "x"), lambda: model().unwrap()):
        assert "no image given" in refused(call, SourceError)


def test_the_working_folder_is_named_once_and_not_in_every_row(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = f"no such file: a.png. The working folder is {tmp_path}."
    for call in (model.caption, model.chat, lambda name: model(name).unwrap()):
        assert refused(lambda call=call: call("a.png"), SourceError) == where
    assert "working folder" not in refused(lambda: model.ask("/a.png", "x"), SourceError)
    assert str(model(source=["a.png"], show_progress=False)[0].error) == "no such file: a.png."


def test_a_question_in_text_only(model):
    answers = [model.ask([], "x"), model(user_prompt="x").unwrap(), model.chat().ask("x")]
    assert [(answer.caption, answer.image_size) for answer in answers] == [("two dogs", None)] * 3


@pytest.mark.parametrize("text", ["What is it?", "Describe it", "it"])
def test_image_and_question_exchanged(model, tmp_path, text):
    line = "seems to be the image and .* the text: the image comes first"
    for call in (model.ask, model.ground):
        assert re.search(line, refused(lambda call=call: call(text, "photos/scene_01.png"), OptionError))
    PICTURE.save(tmp_path / "my picture.png")
    picture = str(tmp_path / "my picture.png")
    assert re.search(line, refused(lambda: model.ask(text, picture), OptionError))
    if "?" not in text:  # a pattern, which many images may match
        assert re.search(line, refused(lambda: model(source=text, user_prompt=picture), OptionError))
    assert "no such file" in refused(lambda: model.ask("gone.png", "Is it like a.png"))


@pytest.mark.parametrize("source", [PICTURE, [PICTURE]], ids=["one", "many"])
def test_keywords_named_as_elsewhere(model, source):
    wrong = "source= and user_prompt="
    assert wrong in refused(lambda: model(image=source, prompt="How many?"), OptionError)
    assert wrong in refused(lambda: model(source=source, prompt="How many?"), OptionError)
    assert wrong in refused(lambda: model.caption(PICTURE, prompt="How many?"), OptionError)


@pytest.mark.parametrize("many", ["*.jpg", "/tmp", np.zeros((5, 5), dtype=object)], ids=type)
def test_many_images_for_one_question(model, many):
    assert "may be many images" in refused(lambda: model.ask(many, "x"), OptionError)


class Broken:
    """Nothing about it can be looked at."""

    def __iter__(self):
        raise RuntimeError("broken")

    def __str__(self):
        raise RuntimeError("broken")


def test_what_cannot_even_be_looked_at_is_an_error_in_its_place(model):
    inside: list[object] = []
    inside.append(inside)
    for item in (Broken(), inside):
        outcomes = model(source=[PICTURE, item, PICTURE], user_prompt="x", show_progress=False)
        assert [error is None for _, error in outcomes] == [True, False, True]
    assert "nested too deeply" in refused(lambda: model.ask(inside, "x"))
