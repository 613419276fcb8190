"""Text to boxes and back: pure functions, one parser per output format.

``parse`` never raises on any text, takes time linear in its length, and returns at most ``MAX_BOXES`` boxes.
``FORMATS`` is the one table of formats, ``register`` adds one; ``write`` is the inverse of ``parse``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from ..errors import OptionError, unknown_option
from ..results import Frame, GroundedPhrase, GroundingStatus
from .answer import Part, part_of, says_none, split_thinking, without_cuts
from .base import MAX_BOXES, Format, Mark, Reading, Space, Span, to_mark, to_phrase
from .formats import FORMATS
from .guess import guess

__all__ = [
    "FORMATS",
    "MAX_BOXES",
    "Format",
    "Grounding",
    "Mark",
    "Reading",
    "Space",
    "parse",
    "register",
    "write",
]

_UNIT_FRAME = Frame((1, 1), (1, 1))


@dataclass(frozen=True, slots=True)
class Grounding:
    """What a text says about places.

    ``grounded_phrases`` have boxes (x_min, y_min, x_max, y_max) in 0..1 of the upright original image;
    ``caption`` is the text without markup; ``thinking`` the split-off reasoning; ``notes`` say what was cut
    or guessed. ``grounding`` is "found", "none" (the text says that nothing is there), "unparsed" (asked for
    or marked up, and nothing readable) or None (neither asked for nor marked up). ``spans`` has, for each
    phrase, where its numbers stand in the text: one (start, end) in characters, and one more for each exact
    repeat; none where that is not known.
    """

    grounding: GroundingStatus | None
    grounded_phrases: tuple[GroundedPhrase, ...] = ()
    caption: str = ""
    thinking: str | None = None
    notes: tuple[str, ...] = ()
    spans: tuple[tuple[Span, ...], ...] = ()


def register(format: Format) -> Format:
    """Make a format of your own known in this process, and return it; one of the same name is replaced.

    A ``families.Family`` names it as its ``format``. With a ``sign`` it is also guessed from the answers of
    unknown models.
    """
    FORMATS[format.name] = format
    return format


def parse(text: str, format: str | None, *, frames: Sequence[Frame], asked: bool) -> Grounding:
    """Read ``text`` as written in ``format`` about the images that ``frames`` describe.

    ``frames[i]`` says how original image ``i`` lies in the image that the model saw. ``asked`` says that
    grounding was asked for: then bare number lists count, and an answer without boxes is "none" or
    "unparsed"; markup counts always. ``format=None`` guesses the format from the text and says so in the
    notes. Raises OptionError for an unknown format and a text that is no str, never for what a text holds.
    """
    if not isinstance(text, str):
        raise OptionError(f"text must be a str, not {type(text).__name__}: pass the model's answer.")
    thinking, within, thought_cut = split_thinking(text)
    spec, notes = _format(format, text[slice(*within)], frames, asked)
    answer = part_of(text, within, spec.specials)
    reading = spec.read(answer.text, asked)
    placed, placing_notes = _place(reading, spec, frames)
    phrases = tuple(placed)
    notes += placing_notes + _reading_notes(reading, phrases, thought_cut)
    status = _status(reading, phrases, answer.text, spec, asked)
    caption = without_cuts(answer.text, () if status == "unparsed" else reading.cuts)
    spans = tuple(_spans(marks, answer) for marks in placed.values())
    return Grounding(status, phrases, caption, thinking, tuple(notes), spans)


def _spans(marks: Sequence[Mark], answer: Part) -> tuple[Span, ...]:
    return tuple(answer.span_in_whole(mark.span) for mark in marks if mark.span is not None)


def write(phrases: Sequence[GroundedPhrase], format: str, *, frames: Sequence[Frame]) -> str:
    """Return ``phrases`` as a model of that format writes them (training targets, tests).

    Boxes are (x_min, y_min, x_max, y_max) in 0..1 of the original images that ``frames`` describe.
    """
    spec = _named(format)
    frames = frames or (_UNIT_FRAME,)
    return spec.writer([to_mark(p, spec.space, frames[p.image_index], points=spec.points) for p in phrases])


def _named(format: str) -> Format:
    if format not in FORMATS:
        raise unknown_option("grounding format", format, FORMATS)
    return FORMATS[format]


def _format(
    format: str | None, answer: str, frames: Sequence[Frame], asked: bool
) -> tuple[Format, list[str]]:
    if format is not None:
        return _named(format), []
    name, note = guess(answer, frames, asked)
    return FORMATS[name], [note] if note else []


def _place(
    reading: Reading, spec: Format, frames: Sequence[Frame]
) -> tuple[dict[GroundedPhrase, list[Mark]], list[str]]:
    """Map marks to phrases: at most MAX_BOXES, exact repeats once, absurd ones not at all."""
    placed: dict[GroundedPhrase, list[Mark]] = {}
    repeats = 0
    for mark in reading.marks:
        phrase = _place_one(mark, spec, frames)
        if phrase is None:
            reading.refused += 1
        elif phrase in placed:
            repeats += 1
            placed[phrase].append(mark)
        else:
            placed[phrase] = [mark]
    notes = [f"{repeats} exact repeats of a box were dropped"] if repeats else []
    if len(reading.marks) > MAX_BOXES:
        notes.append(f"a runaway answer: cut after {MAX_BOXES} boxes")
    return dict(islice(placed.items(), MAX_BOXES)), notes


def _place_one(mark: Mark, spec: Format, frames: Sequence[Frame]) -> GroundedPhrase | None:
    if not frames:
        return to_phrase(mark, spec.space, _UNIT_FRAME) if spec.space.scale else None
    if not 0 <= mark.image_index < len(frames):
        return None
    return to_phrase(mark, spec.space, frames[mark.image_index])


def _reading_notes(reading: Reading, phrases: Sequence[GroundedPhrase], thought_cut: bool) -> list[str]:
    notes = []
    if thought_cut:
        notes.append("the answer ends inside its reasoning")
    if reading.truncated:
        notes.append(f"the answer ends inside its boxes: {len(phrases)} complete ones kept")
    if reading.refused:
        notes.append(f"{reading.refused} places could not be read (numbers missing, absurd or off the image)")
    return notes


def _status(
    reading: Reading, phrases: Sequence[GroundedPhrase], answer: str, spec: Format, asked: bool
) -> GroundingStatus | None:
    if phrases:
        return "found"
    if reading.markup:
        return "unparsed"
    if not asked:
        return "none" if reading.empty else None
    nothing = reading.empty or (spec.empty_is_none and not answer.strip()) or says_none(answer)
    return "none" if nothing else "unparsed"
