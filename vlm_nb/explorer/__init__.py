"""The Explorer: a widget to load a model and look at images with it (``vlm_nb.explore()``, ``%vlm explore``).

``widget`` is the face to Jupyter, ``loading``, ``album`` and ``asking`` do the three things that take time,
each on threads of its own, ``state`` and ``edits`` are pure, ``keepsake`` is what stays in a saved notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .widget import Explorer

if TYPE_CHECKING:
    from ..model import VLM

__all__ = ["Explorer", "explore"]


def explore(
    images: Any = None,
    *,
    model: VLM | str | None = None,
    column: str | None = None,
    recursive: bool = False,
    **load_options: Any,
) -> Explorer:
    """Return a widget that loads a model, shows ``images`` and asks about them.

    ``images`` is anything that ``vlm_nb.load`` models take: a path, folder, glob, URL, PIL image, array, a
    list of these, or a DataFrame (``column`` names the one with the images). ``model`` is a loaded model or
    its name; without it the current one is used, and the first question loads the demo model if there is
    none. ``load_options`` are keywords of ``vlm_nb.load`` for the models that are loaded from the widget.

    Raises OptionError for an unknown keyword or column, NoModelLoaded for a name that is not loaded. Images
    that cannot be read are shown as such, each in its place.
    """
    return Explorer(images, model=model, column=column, recursive=recursive, load_options=load_options)
