"""Held-out scenes, and what the answers to them are worth. Questions go through ``vlm_nb.load(folder)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lessons import HELD_OUT_SEED, KNOWN_SHAPES, caption_of

from vlm_nb.demo.scenes import Box, Scene, draw_scene
from vlm_nb.likeness import iou
from vlm_nb.model import VLM
from vlm_nb.results import Prediction

MOST_OBJECTS = 1
SIZES = {
    "square": ((240, 240), (320, 320)),
    "wide": ((320, 240), (400, 240)),
    "tall": ((240, 320), (240, 400)),
}
"""Sizes (width, height) of held-out images: larger than training ever draws them."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The three answers about one held-out scene; ``phrase`` is what was located."""

    kind: str
    scene: Scene
    phrase: str
    caption: Prediction
    detect: Prediction
    locate: Prediction

    @property
    def caption_exact(self) -> bool:
        """Whether the caption is the true one, word for word."""
        return self.caption.caption == caption_of(self.scene)

    @property
    def detect_ious(self) -> list[float]:
        """IoU of each object with the box found for it, 0 when it was missed."""
        return best_ious([thing.bbox for thing in self.scene.objects], _boxes(self.detect))

    @property
    def locate_ious(self) -> list[float]:
        """The same for the objects of the phrase."""
        true = [thing.bbox for thing in self.scene.objects if thing.name == self.phrase]
        return best_ious(true, _boxes(self.locate))

    @property
    def names_right(self) -> bool:
        """Whether the boxes found are called what was drawn."""
        found = sorted(phrase.phrase for phrase in self.detect.grounded_phrases)
        return found == sorted(thing.name for thing in self.scene.objects)

    @property
    def extra(self) -> int:
        """Boxes too many, of both answers."""
        true = len(self.detect_ious) + len(self.locate_ious)
        return max(0, len(_boxes(self.detect)) + len(_boxes(self.locate)) - true)


def _boxes(answer: Prediction) -> list[Box]:
    return [phrase.bbox for phrase in answer.grounded_phrases]


def held_out(number: int) -> tuple[str, Scene]:
    """Held-out scene ``number`` and its kind."""
    kind = tuple(SIZES)[number % 3]
    size = SIZES[kind][number // 3 % 2]
    return kind, draw_scene(HELD_OUT_SEED + number, max_objects=MOST_OBJECTS, size=size, shapes=KNOWN_SHAPES)


def answer_all(model: VLM, numbers: Sequence[int]) -> list[Answered]:
    """Ask for the caption, all boxes, and the boxes of one phrase of each scene, all in one batch."""
    scenes = [held_out(number) for number in numbers]
    phrases = [scene.objects[0].name for _, scene in scenes]
    jobs = []
    for (_, scene), phrase in zip(scenes, phrases, strict=True):
        jobs.append(model.job(scene.image, None, "caption"))
        jobs.append(model.job(scene.image, None, "detect"))
        jobs.append(model.job(scene.image, phrase, "locate"))
    outcomes = model.run(jobs, show_progress=False, ledger=False)
    results = [outcome.unwrap() for outcome in outcomes]
    triples = zip(results[0::3], results[1::3], results[2::3], strict=True)
    return [
        Answered(kind, scene, phrase, *triple)
        for (kind, scene), phrase, triple in zip(scenes, phrases, triples, strict=True)
    ]


def best_ious(truth: Sequence[Box], guesses: Sequence[Box]) -> list[float]:
    """IoU of each true box with its guess: pairs are made best first, each guess is used once."""
    pairs = [(iou(one, other), i, j) for i, one in enumerate(truth) for j, other in enumerate(guesses)]
    best, used = [0.0] * len(truth), set[int]()
    for value, i, j in sorted(pairs, reverse=True):
        if not best[i] and j not in used:
            best[i] = value
            used.add(j)
    return best


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over answers: IoU (0 when missed), also by kind of image, and shares of exact answers."""

    detect: float
    locate: float
    recall: float
    by_kind: dict[str, float]
    names: float
    captions: float
    extra: float


def score(answers: Sequence[Answered]) -> Scores:
    """Sum up."""
    detect = [value for one in answers for value in one.detect_ious]
    locate = [value for one in answers for value in one.locate_ious]
    by_kind = {
        kind: mean([v for one in answers if one.kind == kind for v in (*one.detect_ious, *one.locate_ious)])
        for kind in SIZES
    }
    return Scores(
        detect=mean(detect),
        locate=mean(locate),
        recall=mean([value >= 0.5 for value in detect + locate]),
        by_kind=by_kind,
        names=mean([one.names_right for one in answers]),
        captions=mean([one.caption_exact for one in answers]),
        extra=sum(one.extra for one in answers) / len(detect + locate),
    )


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)
