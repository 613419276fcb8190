"""The magics: parse, answer, store."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import magic_arguments
from traitlets import Any as AnyTrait
from traitlets import TraitType, validate

from .. import config
from ..errors import VLMError
from . import manage, reproduce
from .answers import Desk, answer
from .arguments import asking_options, parse_call, schema_option
from .streaming import ShownOnce

if TYPE_CHECKING:
    from ..asking import Task

log = logging.getLogger("vlm_nb")
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def one_line(function: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Raise our errors without the frames and causes below: they would keep images and tensors alive."""

    @functools.wraps(function)
    def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(self, *args, **kwargs)
        except VLMError as error:
            log.debug("a magic failed", exc_info=True)
            failure = error
        failure.__traceback__ = failure.__context__ = failure.__cause__ = None
        raise failure

    return guarded


def _setting(name: str) -> TraitType[Any, Any]:
    return AnyTrait(None, allow_none=True, help=f"the setting {name!r} of vlm_nb; None leaves it alone").tag(
        config=True
    )


@magics_class
class VlmMagics(Magics):
    """``%vqa``, ``%ground``, ``%caption`` and ``%vlm``; their settings are ``%config VlmMagics.*``."""

    locals().update({name: _setting(name) for name in config.Settings.names()})

    def __init__(self, shell: InteractiveShell) -> None:
        self.once = ShownOnce(shell)
        self.desk = Desk(shell, self.once)
        super().__init__(shell=shell, **config.overrides())

    @validate(*config.Settings.names())
    def _override(self, proposal: Any) -> Any:
        config.override(proposal["trait"].name, proposal["value"])
        return proposal["value"]

    @no_var_expand
    @line_cell_magic
    @magic_arguments()
    @schema_option
    @asking_options
    @one_line
    def vqa(self, line: str, cell: str | None = None) -> Any:
        """Ask a question about an image.

        ::

          %vqa photo.jpg What colour is the car?
          %vqa -o answer --max_new_tokens 20 "my photo.jpg" Is it raining?
          %vqa a.jpg b.jpg --together -- What changed?
          %vqa photos/*.jpg -- Is there a dog?           (a table, one row an image)
          %vqa df What is shown?                         (a DataFrame, through df.vlm)
          %vqa photo.jpg --schema Receipt                (a pydantic model: the answer's .parsed)
          %vqa photos/ --compare NAME -- Is it day?      (this and another loaded model, side by side)

          %%vqa photo.jpg
          Your question, as long as you like; {{name}} is replaced by the variable's value.

        Lines that start with "- " are separate questions. The image is a file, folder, glob, URL, variable or
        a bracketed expression. The answer is the cell's value; -o stores it too.
        """
        return self._ask(self.vqa, line, cell, "ask")

    @no_var_expand
    @line_cell_magic
    @magic_arguments()
    @asking_options
    @one_line
    def ground(self, line: str, cell: str | None = None) -> Any:
        """Find things in an image and draw their boxes; without a phrase, find every object.

        ::

          %ground photo.jpg the red car
          %ground photo.jpg
          %ground photos/ -- a person

          %%ground photo.jpg
          - the red car
          - the driver

        Boxes are (x_min, y_min, x_max, y_max) in 0..1 of the upright image, in ``.grounded_phrases``.
        """
        return self._ask(self.ground, line, cell, "locate")

    @no_var_expand
    @line_magic
    @magic_arguments()
    @asking_options
    @one_line
    def caption(self, line: str) -> Any:
        """Describe one image or several.

        ::

          %caption photo.jpg
          %caption photos/ -o table
          %caption images[3]
        """
        return self._ask(self.caption, line, None, "caption", only_sources=True)

    @no_var_expand
    @line_magic
    @one_line
    def vlm(self, line: str) -> Any:
        """Load and manage vision-language models; ``%vlm`` alone prints a short guide.

        ::

          %vlm load NAME [--quantization 4bit] [--keep] [any keyword of vlm_nb.load as --keyword value]
          %vlm use NAME         make a loaded model the current one
          %vlm status           what is loaded, where, and how much memory it takes
          %vlm unload [NAME]    free a model's memory (--all: every model's)
          %vlm models           vision models in the local cache
          %vlm config           settings in force, and where they come from
          %vlm reproduce        the plain Python of the last answer
          %vlm doctor           versions, device, memory, and what is missing
          %vlm explore          the widget
        """
        return manage.run(self.desk, line)

    def _ask(self, magic: Any, line: str, cell: str | None, task: Task, *, only_sources: bool = False) -> Any:
        shell = self.desk.shell
        call = parse_call(magic, line, cell, shell.user_ns, only_sources=only_sources)
        model, value = answer(self.desk, call, task)
        self.desk.last = reproduce.record(self.desk, model, call, task)
        if call.options.out is not None:
            shell.push({call.options.out: value})
        return value
