"""Score the demo model on held-out scenes: ``python examples/demo_model/evaluate.py --card``.

Plain transformers, greedy, batched. The scenes' seeds are never trained on; every task is asked once with a
trained wording and once with a paraphrase that training never saw.
"""

from __future__ import annotations

import argparse
import datetime
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from answering import Answerer, Ask, Reply
from packing import HELD_OUT_SEED
from questions import TASKS, Turn, ask, ask_two

import vlm_nb
import vlm_nb.demo
from vlm_nb.demo.scenes import CANVASES, Box, Scene, draw_scene
from vlm_nb.likeness import iou

SHORT = ("count", "count_kind", "colour", "shape", "background", "exists", "relation", "extreme", "follow_up")
OBJECTS = (1, 2, 3, 4, 5, 6)
KINDS = ("140 x 140", "other canvases", "large, resized")
MARKS = ("<!-- scores: begin -->", "<!-- scores: end -->")


@dataclass(frozen=True, slots=True)
class Case:
    """One question about a held-out scene."""

    turns: tuple[Turn, ...]
    scenes: tuple[Scene, ...]
    kind: str
    reworded: bool

    @property
    def truth(self) -> Turn:
        """The last turn: the one that is asked."""
        return self.turns[-1]

    def ask(self) -> Ask:
        """What the model gets."""
        questions = tuple(turn.question for turn in self.turns)
        images = tuple(scene.image for scene in self.scenes)
        return Ask(images, questions, tuple(turn.answer for turn in self.turns[:-1]))


@dataclass(frozen=True, slots=True)
class Located:
    """Boxes of one answer against the truth: IoU of each true box (0 when missed), and boxes too many."""

    ious: tuple[float, ...]
    extra: int


def held_out_scene(number: int, max_objects: int) -> tuple[Scene, str]:
    """Scene `number` and its kind: half on the square canvas, a quarter on others, a quarter drawn large."""
    rng = random.Random(number)
    kind = KINDS[(0, 1, 0, 2)[number % 4]]
    size = {
        KINDS[0]: (140, 140),
        KINDS[1]: rng.choice(CANVASES[1:]),
        KINDS[2]: (rng.randint(250, 900), rng.randint(250, 900)),
    }[kind]
    noise = rng.randint(3, 14) if rng.random() < 0.25 else 0
    quality = rng.randint(40, 95) if rng.random() < 0.15 else None
    seed = HELD_OUT_SEED + number
    return draw_scene(seed, max_objects=max_objects, size=size, noise=noise, jpeg_quality=quality), kind


def cases(scenes: int, max_objects: int, two_images: bool) -> Iterator[Case]:
    """Every task about every scene that allows it, in trained and in new words."""
    before: Scene | None = None
    for number in range(scenes):
        scene, kind = held_out_scene(number, max_objects)
        rng = random.Random(number + 1)
        for reworded in (False, True):
            for task in TASKS:
                turns = ask(task, scene, rng, held_out=reworded and task != "follow_up")
                if turns is not None:
                    yield Case(turns, (scene,), kind, reworded)
            if two_images and before is not None:
                yield Case((ask_two(before, scene, rng, held_out=reworded),), (before, scene), kind, reworded)
        before = scene


def answer_all(answerer: Answerer, todo: Sequence[Case], batch: int) -> list[Reply]:
    """Answers in the order of the cases; batches hold answers of about the same length."""
    order = sorted(range(len(todo)), key=lambda i: len(todo[i].truth.answer))
    replies: dict[int, Reply] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        replies.update(zip(chosen, answerer([todo[i].ask() for i in chosen]), strict=True))
    return [replies[i] for i in range(len(todo))]


def compare_boxes(case: Case, reply: Reply) -> Located | None:
    """Compare boxes as the package reads them, 0..1 of the image; None when the answer cannot be read."""
    size = case.scenes[0].image.size
    found = vlm_nb.parse_grounding(reply.text, "qwen2_5_vl", image_size=size, input_size=reply.seen[0])
    if found.grounding == "unparsed":
        return None
    names = set(re.findall(r'"label": "([^"]*)"', case.truth.answer))
    truth = [thing.bbox for thing in case.scenes[0].objects if thing.name in names]
    guesses = [phrase.bbox for phrase in found.grounded_phrases if phrase.bbox is not None]
    return match(truth, guesses)


def match(truth: Sequence[Box], guesses: Sequence[Box]) -> Located:
    """Pair boxes greedily by IoU, best first."""
    pairs = sorted(
        ((iou(one, other), i, j) for i, one in enumerate(truth) for j, other in enumerate(guesses)),
        reverse=True,
    )
    best: dict[int, float] = {}
    used: set[int] = set()
    for value, i, j in pairs:
        if i not in best and j not in used and value > 0:
            best[i] = value
            used.add(j)
    return Located(tuple(best.get(i, 0.0) for i in range(len(truth))), len(guesses) - len(used))


Row = tuple[str, list[str]]


def table(todo: Sequence[Case], replies: Sequence[Reply]) -> list[Row]:
    """Rows of the card: a name and its cells for trained and for new wordings."""
    sides = [
        [(c, r) for c, r in zip(todo, replies, strict=True) if c.reworded == new] for new in (False, True)
    ]
    present = [task for task in (*SHORT, "two_images", "caption") if any(c.truth.task == task for c in todo)]
    rows = [(f"{task}, exact", [_exact(side, (task,)) for side in sides]) for task in present]
    rows.insert(0, ("all short answers, exact", [_exact(side, SHORT) for side in sides]))
    return rows + [(name, [score(side) for side in sides]) for name, score in _box_rows()]


Side = list[tuple[Case, Reply]]


def _exact(side: Side, tasks: tuple[str, ...]) -> str:
    return _share([reply.text == case.truth.answer for case, reply in side if case.truth.task in tasks])


def _box_rows() -> list[tuple[str, Callable[[Side], str]]]:
    """Name and score of every row about boxes."""
    rows: list[tuple[str, Callable[[Side], str]]] = []
    for task in ("locate", "detect"):
        for name, reduce in (("mean IoU", _mean_iou), ("recall at IoU 0.5", _recall)):
            rows.append((f"{task}, {name}", partial(_of_boxes, reduce=reduce, tasks=(task,))))
    for kind in KINDS:
        rows.append((f"boxes, {kind}, mean IoU", partial(_of_boxes, reduce=_mean_iou, kind=kind)))
    for count in OBJECTS:
        name = f"locate, recall at IoU 0.5, {count} object{'' if count == 1 else 's'} in the image"
        rows.append((name, partial(_of_boxes, reduce=_recall, tasks=("locate",), objects=count)))
    rows.append(("boxes too many, per true box", partial(_of_boxes, reduce=_extra)))
    rows.append(("nothing there, recognised", _none))
    return rows


def _of_boxes(
    side: Side,
    *,
    reduce: Callable[[list[Located]], str],
    tasks: tuple[str, ...] = ("locate", "detect"),
    kind: str | None = None,
    objects: int | None = None,
) -> str:
    return reduce(_located(side, tasks, kind, objects))


def _located(side: Side, tasks: tuple[str, ...], kind: str | None, objects: int | None) -> list[Located]:
    chosen = [
        (c, r)
        for c, r in side
        if c.truth.task in tasks
        and kind in (None, c.kind)
        and objects in (None, len(c.scenes[0].objects))
        and "bbox" in c.truth.answer
    ]
    return [compare_boxes(case, reply) or Located((0.0,), 0) for case, reply in chosen]


def _mean_iou(found: list[Located]) -> str:
    return _share([value for one in found for value in one.ious])


def _recall(found: list[Located]) -> str:
    return _share([value >= 0.5 for one in found for value in one.ious])


def _extra(found: list[Located]) -> str:
    true = sum(len(one.ious) for one in found)
    return f"{sum(one.extra for one in found) / max(1, true):.3f} ({true})"


def _none(side: Side) -> str:
    chosen = [(c, r) for c, r in side if c.truth.task == "locate" and "bbox" not in c.truth.answer]
    return _share([reply.text == case.truth.answer for case, reply in chosen])


def _share(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f} ({len(values)})" if values else "-"


def render(rows: Sequence[Row], note: str) -> str:
    """Markdown of the table."""
    lines = [
        note,
        "",
        "| score (number of answers or boxes) | trained wordings | new wordings |",
        "|---|---|---|",
    ]
    return "\n".join(
        [*lines, *(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |" for name, cells in rows)]
    )


def write_card(path: Path, text: str) -> None:
    """Replace what stands between the marks of the card."""
    card = path.read_text(encoding="utf-8")
    before, rest = card.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    path.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def single_seconds(answerer: Answerer, todo: Sequence[Case]) -> float:
    """Median seconds of a single short answer."""
    times = []
    for case in [case for case in todo if case.truth.task in SHORT][:15]:
        began = time.perf_counter()
        answerer([case.ask()])
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=vlm_nb.demo.weights_path())
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--max-objects", type=int, default=6)
    parser.add_argument("--two-images", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--machine", default="2 CPU cores", help="the machine in words, for the card")
    parser.add_argument("--card", action="store_true", help="write the table into the package's CARD.md")
    parser.add_argument("--show", type=int, default=0, help="print this many wrong texts")
    return parser.parse_args()


def main() -> None:
    """Evaluate, print, and write the card if asked."""
    options = parse()
    torch.set_num_threads(options.threads)
    answerer = Answerer(options.weights, device=options.device)
    todo = list(cases(options.scenes, options.max_objects, options.two_images))
    replies = answer_all(answerer, todo, options.batch)
    seconds = single_seconds(answerer, todo)
    note = (
        f"{options.scenes} held-out scenes of 1 to {options.max_objects} objects, "
        f"{datetime.datetime.now(datetime.UTC).date()}, {options.machine}; "
        f"one short answer takes {seconds:.2f} s there."
    )
    text = render(table(todo, replies), note)
    print(text)
    asked = [(c, r) for c, r in zip(todo, replies, strict=True) if "bbox" not in c.truth.answer]
    wrong = [(case, reply) for case, reply in asked if case.truth.answer != reply.text]
    for case, reply in wrong[: options.show]:
        print(f"{case.truth.question!r}: {case.truth.answer!r} but {reply.text!r}")
    if options.card:
        write_card(vlm_nb.demo.weights_path().with_name("CARD.md"), text)


if __name__ == "__main__":
    main()
