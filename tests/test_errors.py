"""The error tree: kinship, one line in IPython, pickling (Ray sends errors between processes)."""

from __future__ import annotations

import inspect
import pickle
import traceback

import pytest

from vlm_nb import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.VLMError)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_error_survives_pickling_and_shows_one_line(cls: type[errors.VLMError]) -> None:
    error = cls("what was given; what to do", source="a.png", index=3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), again.source, again.index) == ("what was given; what to do", "a.png", 3)
    place = f"docs/troubleshooting.md#{cls.__name__.lower()}"
    assert again._render_traceback_() == [f"{cls.__name__}: what was given; what to do [{place}]"]
    assert traceback.format_exception_only(again)[-1] == f"[{place}]\n"


def test_a_kind_of_our_own_kind_is_explained_where_its_parent_is() -> None:
    class TooSpecial(errors.OutOfMemory):
        pass

    assert TooSpecial.where_explained() == "docs/troubleshooting.md#outofmemory"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_the_tree_at_the_top_names_every_error(cls: type[errors.VLMError]) -> None:
    assert errors.__doc__ is not None
    assert cls.__name__ in errors.__doc__
    assert cls.__doc__


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.SourceNotFound, FileNotFoundError),
        (errors.OutOfMemory, MemoryError),
        (errors.MissingDependency, ImportError),
        (errors.ModelAccessDenied, PermissionError),
        (errors.OptionError, ValueError),
        (errors.LedgerError, OSError),
    ],
)
def test_kinship_with_builtins(cls: type[errors.VLMError], builtin: type[BaseException]) -> None:
    with pytest.raises(builtin):
        raise cls("x")


def test_unknown_option_names_near_ones_or_all() -> None:
    assert "did you mean quantization?" in str(
        errors.unknown_option("keyword", "quantisation", ["quantization", "x"])
    )
    assert "allowed are: a, b." in str(errors.unknown_option("keyword", "zzzzz", ["b", "a"]))
