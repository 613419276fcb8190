"""Overlays as matplotlib figures (never through pyplot: its state belongs to the user)."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from .glyphs import brief, default_font, font_for, needs_shaping, shorten
from .layout import CASING, POINT_RADIUS, STROKE, Layout, Mark, lay_out, phrase_styles
from .stage import preview_image, screen_size
from .text import boxes_phrase, spans

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    from ..results import Prediction

_DPI = 100.0
_LIMIT = (800, 700)
_LEGEND_WIDTH = 230
_LEGEND_CHARACTERS = 27
_LEGEND_NUMBERS = 9
_ROW = 18
_FONT_PIXELS = 12.0


def prediction_figure(
    prediction: Prediction,
    *,
    width: int = _LIMIT[0],
    legend: bool | None = None,
    dpi: float = _DPI,
) -> Figure:
    """Return a figure of the first image with its boxes.

    ``width`` is the greatest width of the image in screen pixels; ``dpi`` scales everything (200 gives
    twice the pixels). ``legend`` puts the list of phrases beside it; by default where the overlay shows
    numbers. Raises SourceError where the prediction holds no image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _let_notebooks_show(Figure)
    preview = preview_image(prediction)
    size = screen_size(prediction.image_size or preview.size, (width, _LIMIT[1]))
    figure = Figure(dpi=_DPI)
    FigureCanvasAgg(figure)
    layout = lay_out(
        prediction.grounded_phrases, size, lambda text: _label_size(figure, text), drawable=_can_draw
    )
    beside = _LEGEND_WIDTH if (layout.numbered if legend is None else legend) else 0
    figure.set_size_inches((size[0] + beside) / _DPI, size[1] / _DPI)
    _draw_image(figure, prediction, layout, size, beside)
    if beside:
        _draw_legend(figure, prediction, size, beside)
    figure.set_dpi(dpi)
    return figure


def _let_notebooks_show(kind: type[Figure]) -> None:
    """Where nothing tells IPython how to show a figure, let it be a PNG, as under ``%matplotlib inline``.

    Formats that the user chose stay as they are, and a later ``%matplotlib`` replaces this one.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    formatters = shell.display_formatter.formatters
    if any(kind in formatter for name, formatter in formatters.items() if name != "text/plain"):
        return
    from IPython.core.pylabtools import print_figure

    formatters["image/png"].for_type(kind, partial(print_figure, base64=True))


def _draw_image(
    figure: Figure, prediction: Prediction, layout: Layout, size: tuple[int, int], beside: int
) -> None:
    """One unit of the axes is one screen pixel; y runs down, as in the image."""
    axes = figure.add_axes((0, 0, size[0] / (size[0] + beside), 1))
    axes.set_axis_off()
    extent = (0, size[0], size[1], 0)
    axes.imshow(preview_image(prediction), extent=extent, aspect="auto", interpolation="antialiased")
    axes.set_xlim(0, size[0])
    axes.set_ylim(size[1], 0)
    axes.set_label(boxes_phrase(prediction))
    for mark in layout.marks:
        _draw_place(axes, mark)
    for mark in layout.marks:
        _draw_label(axes, mark)


def _draw_place(axes: Axes, mark: Mark) -> None:
    from matplotlib.patches import Circle, Rectangle

    points = 72 / _DPI
    patches: list[Any] = []
    for colour, stroke in ((CASING, STROKE + 1.5), (mark.style.colour, STROKE)):
        dashes = "--" if mark.style.dashed and colour != CASING else "-"
        look: dict[str, Any] = {"linewidth": stroke * points, "linestyle": dashes}
        if mark.point is not None:
            face = mark.style.colour
            edge = "#FFFFFF" if colour != CASING else CASING
            patches.append(Circle(mark.point, POINT_RADIUS - 1.5, facecolor=face, edgecolor=edge, **look))
        else:
            patches.append(Rectangle(*_inset(mark), fill=False, edgecolor=colour, joinstyle="miter", **look))
    for patch in patches:
        axes.add_patch(patch)


def _inset(mark: Mark) -> tuple[tuple[float, float], float, float]:
    """The rectangle whose stroke, casing included, stays inside the box."""
    x0, y0, x1, y1 = mark.rect
    half = min((STROKE + 1.5) / 2, (x1 - x0) / 2, (y1 - y0) / 2)
    return (x0 + half, y0 + half), x1 - x0 - 2 * half, y1 - y0 - 2 * half


def _draw_label(axes: Axes, mark: Mark) -> None:
    from matplotlib.patches import Rectangle

    if mark.label_rect is None:
        return
    x0, y0, x1, y1 = mark.label_rect
    back = Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=mark.style.colour, edgecolor=CASING, linewidth=0.4)
    axes.add_patch(back)
    axes.text(
        (x0 + x1) / 2,
        (y0 + y1) / 2,
        mark.label,
        color=mark.style.ink,
        ha="center",
        va="center_baseline",
        parse_math=False,
        fontproperties=_font(mark.label),
    )


def _draw_legend(figure: Figure, prediction: Prediction, size: tuple[int, int], beside: int) -> None:
    """The list of phrases: swatch, text, numbers; as many lines as the height takes."""
    axes = figure.add_axes((size[0] / (size[0] + beside), 0, beside / (size[0] + beside), 1))
    axes.set_axis_off()
    axes.set_xlim(0, beside)
    axes.set_ylim(size[1], 0)
    lines = list(_legend_lines(prediction))
    room = max(1, (size[1] - _ROW) // _ROW)
    for row, line in enumerate(lines[:room]):
        _legend_line(axes, row, line if row < room - 1 or len(lines) == room else ("…", "", None))


LegendLine = tuple[str, str, str | None]
"""Words on the left, numbers on the right, the swatch's colour or None."""


def _legend_lines(prediction: Prediction) -> Iterator[LegendLine]:
    """Numbers stand beside their phrase where they fit, else on lines of their own below it."""
    numbers: dict[str, list[int]] = {}
    for number, phrase in enumerate(prediction.grounded_phrases, 1):
        numbers.setdefault(phrase.phrase, []).append(number)
    for text, style in phrase_styles(prediction.grounded_phrases).items():
        where = spans(numbers[text])
        fits = len(where) <= _LEGEND_NUMBERS
        words = shorten(_legend_words(text), _LEGEND_CHARACTERS - (len(where) if fits else 0))
        yield words, where if fits else "", style.colour
        if not fits:
            yield from ((line, "", None) for line in textwrap.wrap(where, _LEGEND_CHARACTERS))


def _legend_line(axes: Axes, row: int, line: LegendLine) -> None:
    from matplotlib.patches import Rectangle

    words, numbers, colour = line
    y = row * _ROW + 14
    look: dict[str, Any] = {"va": "center", "parse_math": False}
    if colour:
        axes.add_patch(Rectangle((10, y - 5), 10, 10, facecolor=colour, edgecolor=CASING, linewidth=0.6))
    axes.text(26, y, words, fontproperties=_font(words), alpha=1.0 if colour else 0.7, **look)
    if numbers:
        axes.text(_LEGEND_WIDTH - 8, y, numbers, fontproperties=_font(numbers), ha="right", alpha=0.7, **look)


def _legend_words(text: str) -> str:
    words = brief(text, 60)
    return words if _can_draw(words) else "(see the text list)"


def _can_draw(text: str) -> bool:
    if text.isascii():
        return True
    return font_for(text) is not None and (not needs_shaping(text) or _shapes())


def _shapes() -> bool:
    """Whether this matplotlib lays out right-to-left and joined scripts (3.11 and later)."""
    import matplotlib

    return tuple(int(part) for part in matplotlib.__version__.split(".")[:2]) >= (3, 11)


def _font(text: str) -> FontProperties:
    from matplotlib.font_manager import FontProperties

    path = default_font() if text.isascii() else font_for(text)
    return FontProperties(fname=str(path) if path else None, size=_FONT_PIXELS * 72 / _DPI)


def _label_size(figure: Figure, text: str) -> tuple[float, float]:
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    width, _, _ = renderer.get_text_width_height_descent(text, _font(text), False)
    return width + 8.0, _FONT_PIXELS * 1.25 + 2.0
