"""The limits of the code's shape: short functions, few long files, no block twice."""

from __future__ import annotations

import statistics

import code_statistics


def test_functions_are_short() -> None:
    counts = [length for length, _ in code_statistics.functions()]
    assert statistics.median(counts) <= 8
    assert code_statistics.most_of(counts) <= 30
    longest = [name for length, name in code_statistics.functions() if length > 40]
    assert not longest


def test_files_fit_a_reader() -> None:
    sizes = code_statistics.sizes()
    long = [name for lines, name in sizes if lines > code_statistics.LONG_FILE]
    assert len(long) <= len(sizes) // 15
    assert not [name for lines, name in sizes if lines > 400]


def test_no_block_is_written_twice() -> None:
    assert not code_statistics.repeated_blocks()


def test_a_repeated_block_would_be_found(tmp_path, monkeypatch) -> None:
    package = tmp_path / "vlm_nb"
    package.mkdir()
    lines = [f"    value_{n} = step_{n}(value_{n})" for n in range(8)]
    for name in ("one", "other"):
        text = "\n".join([f'def {name}():\n    """{name}"""', *lines, ""])
        (package / f"{name}.py").write_text(text)
    monkeypatch.setattr(code_statistics, "ROOT", package)
    assert code_statistics.repeated_blocks() == [["vlm_nb/one.py:3", "vlm_nb/other.py:3"]]
