"""Notebook outputs: escaped, small, complete, and readable for everyone."""

from __future__ import annotations

import base64
import html.parser
import json
import re
from typing import Any

import pytest
from PIL import Image
from test_display_overlay import noise, prediction

from vlm_nb.display import gallery_html, plain_text, prediction_bundle, text_summary, visible
from vlm_nb.errors import SourceNotFound
from vlm_nb.request import Usage
from vlm_nb.results import GroundedPhrase, Outcome, Prediction

SCENE = Image.new("RGB", (320, 240), "grey")
BOX = (0.1, 0.1, 0.5, 0.5)

HOSTILE = [
    ("script", "<script>alert(1)</script>"),
    ("image", "<img src=x onerror=alert(1)>"),
    ("closing tags", "</div></details></title></svg></style></pre>"),
    ("attribute", '" onmouseover="alert(1)" x=\''),
    ("cdata", "]]> --> <!-- <![CDATA["),
    ("URL", "javascript:alert(1)"),
    ("entity", "&lt;script&gt; &amp; &#x3c;"),
    ("math", "$\\foo$ $$x$$ \\(y\\)"),
    ("control", "a\x00\x07\x08\x1b[31mb\x7f\x9b\u202e\u2066"),
    ("surrogate", "\ud83d alone"),
    ("template", "{{7*7}} ${7*7} {x}"),
    ("long line", "x" * 100_000),
    ("long escaped line", '<"&\\' * 25_000),
    ("long control", "\x9b" * 100_000),
    ("long CJK", "猫" * 100_000),
]
_ALLOWED = set("div style img svg rect title details summary pre span i bdi small b br".split())  # noqa: SIM905


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_inert(page: str) -> Reader:
    reader = Reader(page)
    assert not reader.open, "every element is closed"
    assert set(reader.tags) <= _ALLOWED
    for name, value in reader.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert (value or "").startswith("data:image/jpeg;base64,")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", page)
    return reader


def everywhere(text: str, image: Image.Image = SCENE) -> Prediction:
    """An answer with ``text`` in every place where text can be."""
    phrases = [GroundedPhrase(text, BOX), GroundedPhrase(f"{text} again", (0.2, 0.2, 0.9, 0.9))]
    answer = prediction(
        image,
        *phrases,
        caption=text,
        prompt=text,
        model=text,
        source=text,
        raw=text,
        thinking=text,
        notes=(text, text),
    )
    object.__setattr__(answer, "grounding", "unparsed")
    return answer


def size(bundle: dict[str, str]) -> int:
    return len(json.dumps(bundle, ensure_ascii=False).encode())


@pytest.mark.parametrize("text", [row[1] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile_text_is_text_everywhere(text: str) -> None:
    answer = everywhere(text)
    bundle = prediction_bundle(answer)
    reader = check_inert(bundle["text/html"])
    assert visible(text)[:200] in reader.text
    assert size(bundle) <= 150_000
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", bundle["text/plain"])
    assert "\n" not in text_summary(answer)
    assert len(text_summary(answer)) < 800
    check_inert(gallery_html([answer, Outcome(None, SourceNotFound(text, source=text))]))


def json_answer(value: Any) -> Prediction:
    return prediction(SCENE, parsed=value, caption="{}")


def test_structured_answers_are_shown_as_indented_json() -> None:
    reader = check_inert(prediction_bundle(json_answer({"a": ["<b>", 1]}))["text/html"])
    assert '"<b>"' in reader.text
    assert size(prediction_bundle(json_answer(["<" * 50] * 5000))) <= 150_000


BIG = [
    ("noise", everywhere("a short text", noise())),
    ("200 boxes", prediction(noise(), *[GroundedPhrase(f"phrase number {i}", BOX) for i in range(200)])),
    (
        "200 long boxes",
        prediction(noise(), *[GroundedPhrase(f"{i}" + '<"&\\' * 500, BOX) for i in range(200)]),
    ),
    ("100 KB caption", prediction(noise(), caption="words and " * 10_000)),
    ("everything", everywhere('<"&\\' * 25_000, noise())),
    ("many notes", prediction(noise(), notes=("note " * 1000,) * 200)),
]


@pytest.mark.parametrize("answer", [row[1] for row in BIG], ids=[row[0] for row in BIG])
def test_a_bundle_stays_under_150_kb(answer: Prediction) -> None:
    bundle = prediction_bundle(answer)
    assert size(bundle) <= 150_000
    assert len(re.findall(r"base64,([\w+/=]+)", bundle["text/html"])[0]) > 8_000, (
        "the image is still worth it"
    )


def test_long_captions_fold_and_say_where_the_rest_is() -> None:
    page = prediction_bundle(prediction(SCENE, caption="words and " * 10_000))["text/html"]
    assert "All 99,999 characters" in page
    assert "more characters in .caption" in page


def test_the_picture_is_the_overlay_with_alternative_text() -> None:
    page = prediction_bundle(prediction(SCENE, GroundedPhrase('a "red" <car>', BOX)))["text/html"]
    reader = Reader(page)
    assert ("alt", 'Image with 1 box: a "red" <car>') in reader.attributes
    data = base64.b64decode(re.findall(r"base64,([\w+/=]+)", page)[0])
    assert data[:2] == b"\xff\xd8"
    assert re.search(r"<rect [^>]+><title>1 · a &quot;red&quot; &lt;car&gt;</title></rect>", page)


def test_every_phrase_is_listed_once_with_its_colour() -> None:
    phrases = [
        GroundedPhrase("car", BOX),
        GroundedPhrase("tree", BOX),
        GroundedPhrase("car", (0.6, 0.6, 1, 1)),
    ]
    page = prediction_bundle(prediction(SCENE, *phrases))["text/html"]
    assert page.count('class="vlm-nb-chip"') == 2
    assert "<bdi>car</bdi><small>×2</small>" in page
    assert 'style="background:#E69F00"' in page


def test_numbers_are_explained_where_the_overlay_shows_numbers() -> None:
    phrases = [
        GroundedPhrase("car" if i != 4 else "tree", (i / 20, 0.1, i / 20 + 0.04, 0.9)) for i in range(15)
    ]
    page = prediction_bundle(prediction(SCENE, *phrases))["text/html"]
    assert "<bdi>car</bdi><small>1–4, 6–15</small>" in page


STATES = [
    ("none", {"grounding": "none"}, "No match"),
    ("unparsed", {"grounding": "unparsed", "raw": "[1, 2"}, "could not be read"),
    ("no text", {"caption": ""}, "with no text"),
    ("note", {"notes": ("demo model",)}, "demo model"),
    ("prompt", {"prompt": "Where is it?"}, "Where is it?"),
    ("cost", {"usage": Usage(seconds=1.234, new_tokens=1234)}, "1.2 s · 1,234 new tokens"),
    ("thinking", {"thinking": "hmm, a car"}, "hmm, a car"),
]


@pytest.mark.parametrize(("fields", "text"), [row[1:] for row in STATES], ids=[row[0] for row in STATES])
def test_states_are_told(fields: dict[str, Any], text: str) -> None:
    answer = Prediction(**{"caption": "x", **fields})
    assert text in Reader(prediction_bundle(answer)["text/html"]).text


def test_text_takes_its_own_direction() -> None:
    page = prediction_bundle(prediction(SCENE, GroundedPhrase("שלום", BOX), caption="مرحبا"))["text/html"]
    assert '<div class="vlm-nb-caption" dir="auto">مرحبا</div>' in page
    assert "<bdi>שלום</bdi>" in page


def test_colours_come_from_the_theme() -> None:
    page = prediction_bundle(prediction(SCENE))["text/html"]
    assert "var(--jp-content-font-color1,var(--vscode-editor-foreground,inherit))" in page
    assert "font-color3" not in page


def test_plain_text_tells_boxes_notes_and_cost() -> None:
    answer = prediction(
        SCENE,
        GroundedPhrase("car", (0.1, 0.2, 0.3, 0.4), confidence=0.912),
        GroundedPhrase("nose", (0.5, 0.5, 0.5, 0.5), point=(0.5, 0.5)),
        notes=("demo model",),
        model="demo",
    )
    assert plain_text(answer).splitlines() == [
        "an answer",
        "  1 car  (0.100, 0.200) – (0.300, 0.400)  0.91",
        "  2 nose  point (0.500, 0.500)",
        "[demo model]",
        "demo",
    ]
    assert repr(answer) == 'Prediction("an answer", 2 boxes: car, nose, model=demo)'


def test_a_gallery_keeps_order_and_shows_failures_in_place() -> None:
    items = [
        Outcome(prediction(SCENE, caption="first", source="a.png", notes=("demo model",)), None),
        Outcome(None, SourceNotFound("no such file: <b>.png", source="<b>.png")),
        prediction(SCENE, caption="third", source="c.png", notes=("demo model", "cut")),
    ]
    reader = check_inert(gallery_html(items))
    text = reader.text
    assert text.index("first") < text.index("SourceNotFound") < text.index("third")
    assert "no such file: <b>.png" in text
    assert text.count("demo model") == 1, "a note that all share is shown once"
    assert "cut" in text


def test_a_gallery_stays_under_600_kb_and_counts_the_rest() -> None:
    big = Outcome(everywhere("some words " * 50, noise((1200, 900))), None)
    page = gallery_html([big] * 90 + [Outcome(None, SourceNotFound("gone"))] * 10)
    assert len(json.dumps(page, ensure_ascii=False).encode()) <= 600_000
    cards = page.count('class="vlm-nb-card"')
    assert cards >= 20
    assert f"and {100 - cards} more (10 failed)" in page


def test_an_empty_gallery() -> None:
    check_inert(gallery_html([]))


VISIBLE = [
    ("a\nb\tc", "a\nb\tc"),
    ("\x00\x1b\x7f", "␀␛␡"),
    ("\x85\u202e", "⟨U+0085⟩⟨U+202E⟩"),
    ("\ud800", "⟨U+D800⟩"),
    ("a\r\nb\rc", "a\nb␍c"),
    ("newer than this Python: \U0001fae8 \U0001fadf", "newer than this Python: \U0001fae8 \U0001fadf"),
    ("👩\u200d👧 é", "👩\u200d👧 é"),
    ("می\u200cخواهم", "می\u200cخواهم"),
]


@pytest.mark.parametrize(("text", "shown"), VISIBLE)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    shown.encode()
