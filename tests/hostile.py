"""Answers that try to be more than text, for every place that shows one."""

from __future__ import annotations

MARKUP = (
    "<script>window.hacked = 1</script>"
    '<img src=x onerror="window.hacked = 2">'
    "<svg onload='window.hacked = 3'></svg>"
    '<a href="javascript:window.hacked=4">click</a>'
    "</div></details></pre><style>body { display: none }</style>"
    "&lt;b&gt; $\\foo$ $$x^2$$ `code` **bold** [link](javascript:window.hacked=5)"
)
CONTROL = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \r\x08\x7f\x9b2J\u202ebackwards\u202c \x00end"
LONG = "x" * 100_000
ANSWERS = {
    "markup": MARKUP,
    "control characters": CONTROL,
    "a 100 KB line": LONG,
    "markup in a phrase": """```json
[{"bbox_2d": [10, 10, 60, 50], "label": "<script>window.hacked = 6</script>$\\\\foo$"}]
```""",
}
RAW = ("<script>", "<img src=x", "<svg onload", "<a href=", "<style>body")
"""Pieces that must not be on a page as they are."""
ESCAPES = ("\x1b", "\x07", "\x08", "\x00", "\x9b", "\x7f")
"""Characters that must not reach a terminal."""
