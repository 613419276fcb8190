"""Text that can be shown: control characters made visible, fonts that have the glyphs."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

# Directions that a page or a terminal would obey: shown as text, so that nothing is displayed out of order.
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff")
_SHAPED_BLOCKS = ((0x0590, 0x08FF), (0x0900, 0x109F), (0x1780, 0x17FF), (0xFB1D, 0xFDFF), (0xFE70, 0xFEFF))
_FAMILIES = (
    "Noto Sans CJK",
    "Noto Sans",
    "Noto Naskh",
    "Source Han Sans",
    "PingFang",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Nirmala UI",
    "Segoe UI",
    "WenQuanYi",
    "Droid Sans Fallback",
)


def visible(text: str) -> str:
    """Show control characters as symbols or code points; keep newlines and tabs. Safe for any encoding."""
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """``visible`` text with every run of white space made one blank."""
    return visible(" ".join(text.split()))


def shorten(text: str, count: int) -> str:
    """Cut ``text`` to ``count`` characters and an ellipsis, not inside a joined sequence."""
    if len(text) <= count:
        return text
    return text[:count].rstrip(" \u200d\ufe0f") + "…"


def brief(text: str, count: int) -> str:
    """The start of ``text`` on one line: at most ``count`` characters, or their spelled-out code points."""
    return shorten(one_line(text[: 4 * count + 100]), count)


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 32:
        return chr(0x2400 + code)
    if code == 127:
        return "\u2421"
    if 128 <= code < 160 or character in _BIDI_CONTROLS or 0xD800 <= code < 0xE000:
        return f"⟨U+{code:04X}⟩"
    return character


def needs_shaping(text: str) -> bool:
    """Whether letters join or run right to left, so that a simple renderer would show them wrongly."""
    return any(low <= ord(c) <= high for c in text for low, high in _SHAPED_BLOCKS)


def font_for(text: str) -> Path | None:
    """Return a font file that has every glyph of ``text``, or None."""
    needed = frozenset(text) - {" "}
    return next((path for path in _fonts(needed) if needed <= glyphs_of(path)), None)


def default_font() -> Path | None:
    """DejaVu Sans as matplotlib ships it, found without importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf") if folders else None
    return path if path and path.is_file() else None


@functools.cache
def glyphs_of(path: Path) -> frozenset[str]:
    """The characters that a font file has glyphs for."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(chr(code) for code in FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _fonts(needed: frozenset[str]) -> Iterator[Path]:
    default = default_font()
    if default is not None:
        yield default
    if any(ord(character) > 0x2FF for character in needed):
        yield from system_fonts()


@functools.cache
def system_fonts() -> tuple[Path, ...]:
    """Installed upright fonts of families known to cover scripts that DejaVu Sans lacks, best first."""
    from matplotlib import font_manager

    found = []
    for entry in font_manager.fontManager.ttflist:
        rank = next((i for i, family in enumerate(_FAMILIES) if entry.name.startswith(family)), None)
        plain = entry.style == "normal" and str(entry.weight) in ("400", "normal", "regular", "book")
        if rank is not None and plain:
            found.append((rank, entry.name, entry.fname))
    return tuple(Path(name) for _, _, name in sorted(found))
