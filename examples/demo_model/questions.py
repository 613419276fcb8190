"""Questions about a drawn scene and their true answers.

A task takes a scene and a source of chance and returns turns, or None when the scene does not allow it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from wordings import AFTER, BEFORE, HELD_OUT, RELATIONS, SHARES, WORDINGS, Wordings

from vlm_nb.demo.scenes import COLOURS, SHAPES, Scene, SceneObject

EMPTY_BOXES = "```json\n[]\n```"


@dataclass(frozen=True, slots=True)
class Turn:
    """One question with its true answer."""

    task: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Phrase:
    """A kind of object: a colour, a shape, or both."""

    colour: str | None
    shape: str | None

    def fits(self, thing: SceneObject) -> bool:
        """Whether the object is of this kind."""
        return self.colour in (None, thing.colour) and self.shape in (None, thing.shape)

    def text(self, rng: random.Random, *, plural: bool = False) -> str:
        """Natural words, for example ``red circle``, ``circles`` or ``red object``."""
        noun = self.shape or rng.choice(("object", "object", "shape", "thing"))
        noun = (f"{noun}es" if noun == "cross" else f"{noun}s") if plural else noun
        return f"{self.colour} {noun}" if self.colour else noun


Task = Callable[[Scene, random.Random, Wordings], tuple[Turn, ...] | None]


def article(words: str) -> str:
    """The words with their indefinite article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def boxes_json(objects: list[SceneObject], size: tuple[int, int]) -> str:
    """Qwen2.5-VL's own answer: x_min, y_min, x_max, y_max in pixels of an image of `size` (width, height)."""
    if not objects:
        return EMPTY_BOXES
    rows = []
    for thing in objects:
        corners = ", ".join(str(round(value * size[i % 2])) for i, value in enumerate(thing.bbox))
        rows.append(f'\t{{"bbox_2d": [{corners}], "label": "{thing.name}"}}')
    return "```json\n[\n" + ",\n".join(rows) + "\n]\n```"


def caption_of(scene: Scene) -> str:
    """One sentence that names every object from left to right, and the background."""
    names = [article(thing.name) for thing in scene.objects]
    listed = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    return f"{listed[0].upper()}{listed[1:]} on a {scene.background} background."


def _caption(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...]:
    return (Turn("caption", rng.choice(wordings), caption_of(scene)),)


def _detect(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...]:
    return (Turn("detect", rng.choice(wordings), boxes_json(list(scene.objects), scene.image.size)),)


def _locate(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...]:
    phrase = _some_phrase(scene, rng, present=0.8)
    wording = rng.choice(wordings)
    found = [thing for thing in scene.objects if phrase.fits(thing)]
    words = phrase.text(rng, plural=rng.random() < (0.5 if len(found) > 1 else 0.15))
    if wording is WORDINGS["locate"][0] and rng.random() < 0.25:
        words = f"the {words}"
    return (Turn("locate", wording.format(phrase=words), boxes_json(found, scene.image.size)),)


def _count(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...]:
    return (Turn("count", rng.choice(wordings), str(len(scene.objects))),)


def _count_kind(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...]:
    phrase = _some_phrase(scene, rng, present=0.8)
    question = rng.choice(wordings).format(phrase=phrase.text(rng, plural=True))
    return (Turn("count_kind", question, str(sum(map(phrase.fits, scene.objects)))),)


def _colour(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...] | None:
    thing = _only(scene, rng, "shape")
    if thing is None:
        return None
    return (Turn("colour", rng.choice(wordings).format(phrase=thing.shape), thing.colour),)


def _shape(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...] | None:
    thing = _only(scene, rng, "colour")
    if thing is None:
        return None
    words = Phrase(thing.colour, None).text(rng)
    return (Turn("shape", rng.choice(wordings).format(phrase=words), thing.shape),)


def _background(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...]:
    return (Turn("background", rng.choice(wordings), scene.background),)


def _exists(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...]:
    phrase = _some_phrase(scene, rng, present=0.5)
    wording = rng.choice(wordings)
    words = phrase.text(rng)
    question = wording.format(phrase=words).replace(f" a {words}", f" {article(words)}")
    return (Turn("exists", question, _yes_no(any(map(phrase.fits, scene.objects)))),)


def _relation(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...] | None:
    named = [thing for thing in scene.objects if _unique(scene, Phrase(thing.colour, thing.shape))]
    if len(named) < 2:
        return None
    one, other = rng.sample(named, 2)
    kinds = [kind for kind in RELATIONS if abs(_offset(one, other, kind)) > 0.08]
    if not kinds:
        return None
    kind = rng.choice(kinds)
    words = {"phrase": _short_name(scene, one, rng), "other": _short_name(scene, other, rng)}
    question = rng.choice(wordings).format(relation=rng.choice(RELATIONS[kind]), **words)
    return (Turn("relation", question, _yes_no(_offset(one, other, kind) > 0)),)


def _extreme(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...] | None:
    ranked = sorted(scene.objects, key=_area)
    if len(ranked) < 2:
        return None
    largest = rng.random() < 0.5
    first, second = (ranked[-1], ranked[-2]) if largest else (ranked[1], ranked[0])
    if _area(first) < 1.3 * _area(second):
        return None
    extreme = rng.choice(("largest", "biggest") if largest else ("smallest",))
    answer = article(first.name if largest else second.name)
    return (Turn("extreme", rng.choice(wordings).format(extreme=extreme), answer),)


def _follow_up(scene: Scene, rng: random.Random, wordings: Wordings) -> tuple[Turn, ...] | None:
    """A second question that only makes sense after the first."""
    if rng.random() < 0.5:
        first = _count_kind(scene, rng, WORDINGS["count_kind"])[0]
        phrase = _some_phrase(scene, rng, present=0.8)
        question = rng.choice(("And {phrase}?", "And how many {phrase}?")).format(
            phrase=phrase.text(rng, plural=True)
        )
        return first, Turn("follow_up", question, str(sum(map(phrase.fits, scene.objects))))
    thing = _only(scene, rng, "shape")
    if thing is None:
        return None
    first = Turn("exists", f"Is there {article(thing.shape)}?", "Yes")
    question = rng.choice(("What colour is it?", "What color is it?"))
    return first, Turn("follow_up", question, thing.colour)


TASKS: dict[str, Task] = {
    "caption": _caption, "detect": _detect, "locate": _locate, "count": _count, "count_kind": _count_kind,
    "colour": _colour, "shape": _shape, "background": _background, "exists": _exists, "relation": _relation,
    "extreme": _extreme, "follow_up": _follow_up,
}  # fmt: skip


def ask(task: str, scene: Scene, rng: random.Random, *, held_out: bool = False) -> tuple[Turn, ...] | None:
    """One dialogue of the task about the scene; None when the scene does not allow it."""
    wordings = (HELD_OUT if held_out else WORDINGS).get(task, ())
    return TASKS[task](scene, rng, wordings)


def endless(scene: Scene, rng: random.Random) -> Iterator[tuple[Turn, ...]]:
    """Dialogues about the scene without end, each task as often as its share says."""
    names, shares = tuple(SHARES), tuple(SHARES.values())
    while True:
        turns = ask(rng.choices(names, shares)[0], scene, rng)
        if turns is not None:
            yield (replace(turns[0], question=vary(turns[0].question, rng)), *turns[1:])


def vary(question: str, rng: random.Random) -> str:
    """The question as people also type it: with a phrase before or after, in small letters, with no mark."""
    if "JSON" in question:
        return question
    body, mark, chance = question[:-1], question[-1], rng.random()
    plain = "image" not in body and "picture" not in body
    if plain and chance < 0.08:
        body = f"{rng.choice(BEFORE)} {body[0].lower()}{body[1:]}"
    elif plain and chance < 0.22:
        body = f"{body} {rng.choice(AFTER)}"
    if rng.random() < 0.15:
        body = body[0].lower() + body[1:]
    return body + (mark if rng.random() < 0.85 else "")


def ask_two(first: Scene, second: Scene, rng: random.Random, *, held_out: bool = False) -> Turn:
    """A question that compares two images, answered by ``first``, ``second`` or ``same``."""
    phrase = _some_phrase(rng.choice((first, second)), rng, present=0.9)
    counts = [sum(map(phrase.fits, scene.objects)) for scene in (first, second)]
    wording = rng.choice((HELD_OUT if held_out else WORDINGS)["two_images"])
    answer = "same" if counts[0] == counts[1] else "first" if counts[0] > counts[1] else "second"
    return Turn("two_images", wording.format(phrase=phrase.text(rng, plural=True)), answer)


def _some_phrase(scene: Scene, rng: random.Random, *, present: float) -> Phrase:
    """A kind of object that is in the scene with the given chance; an absent one is often nearly right."""
    thing = rng.choice(scene.objects)
    if rng.random() < present:
        return rng.choice(
            (Phrase(thing.colour, thing.shape), Phrase(None, thing.shape), Phrase(thing.colour, None))
        )
    colours, shapes = tuple(COLOURS), SHAPES
    for _ in range(20):
        colour, shape = rng.choice(colours), rng.choice(shapes)
        near = rng.choice((Phrase(thing.colour, shape), Phrase(colour, thing.shape)))
        phrase = rng.choice((near, Phrase(None, shape), Phrase(colour, None), Phrase(colour, shape)))
        if not any(map(phrase.fits, scene.objects)):
            return phrase
    return Phrase(rng.choice(colours), rng.choice(shapes))


def _unique(scene: Scene, phrase: Phrase) -> bool:
    return sum(map(phrase.fits, scene.objects)) == 1


def _only(scene: Scene, rng: random.Random, attribute: str) -> SceneObject | None:
    """An object that is the only one with its shape (or its colour)."""
    values = [getattr(thing, attribute) for thing in scene.objects]
    alone = [thing for thing, value in zip(scene.objects, values, strict=True) if values.count(value) == 1]
    return rng.choice(alone) if alone else None


def _short_name(scene: Scene, thing: SceneObject, rng: random.Random) -> str:
    """The full name, or the shape alone where that is clear."""
    clear = _unique(scene, Phrase(None, thing.shape))
    return thing.shape if clear and rng.random() < 0.4 else thing.name


def _offset(one: SceneObject, other: SceneObject, kind: str) -> float:
    """How far `one` is to the named side of `other`, as a share of the image; negative on the other side."""
    axis = 0 if kind in ("left", "right") else 1
    distance = other.centre[axis] - one.centre[axis]
    return distance if kind in ("left", "above") else -distance


def _area(thing: SceneObject) -> float:
    x_min, y_min, x_max, y_max = thing.bbox
    return (x_max - x_min) * (y_max - y_min)


def _yes_no(true: bool) -> str:
    return "Yes" if true else "No"
