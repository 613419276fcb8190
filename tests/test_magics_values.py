"""Where values come from: variables, expressions, ``{{…}}``, options, settings; conversations."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shell import Shell, shell

import vlm_nb
from vlm_nb import config
from vlm_nb.request import Request

__all__ = ["shell"]


class Recorder:
    """A script that keeps the requests and answers with their prompts."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> str:
        self.requests.append(request)
        return f"{len(request.messages)} messages: {request.messages[-1].text}"

    @property
    def last(self) -> Request:
        return self.requests[-1]


@pytest.fixture
def sent(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What the engine gets; the working folder holds ``a.png`` and ``my photo.png``."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "my photo.png", "it's.png"):
        Image.new("RGB", (56, 56), "red").save(name)
    script = Recorder()
    vlm_nb.load("scripted", engine="scripted", script=script)
    return script


SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "file": ("a.png", {}),
    "quoted file": ('"my photo.png"', {}),
    "quoted file with an apostrophe": ('"it\'s.png"', {}),
    "path in a variable": ("path", {"path": "a.png"}),
    "Path object": ("path", {"path": Path("a.png")}),
    "image": ("image", {"image": Image.new("RGB", (56, 56))}),
    "list item": ("images[0]", {"images": ["a.png", "b.png"]}),
    "dict item": ('found["my photo"]', {"found": {"my photo": "a.png"}}),
    "attribute": ("holder.path", {"holder": type("Holder", (), {"path": "a.png"})}),
    "call": ("make('my photo', n=(1, 2))", {"make": lambda name, n: f"{name}.png"}),
    "bracketed expression": ("(folder / 'a.png')", {"folder": Path()}),
    "braces": ("{{path}}", {"path": "a.png"}),
    "an object in braces": ("{{image}}", {"image": Image.new("RGB", (56, 56))}),
    "braces in a path": ("./{{name}}.png", {"name": "a"}),
    "braces in quotes": ('"{{name}} photo.png"', {"name": "my"}),
    "data URI": (
        "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
        {},
    ),
    "a file wins over a variable": ("a.png", {"a": type("Trap", (), {"png": "nothing.png"})}),
}


@pytest.mark.parametrize(("source", "names"), SOURCES.values(), ids=SOURCES)
def test_one_source(shell: Shell, sent: Recorder, source: str, names: dict[str, Any]) -> None:
    shell.names.update(names)
    answer = shell.cell(f"%vqa {source} What's this?").value
    assert answer.prompt == "What's this?"
    assert len(sent.last.images) == 1


def test_an_array_is_a_source(shell: Shell, sent: Recorder) -> None:
    numpy = pytest.importorskip("numpy")
    shell.names["pixels"] = numpy.zeros((56, 56, 3), dtype="uint8")
    assert shell.cell("%vqa pixels What?").value.image_size == (56, 56)


def test_generators_are_lists(shell: Shell, sent: Recorder) -> None:
    shell.names["folder"] = Path()
    assert len(shell.cell("%caption folder.glob('*.png')").value) == 3


TEXTS = {
    "a name": ("Is it {{colour}}?", "Is it red?"),
    "an expression": ("Is it {{colour.upper() + '!'}}?", "Is it RED!?"),
    "a dict in braces": ("{{ {'a': {'b': 1}}['a']['b'] }}", "1"),
    "a literal": (r"Write \{{colour}}", "Write {{colour}}"),
    "lone braces": ('Answer as {"colour": …} or {}', 'Answer as {"colour": …} or {}'),
    "a dollar": ("Is it $colour or $5?", "Is it $colour or $5?"),
    "twice": ("{{colour}} or {{colour}}", "red or red"),
    "braces in a value": ("{{tricky}}", "{{colour}}"),
    "a percent sign": ("Is 50 % %vqa red?", "Is 50 % %vqa red?"),
    "a format string": ("{{f'{number:.2f}'}}", "3.14"),
}


@pytest.mark.parametrize(("text", "prompt"), TEXTS.values(), ids=TEXTS)
def test_braces_on_the_line_and_in_the_body(shell: Shell, sent: Recorder, text: str, prompt: str) -> None:
    shell.names.update(colour="red", tricky="{{colour}}", number=3.14159)
    assert shell.cell(f"%vqa a.png {text}").value.prompt == prompt
    assert shell.cell(f"%%vqa a.png\n{text}").value.prompt == prompt


def test_a_value_with_a_list_in_it_is_one_question(shell: Shell, sent: Recorder) -> None:
    shell.names["text"] = "- a\n- b"
    assert shell.cell("%%vqa a.png\n{{text}}").value.prompt == "- a\n- b"


QUESTION_MARKS = [
    "%vqa a.png Is it red?",
    "%vqa a.png Is it red??",
    "x = %vqa a.png Is it red?",
    "if True:\n    %vqa -o x a.png Is it red?",
    '%vqa a.png Is it "red?',
    "%vqa a.png Isn't it red?",
    "%vqa a.png Is (it red?",
    "x = 1\n%vqa a.png Is it red?\ny = 2",
    "text = '''\n%vqa a.png not this?\n'''\n%vqa a.png Is it red?",
]


@pytest.mark.parametrize("cell", QUESTION_MARKS)
def test_a_line_may_end_with_a_question_mark(shell: Shell, sent: Recorder, cell: str) -> None:
    shell.cell(cell)
    assert len(sent.requests) == 1
    assert sent.last.messages[-1].text.endswith("?")


def test_help_still_works(shell: Shell, sent: Recorder) -> None:
    shell.cell("%vqa?")
    shell.cell("%ground??")
    shell.cell("len?")
    assert sent.requests == []


OPTIONS = {
    "--max_new_tokens 7": ("max_new_tokens", 7),
    "--max-new-tokens=7": ("max_new_tokens", 7),
    "--min_new_tokens 2": ("min_new_tokens", 2),
    "--do_sample": ("do_sample", True),
    "--temperature 0.5": ("temperature", 0.5),
    "--top_p .9": ("top_p", 0.9),
    "--top_k 5": ("top_k", 5),
    "--repetition_penalty 1.1": ("repetition_penalty", 1.1),
    "--num_beams 2": ("num_beams", 2),
    "--seed 3": ("seed", 3),
    "--stop END --stop 'the end'": ("stop", ("END", "the end")),
    "--max_new_tokens {{limit}}": ("max_new_tokens", 9),
}


@pytest.mark.parametrize(("option", "found"), OPTIONS.items(), ids=OPTIONS)
@pytest.mark.parametrize("magic", ["vqa a.png What?", "ground a.png car", "caption a.png"])
def test_generation_options(
    shell: Shell, sent: Recorder, magic: str, option: str, found: tuple[str, Any]
) -> None:
    shell.names["limit"] = 9
    shell.cell(f"%{magic} {option}")
    assert getattr(sent.last.generation, found[0]) == found[1]


def test_system(shell: Shell, sent: Recorder) -> None:
    shell.names["tone"] = "rude"
    shell.cell('%vqa --system "Be {{tone}}, please." a.png What?')
    assert (sent.last.messages[0].role, sent.last.messages[0].text) == ("system", "Be rude, please.")


def test_model(shell: Shell, sent: Recorder) -> None:
    vlm_nb.load("other", engine="scripted", script="from the other", keep=True)
    assert shell.cell("%vqa --model scripted a.png What?").value.model == "scripted"
    assert shell.cell("%vqa a.png What?").value.model == "other"
    shell.cell("%vlm use scripted")
    assert shell.cell("%vqa a.png What?").value.model == "scripted"


def test_recursive(shell: Shell, sent: Recorder) -> None:
    Path("deep/er").mkdir(parents=True)
    for place in ("deep/a.png", "deep/er/b.png"):
        Image.new("RGB", (56, 56)).save(place)
    assert len(shell.cell("%caption deep").value) == 1
    assert len(shell.cell("%caption deep --recursive").value) == 2


def test_a_table_comes_back_from_the_accessor(shell: Shell, sent: Recorder) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"image": ["a.png", "a.png"], "kind": ["x", "y"]}, index=[7, 7])
    shell.names.update(df=table, column=table["image"])
    found = shell.cell("%vqa df What?").value
    assert list(found.index) == [7, 7]
    assert list(found["kind"]) == ["x", "y"]
    assert "messages: What?" in found["answer"].iloc[0]
    assert "answer" in shell.cell("%vqa column What?").value
    assert "caption" in shell.cell("%caption df -o kept").value
    assert "caption" in shell.names["kept"]
    two = shell.cell("%%vqa df\n- What?\n- And?").value
    assert {"answer", "answer_2"} <= set(two.columns)


# Settings -----------------------------------------------------------------------------------------------


def test_config_sets_a_default(shell: Shell, sent: Recorder) -> None:
    try:
        shell.cell("%config VlmMagics.max_new_tokens = 5")
        vlm_nb.load("again", engine="scripted", script=sent)
        shell.cell("%vqa a.png What?")
        assert sent.last.generation.max_new_tokens == 5
        shell.cell("%vqa a.png What? --max_new_tokens 6")
        assert sent.last.generation.max_new_tokens == 6
    finally:
        shell.cell("%config VlmMagics.max_new_tokens = None")
    assert config.overrides() == {}


def test_config_refuses_in_one_line(shell: Shell, capfd: pytest.CaptureFixture[str]) -> None:
    shell.run("%config VlmMagics.max_new_tokens = 'many'")
    assert config.overrides() == {}
    shell.run("%config VlmMagics.url_timeout = 3")
    assert config.overrides() == {"url_timeout": 3.0}
    shell.run("%config VlmMagics.url_timeout = None")


def test_vlm_config_says_where_settings_come_from(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_NB_MAX_NEW_TOKENS", "9")
    file = config.config_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('quantization = "4bit"\n')
    shell.cell("%config VlmMagics.stream = False")
    text = shell.cell("%vlm config").displays[0]["text/plain"]
    shell.cell("%config VlmMagics.stream = None")
    rows = {line.split()[0]: line.split() for line in text.splitlines()[2:]}
    assert rows["max_new_tokens"][1:] == ["9", "environment"]
    assert rows["quantization"][1:] == ["4bit", str(file)]
    assert rows["stream"][1:] == ["False", "%config"]
    assert rows["model"][1:] == ["demo", "default"]


# Conversations ------------------------------------------------------------------------------------------


def test_chat_goes_on_from_the_last_answer(shell: Shell, sent: Recorder) -> None:
    shell.cell("%vqa a.png What is it?")
    shell.cell("%vqa --chat And what colour?")
    roles = [message.role for message in sent.last.messages]
    assert roles == ["user", "assistant", "user"]
    assert len(sent.last.images) == 1
    shell.cell("%vqa 'my photo.png' --chat Like this one?")
    assert (len(sent.last.messages), len(sent.last.images)) == (5, 2)
    shell.cell("%%vqa --chat\n- Sure?\n- Really?")
    assert len(sent.last.messages) == 9
    shell.cell("%vqa a.png A new one?")
    assert len(sent.last.messages) == 1


def test_chat_may_begin_with_an_image(shell: Shell, sent: Recorder) -> None:
    shell.cell('%vqa --chat --system "Be brief." a.png What is it?')
    shell.cell("%vqa --chat And now?")
    assert [message.role for message in sent.last.messages] == ["system", "user", "assistant", "user"]


def test_a_question_of_a_chat_may_begin_with_a_variables_name(shell: Shell, sent: Recorder) -> None:
    shell.names["x"] = 3
    shell.cell("%vqa a.png What is it?")
    assert shell.cell("%vqa --chat x marks what?").value.prompt == "x marks what?"


def test_a_possible_chat_keeps_no_image_alive(shell: Shell, sent: Recorder) -> None:
    image = Image.new("RGB", (56, 56))
    gone = weakref.ref(image)
    shell.names["image"] = image
    shell.cell("%vqa image What is it?")
    sent.requests.clear()
    del image, shell.names["image"]
    gc.collect()
    assert gone() is None
    assert "give it again" in shell.fails("%vqa --chat And now?")


# Answers of a form --------------------------------------------------------------------------------------


def test_schema(shell: Shell, sent: Recorder) -> None:
    vlm_nb.load("typed", engine="scripted", script="red")
    shell.names["colours"] = ["red", "blue"]
    assert shell.cell("%vqa a.png What colour? --schema colours").value.parsed == "red"
    assert shell.cell("%vqa a.png --schema ['red','blue']").value.parsed == "red"
    table = shell.cell("%vqa a.png 'my photo.png' --schema colours -- What colour?").value
    assert list(table["parsed"]) == ["red", "red"]
    line = shell.fails("%vqa a.png What? --schema colors")
    assert line == "PromptError: --schema colors: name 'colors' is not defined; did you mean colours?"
    assert shell.fails("%ground a.png car --schema colours").startswith(
        "OptionError: unknown option --schema"
    )
