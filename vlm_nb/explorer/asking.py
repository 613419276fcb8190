"""Questions from the widget: one turn each, submitted on a worker thread, followed by the pump."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..asking import Job, Prepared
from ..engines.base import Ticket
from ..errors import OptionError
from ..results import BBox, Prediction
from . import images
from .album import Album
from .edits import Boxes, clipped, to_whole
from .loading import ModelDesk
from .screen import Screen
from .state import TASKS, Answer
from .threads import Pump, Worker

if TYPE_CHECKING:
    from ..model import VLM

TEXT_PER_SECOND = 250_000
SHORT = 120
LISTED = 200


@dataclass(slots=True)
class Turn:
    """One question and what came of it. ``boxes`` are the answer's, as corrected since."""

    answer: Answer
    boxes: Boxes = field(default_factory=Boxes)
    prediction: Prediction | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    ticket: Ticket | None = None
    sent: float = 0.0

    def result(self) -> Prediction | None:
        """The prediction with the boxes as they are now; None where there was no answer."""
        if self.prediction is None:
            return None
        return replace(self.prediction, grounded_phrases=tuple(box.to_phrase() for box in self.boxes.now))

    def line(self) -> dict[str, Any]:
        """One row of the history."""
        answer = self.answer
        return {
            "number": answer.number,
            "task": answer.task,
            "prompt": answer.prompt[:SHORT],
            "label": answer.label,
            "image": answer.image,
            "status": answer.status,
            "text": answer.text[:SHORT],
            "boxes": len(self.boxes.now),
        }


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is needed to read the answer of a ticket."""

    turn: Turn
    model: VLM
    job: Job
    prepared: Prepared


class AskDesk:
    """The turns of a widget: ask, stop, edit, recall. ``ended`` is called with each turn that ended."""

    def __init__(
        self, screen: Screen, models: ModelDesk, album: Album, worker: Worker, ended: Callable[[Turn], None]
    ) -> None:
        self._screen, self._models, self._album, self._worker = screen, models, album, worker
        self._ended = ended
        self._pump = Pump(self._grew, self._finished)
        self._asked: dict[Ticket, _Asked] = {}
        self._lock = threading.Lock()
        self.turns: list[Turn] = []
        self.shown: Turn | None = None

    # Handlers -----------------------------------------------------------------------------------------------

    def ask(self, message: dict[str, Any]) -> None:
        """Ask about the shown image; while an answer is open this does nothing (a double click)."""
        if self._busy():
            return
        task, prompt = str(message.get("task", "ask")), str(message.get("prompt") or "").strip()
        if task not in TASKS:
            raise OptionError(f"unknown task {task!r}; allowed are: {', '.join(TASKS)}.")
        self._album.source(self._album.index)
        region = clipped(message["region"]) if message.get("region") else None
        turn = self._new(task, "" if task == "caption" else prompt, region)
        self._worker.put(lambda: self._begin(turn))

    def stop(self, message: dict[str, Any]) -> None:
        """Stop the open answer; its text so far is kept."""
        if self.shown is not None and self.shown.answer.open:
            self.shown.cancelled.set()
            if self.shown.ticket is not None:
                self.shown.ticket.cancel()
            else:
                self._models.give_up()

    def edit(self, message: dict[str, Any]) -> None:
        """Apply one gesture to the shown boxes. Raises OptionError."""
        turn = self.shown
        if turn is None or turn.answer.image != self._album.index:
            turn = self._new("draw", "", None, status="done")
        if turn.prediction is None:
            turn.prediction = self._drawn(turn)
        turn.boxes = turn.boxes.apply(message)
        self.tell()
        self._ended(turn)

    def recall(self, message: dict[str, Any]) -> None:
        """Show an earlier turn and its image again."""
        turn = next((t for t in self.turns if t.answer.number == message.get("number")), None)
        if turn is None or self._busy():
            return
        self.shown = turn
        if turn.answer.image is not None and turn.answer.image != self._album.index:
            self._album.go(turn.answer.image)
        self.tell()

    def moved(self) -> None:
        """Another image is shown: show its last turn, unless an answer is open."""
        shown, index = self.shown, self._album.index
        if shown is not None and (shown.answer.open or shown.answer.image == index):
            return
        here = [turn for turn in self.turns if turn.answer.image == index]
        self.shown = here[-1] if here else None
        self.tell()

    def close(self) -> None:
        """Stop the open answer and the pump."""
        self.stop({})
        self._pump.close()

    # On the worker thread -----------------------------------------------------------------------------------

    def _begin(self, turn: Turn) -> None:
        try:
            model = self._models.need()
            if turn.cancelled.is_set():
                self._set(turn, turn.answer.stopped())
                return
            self._set(turn, turn.answer.running(model.name))
            job = self._job(model, turn)
            self._submit(_Asked(turn, model, job, model.asker.prepare(job)))
        except Exception as error:  # noqa: BLE001 - shown to the user, whatever it is
            stopped = turn.cancelled.is_set()
            self._set(turn, turn.answer.stopped() if stopped else turn.answer.failed(error))

    def _job(self, model: VLM, turn: Turn) -> Job:
        answer = turn.answer
        index = answer.image or 0
        source: Any = self._album.source(index)
        if answer.region is not None:
            image = self._album.image(index).image
            source = image.crop(images.pixel_rect(answer.region, image.size))
        task: Any = TASKS[answer.task]
        if answer.task == "ground" and not answer.prompt:
            task = "detect"
        return model.job(source, answer.prompt or None, task)

    def _submit(self, asked: _Asked) -> None:
        self._pump.start()
        with self._lock:
            ticket = asked.model.engine.submit(asked.prepared.request, self._pump.outbox)
            self._asked[ticket] = asked
            asked.turn.ticket = ticket
        if asked.turn.cancelled.is_set():
            ticket.cancel()

    # On the pump's thread -----------------------------------------------------------------------------------

    def _grew(self, ticket: Ticket) -> None:
        with self._lock:
            asked = self._asked.get(ticket)
        if asked is None or not asked.turn.answer.open:
            return
        turn, text = asked.turn, ticket.text
        turn.answer = turn.answer.grown(text)
        if time.monotonic() - turn.sent > len(text) / TEXT_PER_SECOND:
            turn.sent = time.monotonic()
            self._show_answer(turn)

    def _finished(self, ticket: Ticket) -> None:
        with self._lock:
            asked = self._asked.pop(ticket, None)
        if asked is None or ticket.completion is None:
            return
        turn = asked.turn
        turn.ticket = None
        try:
            prediction = self._whole(turn, asked.model.finish(asked.job, asked.prepared, ticket.completion))
        except Exception as error:  # noqa: BLE001 - shown to the user, whatever it is
            self._set(turn, replace(turn.answer, text=ticket.text).failed(error))
            return
        turn.prediction, turn.boxes = prediction, Boxes.of(prediction.grounded_phrases)
        self._set(turn, turn.answer.finished(prediction))
        self._ended(turn)

    def _whole(self, turn: Turn, prediction: Prediction) -> Prediction:
        """The answer about a region, in terms of the whole image."""
        region = turn.answer.region
        if region is None:
            return prediction
        loaded = self._album.image(turn.answer.image or 0)
        rect, (width, height) = images.pixel_rect(region, loaded.image.size), loaded.image.size
        cut = (rect[0] / width, rect[1] / height, rect[2] / width, rect[3] / height)
        from ..display import preview_jpeg

        return replace(
            prediction,
            grounded_phrases=tuple(to_whole(p, cut) for p in prediction.grounded_phrases),
            image_size=loaded.original_size,
            source=turn.answer.label,
            preview=preview_jpeg(loaded.image),
        )

    # Telling the browser ------------------------------------------------------------------------------------

    def _busy(self) -> bool:
        return any(turn.answer.open for turn in self.turns[-1:])

    def _new(self, task: str, prompt: str, region: BBox | None, status: Any = "waiting") -> Turn:
        index = self._album.index
        answer = Answer(
            number=len(self.turns) + 1,
            status=status,
            task=task,
            prompt=prompt,
            image=index,
            label=self._album.label(index),
            region=region,
        )
        turn = Turn(answer)
        self.turns = [*self.turns, turn]
        self.shown = turn
        self.tell()
        return turn

    def _drawn(self, turn: Turn) -> Prediction:
        loaded = self._album.image(self._album.index)
        from ..display import preview_jpeg

        return Prediction(
            "",
            grounding="found",
            source=turn.answer.label,
            image_size=loaded.original_size,
            preview=preview_jpeg(loaded.image),
        )

    def _set(self, turn: Turn, answer: Answer) -> None:
        turn.answer = answer
        self.tell()

    def _show_answer(self, turn: Turn) -> None:
        if self.shown is turn:
            self._screen.show(answer=turn.answer.to_dict())

    def tell(self) -> None:
        """Send the shown turn and the history."""
        turn = self.shown or Turn(Answer())
        self._screen.show(
            boxes={
                "image": turn.answer.image,
                "turn": turn.answer.number,
                "items": [box.to_dict() for box in turn.boxes.now],
                "undo": bool(turn.boxes.before),
            },
            history=[one.line() for one in self.turns[-LISTED:]],
            answer=turn.answer.to_dict(),
        )
