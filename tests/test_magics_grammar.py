"""The line's grammar by itself: options, sources and question, nothing evaluated."""

from __future__ import annotations

import pytest

from vlm_nb.errors import OptionError, PromptError
from vlm_nb.magics.grammar import questions, split
from vlm_nb.magics.grammar import unquote as unquote_

FLAGS = {"-o": True, "--out": True, "--temperature": True, "--max_new_tokens": True, "--together": False}

LINES = {
    # name: (line, sources, question, options)
    "a word and a question": ("a.jpg What is it?", ["a.jpg"], "What is it?", []),
    "no question": ("a.jpg", ["a.jpg"], None, []),
    "nothing": ("", [], None, []),
    "spaces around": ("   a.jpg    What is it?   ", ["a.jpg"], "What is it?", []),
    "double quotes": ('"my photo.jpg" What?', ["my photo.jpg"], "What?", []),
    "single quotes": ("'my photo.jpg' What?", ["my photo.jpg"], "What?", []),
    "an apostrophe in quotes": ("'it's mine.jpg' What?", ["it's mine.jpg"], "What?", []),
    "an apostrophe is text": ("a.jpg What's the dog's name?", ["a.jpg"], "What's the dog's name?", []),
    "a leading apostrophe is text": ("a.jpg 'tis what?", ["a.jpg"], "'tis what?", []),
    "inches are text": ('a.jpg Is it 27" wide?', ["a.jpg"], 'Is it 27" wide?', []),
    "a quoted question": ('a.jpg "What is it?"', ["a.jpg"], "What is it?", []),
    "quotes inside a question stay": ('a.jpg Is "STOP" red?', ["a.jpg"], 'Is "STOP" red?', []),
    "two quoted words stay": ('a.jpg "a" or "b"', ["a.jpg"], '"a" or "b"', []),
    "spaces inside a question stay": ("a.jpg one   two", ["a.jpg"], "one   two", []),
    "brackets": ("[a, b] What?", ["[a, b]"], "What?", []),
    "brackets with strings": ('df["the path"][0] What?', ['df["the path"][0]'], "What?", []),
    "a call": ('load("a b.png", n=(1, 2)) What?', ['load("a b.png", n=(1, 2))'], "What?", []),
    "a bracket in a string": ('f("]") What?', ['f("]")'], "What?", []),
    "an escaped quote": (r'f("\"]") What?', [r'f("\"]")'], "What?", []),
    "braces": ("{{folder}}/a.png What?", ["{{folder}}/a.png"], "What?", []),
    "brackets in a question are text": ("a.jpg (what", ["a.jpg"], "(what", []),
    "braces in a question are text": ("a.jpg {what", ["a.jpg"], "{what", []),
    "a smiley in a file name": ("a:(.jpg What?", ["a:(.jpg"], "What?", []),
    "a URL": ("https://host/a.png?x=[1]&y=2 What?", ["https://host/a.png?x=[1]&y=2"], "What?", []),
    "sources end": ("a.jpg b.jpg -- What?", ["a.jpg", "b.jpg"], "What?", []),
    "dashes inside words": ("a-b.jpg A--B - c?", ["a-b.jpg"], "A--B - c?", []),
    "quoted dashes": ('a.jpg "--" What?', ["a.jpg"], '"--" What?', []),
    "an option first": ("-o x a.jpg What?", ["a.jpg"], "What?", [("-o", "x")]),
    "an option between": ("a.jpg -o x What?", ["a.jpg"], "What?", [("-o", "x")]),
    "an option last": ("a.jpg What? -o x", ["a.jpg"], "What?", [("-o", "x")]),
    "an option in the middle": (
        "a.jpg What --temperature 0.5 is it?",
        ["a.jpg"],
        "What is it?",
        [("--temperature", "0.5")],
    ),
    "an option with =": ("--temperature=0.5 a.jpg What?", ["a.jpg"], "What?", [("--temperature", "0.5")]),
    "hyphens for underscores": (
        "a.jpg What? --max-new-tokens 3",
        ["a.jpg"],
        "What?",
        [("--max_new_tokens", "3")],
    ),
    "a quoted value": ('-o "a b" a.jpg What?', ["a.jpg"], "What?", [("-o", "a b")]),
    "a quoted value with =": ('--out="a b" a.jpg What?', ["a.jpg"], "What?", [("--out", "a b")]),
    "a bracketed value": ("--out {'a': 1} a.jpg", ["a.jpg"], None, [("--out", "{'a': 1}")]),
    "a switch": ("a.jpg b.jpg --together -- What?", ["a.jpg", "b.jpg"], "What?", [("--together", None)]),
    "options after --": ("a.jpg -- What? -o x", ["a.jpg"], "What?", [("-o", "x")]),
    "unknown options after -- are text": ("a.jpg -- git --amend?", ["a.jpg"], "git --amend?", []),
    "a quoted option is text": ('a.jpg What does "-o x" mean?', ["a.jpg"], 'What does "-o x" mean?', []),
    "negative numbers are text": ("a.jpg Is it -5 °C?", ["a.jpg"], "Is it -5 °C?", []),
    "unicode": ("фото.jpg Ça va ?", ["фото.jpg"], "Ça va ?", []),
}


@pytest.mark.parametrize(("line", "sources", "question", "options"), LINES.values(), ids=LINES)
def test_lines(line: str, sources: list[str], question: str | None, options: list[tuple[str, str]]) -> None:
    found = split(line, FLAGS)
    assert [token.text for token in found.sources] == sources
    assert found.question == question
    assert found.options == options


def test_only_sources() -> None:
    found = split('a.jpg "b c.jpg" -o x [d, e]', FLAGS, only_sources=True)
    assert [token.text for token in found.sources] == ["a.jpg", "b c.jpg", "[d, e]"]
    assert found.question is None


def test_no_sources() -> None:
    found = split("and the dog's? -o x", FLAGS, no_sources=True)
    assert (found.sources, found.question, found.options) == ([], "and the dog's?", [("-o", "x")])


BAD = {
    "an unclosed quote": ('"a.jpg What?', PromptError, 'unclosed quote " in: "a.jpg What?'),
    "an unclosed bracket": ("[a, b What?", PromptError, "unclosed [ in: [a, b What?"),
    "an unclosed inner bracket": ("f(a[0) What?", PromptError, "unclosed [ in: f(a[0) What?"),
    "an unclosed string": ("f('a) What?", PromptError, "unclosed quote ' in: f('a) What?"),
    "an unclosed question": ('a.jpg "What is it?', PromptError, 'unclosed quote " in: "What is it?'),
    "a missing value": ("a.jpg What? -o", OptionError, "-o needs a value."),
    "a missing value before --": ("a.jpg -o -- What?", OptionError, "-o needs a value."),
    "an empty value": ("--out= a.jpg", OptionError, "--out needs a value."),
    "a value for a switch": ("--together=1 a.jpg", OptionError, "--together takes no value."),
    "an unknown option": (
        "a.jpg What? --temprature 1",
        OptionError,
        "unknown option --temprature; did you mean --temperature?",
    ),
}


@pytest.mark.parametrize(("line", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_lines(line: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        split(line, FLAGS)
    assert str(caught.value) == message


BODIES = {
    "one question": ("What is it?", ["What is it?"]),
    "two lines": ("\nWhat is\nit?\n\n", ["What is\nit?"]),
    "a list": ("- one\n- two", ["one", "two"]),
    "a list that goes on": ("- one\n  and more\n\n- two\n", ["one\n  and more", "two"]),
    "a list of one": ("- one", ["one"]),
    "a list inside a question": ("Compare:\n- colour\n- size", ["Compare:\n- colour\n- size"]),
    "a dash without a space": ("-5 degrees?", ["-5 degrees?"]),
    "nothing": ("\n\n", [""]),
}


@pytest.mark.parametrize(("body", "found"), BODIES.values(), ids=BODIES)
def test_bodies(body: str, found: list[str]) -> None:
    assert questions(body) == found


def test_unquote_leaves_other_text_alone() -> None:
    assert [unquote_(text) for text in ("", "a", "'a'", "'tis", '"a" b')] == ["", "a", "a", "'tis", '"a" b']
