"""The ``ray`` engine: any local engine, as many times as there are machines for it.

    model = vlm_nb.load("Qwen/Qwen2.5-VL-7B-Instruct", engine="ray", replicas=4, gpus_per_replica=1)

Each replica is a Ray actor that loads the model once and answers with an engine of its own (transformers, or
``engine_args={"engine": "vllm"}``). Rows stream to them and back, those of a dead replica go to another, and
this process alone shows progress and writes the ledger. ``model.run_parquet`` runs on Ray Data. ``cluster/``
holds the parts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from ..errors import GenerationError, LoadError, OptionError, VLMError
from .base import Capabilities, Engine, ModelInfo, Progress, Ticket, raise_if_cancelled
from .cluster import joining
from .cluster.options import ClusterOptions, inner_spec
from .cluster.pool import Pool
from .cluster.spread import Work, spread
from .spec import LoadSpec


class RayBackend:
    """Loads ``spec.model`` in ``spec.replicas`` processes (1) with ``spec.gpus_per_replica`` GPUs each (0).

    ``spec.address`` (or RAY_ADDRESS) is a cluster, "auto" one of this machine; without, one is started here.
    ``engine_args``: ``engine`` ("transformers", "vllm"), ``num_cpus`` (1; threads of a replica, too),
    ``max_restarts`` (8); all others are the inner engine's.
    """

    def __init__(self, spec: LoadSpec) -> None:
        self.capabilities = Capabilities()
        self._spec = spec
        self._options = ClusterOptions.of(spec)
        self._pool: Pool | None = None

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Nothing to set up: the models run in processes of Ray."""
        return contextlib.nullcontext()

    def prepare(
        self, progress: Callable[[Progress], None], cancelled: threading.Event, room: Mapping[str, int]
    ) -> None:
        """Raise MissingDependency where there is no Ray; what else may fail, the replicas find."""
        joining.imported()

    def open(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> ModelInfo:
        """Join or start a cluster and load every replica. Raises MissingDependency or a LoadError."""
        progress(Progress(text="joining the Ray cluster"))
        joining.join(self._options)
        try:
            self._pool = Pool(self._spec, self._options)
            self._refuse_if_too_small()
            self._pool.start()
            return self._all_up(self._pool, progress, cancelled)
        except BaseException:
            self.close()
            raise

    def _refuse_if_too_small(self) -> None:
        """A cluster started here cannot grow; another may."""
        lacking = joining.missing(self._options)
        if lacking and joining.started_here():
            joined = "" if self._options.address else '; give address="HOST:6379" for another cluster'
            raise OptionError(f"{lacking}{joined}.")

    def _all_up(
        self, pool: Pool, progress: Callable[[Progress], None], cancelled: threading.Event
    ) -> ModelInfo:
        wanted, shown = self._options.replicas, -1
        while (up := sum(worker.rising is None for worker in pool.workers)) < wanted:
            raise_if_cancelled(cancelled)
            if up != shown:
                waits = joining.missing(self._options)
                text = f"{up} of {wanted} replicas are up{f' ({waits}: waiting for nodes)' if waits else ''}"
                progress(Progress(text=text, done=up, total=wanted))
                shown = up
            pool.step()
            if len(pool.workers) < wanted:
                raise pool.gone or LoadError("a replica ended while it loaded.")
        return self._info(pool)

    def _info(self, pool: Pool) -> ModelInfo:
        facts = [worker.facts for worker in pool.workers if worker.facts]
        self.capabilities, info = facts[0].capabilities, facts[0].info
        details = {
            **info.details,
            "replicas": len(facts),
            "engine in a replica": self._options.engine,
            "cluster": "started here"
            if joining.started_here()
            else self._options.address or "joined already",
            "processes": [one.pid for one in facts],
        }
        return dataclasses.replace(info, name=self._spec.model, details=details)

    # Requests -----------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many requests all replicas answer at once."""
        return self._pool.places if self._pool else 1

    @property
    def running(self) -> Collection[Ticket]:
        """The tickets that replicas hold, and those that wait for one to come up."""
        return [row.ticket for row in self._pool.rows] if self._pool else []

    def free_slots(self) -> int:
        """Places left in the replicas that are up."""
        return self._pool.room() if self._pool else 0

    def admit(self, tickets: list[Ticket]) -> None:
        """Send each ticket to the replica with the fewest."""
        for ticket in tickets:
            self._need().add(ticket)

    def step(self) -> None:
        """Take in what the replicas have answered."""
        self._need().step()

    def drop(self, ticket: Ticket) -> None:
        """Forget a cancelled ticket; its replica stops computing it."""
        self._need().drop(ticket)

    def close(self) -> None:
        """End the replicas, and the cluster if it was started here."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            joining.leave()

    def _need(self) -> Pool:
        if self._pool is None:
            raise GenerationError("the replicas were stopped.")
        return self._pool

    # Big tables ---------------------------------------------------------------------------------------------

    def spread(self, engine: Engine, work: Work, items: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Run ``work`` on every item with Ray Data, in any order; called in the caller's thread.

        Ray Data has actors of its own, so the replicas make room for them meanwhile: questions wait.
        """
        engine.call(self._rest).result()
        try:
            yield from spread(inner_spec(self._spec), self._options, work, items)
        finally:
            with contextlib.suppress(VLMError):  # unloaded meanwhile
                engine.call(self._wake).result()

    def _rest(self) -> None:
        pool = self._need()
        if pool.resting or pool.rows:
            raise OptionError("the replicas are busy; wait for the other run to end, or interrupt it.")
        pool.rest()

    def _wake(self) -> None:
        if self._pool is not None:
            self._pool.start()
