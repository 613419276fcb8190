"""What engines and front ends agree on: capabilities, progress, facts about a model, what a backend does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .tickets import Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine with its model can do; checked before a request runs."""

    streaming: bool = True
    schema: bool = False
    multi_image: bool = True
    chat: bool = True
    confidence: bool = False
    sampling: bool = True
    beams: bool = False
    in_flight: bool = False
    compiled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a load is: ``done``, ``total`` in bytes (total None while unknown), ``text`` what happens.

    What is ``timed`` takes long and cannot say how far it is: whoever waits shows the seconds.
    """

    text: str
    done: float = 0.0
    total: float | None = None
    timed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What front ends need to know about a loaded model. ``memory`` is in bytes, None where it is not ours.

    ``fingerprint`` identifies the weights (hub revision, or a hash of the files' names, sizes and times);
    ``details`` are further plain values for ``%vlm status``.
    """

    name: str
    model_type: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    quantization: str | None = None
    revision: str | None = None
    fingerprint: str | None = None
    memory: int | None = None
    context_length: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    patch: int | None = None
    image_size: tuple[int, int] | None = None
    chat_template: str | None = None
    generation_defaults: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport:
    """Bytes in use on the model's device before loading, after it, and after unloading (None: not yet)."""

    device: str
    before: int | None = None
    loaded: int | None = None
    after: int | None = None


class Backend(Protocol):
    """What an engine's thread drives. Every method is called on that thread only, inside ``context()``."""

    capabilities: Capabilities

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Thread-wide state, such as ``torch.inference_mode()``."""

    def prepare(
        self, progress: Callable[[Progress], None], cancelled: threading.Event, room: Mapping[str, int]
    ) -> None:
        """Do what can fail and takes none of the model's memory: find, check, download.

        ``room`` are the bytes by device that loaded models will have given back when ``open`` is called.
        Raises as ``open`` does.
        """

    def open(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> ModelInfo:
        """Load the model, prepared or not; raise a LoadError or Cancelled."""

    @property
    def slots(self) -> int:
        """How many requests can be answered at once."""

    @property
    def running(self) -> Collection[Ticket]:
        """The admitted, unfinished tickets."""

    def free_slots(self) -> int:
        """How many tickets may be admitted now."""

    def admit(self, tickets: list[Ticket]) -> None:
        """Take tickets in; one that cannot be answered is failed by itself."""

    def step(self) -> None:
        """Advance all running tickets, push their deltas, finish those that are complete."""

    def drop(self, ticket: Ticket) -> None:
        """Forget a running ticket (cancelled); its completion is sent by the engine."""

    def close(self) -> None:
        """Free everything."""
