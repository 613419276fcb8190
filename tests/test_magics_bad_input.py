"""Bad input through a real shell: the exact line that is printed, and nothing else lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from shell import Shell, shell

import vlm_nb

__all__ = ["shell"]

# name: (cell, the line that is shown); {folder} is the working folder
TABLE = {
    "nothing": (
        "%vqa",
        "PromptError: no image given: write a file, folder, URL or variable first, then the question.",
    ),
    "no such file": (
        "%vqa photo.png What?",
        "SourceNotFound: no file, folder or variable 'photo.png'. The working folder is {folder}.",
    ),
    "no such folder": (
        "%vqa photos/photo.png What?",
        "SourceNotFound: no file, folder or variable 'photos/photo.png' "
        "(its folder photos does not exist). The working folder is {folder}.",
    ),
    "nearly a file of a folder": (
        "%vqa ./empty/../pictur.png What?",
        "SourceNotFound: no file, folder or variable './empty/../pictur.png'; "
        "did you mean empty/../picture.png?",
    ),
    "a file that reads as Python": (
        "%vqa empty/scene_0.png What?",
        "SourceNotFound: no file, folder or variable 'empty/scene_0.png'. The working folder is {folder}.",
    ),
    "a sample of the demo model": (
        "%vqa shapes.png What?",
        "SourceNotFound: no file, folder or variable 'shapes.png'; "
        "the demo model's samples come here with:  import vlm_nb; vlm_nb.demo.copy_images()",
    ),
    "nearly a file": (
        "%vqa pictur.png What?",
        "SourceNotFound: no file, folder or variable 'pictur.png'; did you mean picture.png?",
    ),
    "no such quoted file": (
        '%vqa "photo.png" What?',
        "SourceNotFound: no such file: photo.png. The working folder is {folder}.",
    ),
    "no match": ("%caption *.tiff", "SourceNotFound: nothing matches *.tiff"),
    "a folder without images": (
        "%caption empty",
        "SourceNotFound: no images in the folder empty",
    ),
    "an empty list": ("%caption []", "PromptError: the list of images is empty."),
    "not an image": (
        "%vqa number What?",
        "SourceError: no image in int '42'; "
        "expected a path, URL, bytes, data URI, PIL image, array or tensor.",
    ),
    "None": ("%vqa nothing What?", "PromptError: nothing is None, not an image."),
    "an expression that fails": (
        "%vqa pictures[9] What?",
        "PromptError: pictures[9]: IndexError: list index out of range",
    ),
    "no expression": ("%vqa [1 2] What?", "PromptError: [1 2] is no Python expression."),
    "an undefined name in brackets": (
        "%vqa [picure] What?",
        "PromptError: [picure]: name 'picure' is not defined; did you mean pictures?",
    ),
    "an empty question": (
        "%vqa picture.png",
        "PromptError: the question is empty: write it after the image, or below in the cell.",
    ),
    "an empty body": (
        "%%vqa picture.png\n   ",
        "PromptError: the question is empty: write it after the image, or below in the cell.",
    ),
    "an unclosed quote": ('%vqa "picture.png What?', 'PromptError: unclosed quote " in: "picture.png What?'),
    "an unclosed bracket": ("%vqa [picture.png What?", "PromptError: unclosed [ in: [picture.png What?"),
    "an undefined name": (
        "%vqa picture.png Is it {{colour}}?",
        "PromptError: {{colour}}: name 'colour' is not defined",
    ),
    "nearly a name": (
        "%vqa picture.png Is it {{numbr}}?",
        "PromptError: {{numbr}}: name 'numbr' is not defined; did you mean number?",
    ),
    "an undefined name in the body": (
        "%%vqa picture.png\nIs it {{colour}}?",
        "PromptError: {{colour}}: name 'colour' is not defined",
    ),
    "an expression in braces that fails": (
        "%vqa picture.png {{1 / 0}}?",
        "PromptError: {{1 / 0}}: ZeroDivisionError: division by zero",
    ),
    "no expression in braces": (
        "%vqa picture.png {{a b}}?",
        r"PromptError: {{a b}} is no Python expression  (write \{{ for a literal {{)",
    ),
    "unclosed braces": (
        "%vqa picture.png {{number?",
        r"PromptError: unclosed {{ in: {{number?  (write \{{ for a literal {{)",
    ),
    "an unknown option": (
        "%vqa picture.png What? --sistem x",
        "OptionError: unknown option --sistem; did you mean --system?",
    ),
    "an unknown generation key": (
        "%vqa picture.png What? --max_tokens 3",
        "OptionError: unknown option --max_tokens; did you mean --max_new_tokens?",
    ),
    "a value of the wrong kind": (
        "%vqa picture.png What? --max_new_tokens many",
        "OptionError: --max_new_tokens: invalid int value: 'many'",
    ),
    "a value out of range": (
        "%vqa picture.png What? --max_new_tokens 0",
        "OptionError: max_new_tokens=0: expected a whole number from 1 to 1e+06.",
    ),
    "a missing value": ("%vqa picture.png What? -o", "OptionError: -o needs a value."),
    "no variable's name": (
        "%vqa picture.png What? -o 1x",
        "OptionError: -o 1x: expected the name of a variable.",
    ),
    "a keyword as a name": (
        "%vqa picture.png What? -o class",
        "OptionError: -o class: expected the name of a variable.",
    ),
    "a model that is not loaded": (
        "%vqa --model scriptd picture.png What?",
        "NoModelLoaded: no model called 'scriptd' is loaded; did you mean 'scripted'? "
        "Load it with: %vlm load scriptd",
    ),
    "--together with one image": (
        "%vqa --together picture.png What?",
        "OptionError: --together asks about several images in one prompt; one was given.",
    ),
    "--together with a missing image": (
        "%vqa --together picture.png 'gone.png' -- What?",
        "SourceNotFound: no such file: gone.png. The working folder is {folder}.",
    ),
    "--chat with nothing to continue": (
        "%vqa --chat and now?",
        "PromptError: no conversation with scripted to continue: ask about an image first.",
    ),
    "--chat about a list": (
        "%vqa --chat [*pictures] -- And?",
        "OptionError: --chat is about one image, or several --together.",
    ),
    "two images and no --": (
        "%vqa picture.png picture.png What?",
        "PromptError: picture.png is an image too: end the images with --, then write the question.",
    ),
    "the question first": (
        '%vqa "What is this?" picture.png',
        "PromptError: picture.png is the image, not 'What is this?': "
        "the image comes first, then the question or phrase.",
    ),
    "a question alone": (
        "%vqa What is in the image?",
        "SourceNotFound: no file, folder or variable 'What'. "
        "The image comes first, then the question or phrase.",
    ),
    "a phrase alone": (
        "%ground the red circle",
        "SourceNotFound: no file, folder or variable 'the'. "
        "The image comes first, then the question or phrase.",
    ),
    "a question after %caption": (
        "%caption picture.png Describe the image shortly",
        "SourceNotFound: no file, folder or variable 'Describe'. "
        "%caption takes images only; to ask for something, use %vqa IMAGE QUESTION.",
    ),
    "a question beside a cell's": (
        "%%vqa picture.png What is\nit?",
        "SourceNotFound: no file, folder or variable 'What'. "
        "In a cell magic the question goes below the first line.",
    ),
    "a word before --": (
        "%vqa picture.png pictur -- What?",
        "SourceNotFound: no file, folder or variable 'pictur'; did you mean picture.png?",
    ),
    "a question for %caption": (
        "%caption picture.png -- What?",
        "PromptError: %caption takes images only; to ask for something, use %vqa IMAGE QUESTION.",
    ),
    "a question twice": (
        "%%vqa picture.png -- What?\nThat?",
        "PromptError: in a cell magic the question goes below the first line.",
    ),
    "a corrupt image": ("%vqa corrupt.png What?", "SourceError: "),
    "an unknown command": (
        "%vlm lode demo",
        "OptionError: unknown command: %vlm lode; did you mean load?",
    ),
    "an unknown keyword of load": (
        "%vlm load demo --quantisation 4bit",
        "OptionError: unknown option --quantisation; did you mean --quantization?",
    ),
    "an unknown quantisation": (
        "%vlm load demo --quantization 3bit",
        "OptionError: quantization='3bit': expected one of 4bit, 8bit, or None.",
    ),
    "an unknown engine": (
        "%vlm load x --engine transformer",
        "OptionError: unknown engine 'transformer'; did you mean transformers?",
    ),
    "too many words": ("%vlm load demo now", "OptionError: too many words: 'now' was not expected."),
    "use without a name": ("%vlm use", "OptionError: name a loaded model: %vlm use NAME"),
    "use of an unknown model": (
        "%vlm use other",
        "NoModelLoaded: no model called 'other' is loaded; loaded: scripted. Load it with: %vlm load other",
    ),
    "unload of an unknown model": (
        "%vlm unload other",
        "NoModelLoaded: no model called 'other' is loaded; loaded: scripted.",
    ),
    "nearly the demo model": (
        "%vlm load demoo",
        "ModelNotFound: no model 'demoo'; did you mean demo?",
    ),
    "reproduce of nothing": (
        "%vlm reproduce",
        "PromptError: nothing to reproduce yet: ask something first, for example %vqa photo.jpg What is it?",
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with good and bad files."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (56, 56), "red").save("picture.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return tmp_path


@pytest.mark.parametrize(("cell", "line"), TABLE.values(), ids=TABLE)
def test_one_line_and_nothing_lost(shell: Shell, folder: Path, cell: str, line: str) -> None:
    vlm_nb.load("scripted", engine="scripted", script="fine")
    shell.names.update(number=42, nothing=None, pictures=["picture.png"] * 2)
    shell.names["empty"] = folder / "empty"
    shown = shell.fails(cell).replace(str(folder), "{folder}")
    assert (shown[: len(line)] if line.endswith((": ", "empty")) else shown) == line
    assert shell.cell("%vqa picture.png Still there?").value.caption == "fine"


NO_MODEL = ["%caption [*pictures]", "%caption folder", "%vqa *.png -- What?", "%vqa table What?"]


@pytest.mark.parametrize("cell", NO_MODEL)
def test_many_images_without_a_model_do_not_get_the_demo(shell: Shell, folder: Path, cell: str) -> None:
    pandas = pytest.importorskip("pandas")
    (folder / "folder").mkdir()
    Image.new("RGB", (56, 56), "red").save(folder / "folder" / "a.png")
    shell.names.update(pictures=["picture.png"] * 2, table=pandas.DataFrame({"image": ["picture.png"]}))
    line = shell.fails(cell)
    assert line.startswith("NoModelLoaded: no model is loaded. Load one first:  %vlm load ")
    assert vlm_nb.loaded() == []


def test_a_bad_item_of_a_list_is_an_error_in_its_row(shell: Shell, folder: Path) -> None:
    vlm_nb.load("scripted", engine="scripted", script="fine")
    shell.names["paths"] = ["picture.png", "gone.png", "corrupt.png", "picture.png"]
    table = shell.cell("%caption paths").value
    assert table["caption"].fillna("-").tolist() == ["fine", "-", "-", "fine"]
    assert table["error"].notna().tolist() == [False, True, True, False]
