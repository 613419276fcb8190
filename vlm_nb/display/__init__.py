"""Predictions as people see them: overlays, figures, escaped HTML, text.

All drawing starts from plain values (a JPEG preview and grounded phrases); all model text is escaped, and its
control characters are shown, wherever it goes.
"""

from .figure import prediction_figure
from .gallery import gallery_html
from .glyphs import visible
from .html import prediction_bundle
from .layout import COLOURS, Layout, Mark, lay_out, phrase_styles
from .raster import overlay_image, preview_jpeg
from .text import plain_text, save_overlay_for_terminal, terminal_text, text_summary

__all__ = [
    "COLOURS",
    "Layout",
    "Mark",
    "gallery_html",
    "lay_out",
    "overlay_image",
    "phrase_styles",
    "plain_text",
    "prediction_bundle",
    "prediction_figure",
    "preview_jpeg",
    "save_overlay_for_terminal",
    "terminal_text",
    "text_summary",
    "visible",
]
