"""``%vlm …``: loading, status, unloading, lists, the guide; and the life cycle of the extension."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from pathlib import Path

import pytest
from PIL import Image
from shell import Shell, shell

import vlm_nb
from vlm_nb import config

__all__ = ["shell"]


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``a.png`` in the working folder."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (56, 56), "red").save("a.png")
    return tmp_path / "a.png"


def cached(folder: Path, name: str, settings: dict[str, object], size: int = 1000) -> None:
    """A model as the Hugging Face cache keeps it."""
    place = folder / f"models--{name.replace('/', '--')}"
    (place / "snapshots" / "abc").mkdir(parents=True)
    (place / "blobs").mkdir()
    (place / "blobs" / "weights").write_bytes(b"0" * size)
    (place / "snapshots" / "abc" / "config.json").write_text(json.dumps(settings))


def test_load_says_what_was_loaded_and_returns_nothing(shell: Shell) -> None:
    ran = shell.cell("%vlm load tiny --engine scripted --script fine")
    assert ran.value is None
    assert "tiny · cpu · " in ran.out
    assert "process " in ran.out
    assert vlm_nb.current().name == "tiny"


def test_load_takes_values_of_every_kind(shell: Shell, picture: Path) -> None:
    shell.names["answers"] = {"colour": "red"}
    shell.cell("%vlm load tiny --engine scripted --engine_args {'slots': 3} --script {{answers}}")
    assert vlm_nb.current().engine.slots == 3
    assert shell.cell("%vqa a.png What colour?").value.caption == "red"


def test_load_again_gives_the_same_model(shell: Shell) -> None:
    shell.cell("%vlm load tiny --engine scripted")
    first = vlm_nb.current()
    assert "tiny · cpu · already loaded\n" in shell.cell("%vlm load tiny --engine scripted").out
    assert vlm_nb.current() is first
    assert "already" not in shell.cell("%vlm load other --engine scripted").out
    assert [model.name for model in vlm_nb.loaded()] == ["other"]
    shell.cell("%vlm load tiny --engine scripted --keep")
    assert [model.name for model in vlm_nb.loaded()] == ["other", "tiny"]


def test_use_unload_and_unload_all(shell: Shell) -> None:
    for name in ("one", "two", "three"):
        shell.cell(f"%vlm load {name} --engine scripted --keep")
    assert "current model: one" in shell.cell("%vlm use one").out
    assert shell.cell("%vlm unload two").out.startswith("unloaded two · process ")
    assert shell.cell("%vlm unload").out.startswith("unloaded one · ")
    assert "unloaded three" in shell.cell("%vlm unload --all").out
    assert vlm_nb.loaded() == []
    assert shell.fails("%vlm unload").startswith("NoModelLoaded: no model is loaded.")
    assert shell.fails("%vlm unload --all").startswith("NoModelLoaded: no model is loaded.")


def test_status(shell: Shell) -> None:
    assert "no model is loaded" in shell.cell("%vlm status").displays[0]["text/plain"]
    shell.cell("%vlm load one --engine scripted\n%vlm load two --engine scripted --keep")
    text = shell.cell("%vlm status").displays[0]["text/plain"]
    assert [line.split()[0] for line in text.splitlines() if "scripted" in line] == ["one", "current"]
    assert "process " in text
    assert "load two: process " in text
    shell.cell("%vlm unload two")
    assert "unload two: process " in shell.cell("%vlm status").displays[0]["text/plain"]


def test_status_says_details_in_plain_words_in_cells_that_can_be_narrow(shell: Shell) -> None:
    shell.cell("import vlm_nb\nmodel = vlm_nb.load('one', engine='scripted')")
    shell.names["model"].info.details.update(
        {"packed bytes": 3_000_000, "loop": "in flight", "attention": "sdpa"}
    )
    shown = shell.cell("%vlm status").displays[0]
    for word in ("laid out for this CPU", "3 MB", "in flight: one joins", "sdpa"):
        assert word in shown["text/plain"]
    assert "packed bytes" not in shown["text/plain"]
    assert shown["text/html"].count("overflow-wrap: anywhere") == shown["text/html"].count("padding")


def test_models_lists_vision_models_of_the_cache(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, "Qwen/Qwen2.5-VL-3B-Instruct", {"model_type": "qwen2_5_vl"}, size=2_000_000)
    cached(tmp_path, "new/vision", {"model_type": "unheard_of", "vision_config": {}})
    cached(tmp_path, "some/text", {"model_type": "llama"})
    (tmp_path / "models--broken--one" / "snapshots" / "x").mkdir(parents=True)
    (tmp_path / "models--broken--one" / "snapshots" / "x" / "config.json").write_text("{")
    text = shell.cell("%vlm models").displays[0]["text/plain"]
    assert [line.split()[0] for line in text.splitlines()[2:]] == [
        "demo",
        "new/vision",
        "Qwen/Qwen2.5-VL-3B-Instruct",
    ]
    assert "2 MB" in text


def test_the_guide_names_every_magic_and_command(shell: Shell) -> None:
    from vlm_nb.magics.manage import COMMANDS

    guide = shell.cell("%vlm").out
    assert shell.cell("%vlm help").out == shell.cell("%vlm --help").out == guide
    for name in ("%vqa", "%ground", "%caption", "%vlm load", *COMMANDS):
        assert name in guide


def test_help_has_examples_and_options(shell: Shell) -> None:
    for magic in ("vqa", "ground", "caption", "vlm"):
        text = getattr(shell.ip.find_line_magic(magic), "__doc__", "")
        assert f"%{magic} " in text
    assert "--max_new_tokens" in shell.ip.find_line_magic("vqa").__doc__


def test_the_first_question_loads_the_demo_and_says_so(shell: Shell) -> None:
    scene = Path(vlm_nb.__file__).parent / "demo" / "images" / "shapes.png"
    shell.names["scene"] = scene
    ran = shell.cell("%vqa scene How many circles are there?")
    assert "No model is loaded; loading the demo model, which knows drawn scenes only." in ran.out
    assert vlm_nb.current().is_demo
    again = shell.cell("%ground scene the star")
    assert "No model is loaded" not in again.out
    for value in (ran.value, again.value):
        bundle = value._repr_mimebundle_()
        assert "demo model" in bundle["text/plain"]
        assert "demo model" in bundle["text/html"]


# The extension's life ------------------------------------------------------------------------------------


def test_reload_keeps_models_and_settings(shell: Shell, picture: Path) -> None:
    shell.cell("%vlm load tiny --engine scripted --script fine")
    shell.cell("%config VlmMagics.url_timeout = 7")
    loaded = vlm_nb.current()
    for _ in range(2):
        shell.cell("%reload_ext vlm_nb")
    assert vlm_nb.current() is loaded
    assert shell.cell("%config VlmMagics.url_timeout").value == 7
    assert shell.cell("%vqa a.png What?").value.caption == "fine"
    assert shell.cell("%vqa a.png What?").out.count("fine") == 1
    shell.cell("%config VlmMagics.url_timeout = None")
    assert config.overrides() == {}


def traces(shell: Shell) -> list[bool]:
    """Whether each place that an extension can change knows us."""
    ip = shell.ip
    places = [
        ip.magics_manager.magics["line"].get("vqa"),
        ip.magics_manager.magics["line"].get("vlm"),
        ip.magics_manager.magics["cell"].get("ground"),
        *[place for place in [ip.magics_manager.registry.get("VlmMagics")] if place],
        [getattr(matcher, "matcher_identifier", "") for matcher in ip.Completer.custom_matchers],
        ip.input_transformer_manager.token_transformers,
        ip.configurables,
        list(ip.display_formatter.ipython_display_formatter.type_printers),
        ip.events.callbacks["post_run_cell"],
    ]
    return ["vlm" in str(place).lower() for place in places]


def test_unload_leaves_no_trace(shell: Shell) -> None:
    shell.cell("%vlm load tiny --engine scripted")
    assert all(traces(shell))
    shell.cell("%unload_ext vlm_nb")
    assert not any(traces(shell))
    assert "VlmMagics" not in shell.ip.magics_manager.registry
    shell.cell("%load_ext vlm_nb")
    assert all(traces(shell))
    assert vlm_nb.current().name == "tiny"


def test_nothing_keeps_an_image_alive(shell: Shell) -> None:
    """Not Out, not ``_``, not the magic, not the last traceback: of a success and of a failure."""
    shell.cell("%vlm load tiny --engine scripted --script fine")
    image = Image.new("RGB", (560, 560), "red")
    gone = weakref.ref(image)
    shell.names["image"] = image
    shell.cell("%vqa image What?")
    shell.cell("_")
    shell.fails("%vqa image What? --max_new_tokens 0")
    shell.names["script"] = RuntimeError("no")
    shell.cell("%vlm load failing --engine scripted --script {{script}}")
    assert shell.fails("%vqa image What?").startswith("GenerationError: ")
    assert sys.last_value is not None
    shell.cell("del image")
    del image
    gc.collect()
    assert gone() is None


def live_models() -> list[object]:
    """Every transformers model that is still in memory."""
    gc.collect()
    return [
        thing for thing in gc.get_objects() if type(thing).__name__.endswith("VLForConditionalGeneration")
    ]


def test_unload_frees_the_real_model(shell: Shell) -> None:
    """After answers, an error, and with the handle and the answers still in the user's hands."""
    before = {id(thing) for thing in live_models()}
    shell.names["scene"] = Path(vlm_nb.__file__).parent / "demo" / "images" / "shapes.png"
    shell.cell("%vlm load demo")
    assert {id(thing) for thing in live_models()} - before
    shell.cell("%vqa -o kept scene How many circles are there?")
    shell.cell("%caption scene")
    shell.fails("%vqa scene What? --max_new_tokens 0")
    shell.cell("import vlm_nb\nmodel = vlm_nb.current()\nmodel")
    shell.cell("%vlm unload")
    assert {id(thing) for thing in live_models()} <= before
    assert shell.names["model"].engine.closed


def test_errors_carry_no_frames(shell: Shell, picture: Path) -> None:
    shell.cell("%vlm load tiny --engine scripted")
    shell.fails("%vqa gone.png What?")
    error = sys.last_value
    assert error.__cause__ is None
    assert error.__context__ is None
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert not {"answer", "parse_call", "source"} & set(frames)
