"""The keywords of ``load`` as the ``ray`` engine reads them, and what a replica is loaded with."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from ...errors import OptionError, unknown_option
from ..spec import LoadSpec

INNER = ("transformers", "vllm", "scripted")
"""Engines that can run in a replica; a server is reached from anywhere already."""
RESTARTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """``replicas`` processes with ``num_gpus`` and ``num_cpus`` of Ray's each, on the cluster at ``address``.

    ``address`` None starts a cluster on this machine. A replica that dies is started again, ``max_restarts``
    times (-1: always). ``num_cpus`` is also the number of threads that a replica computes with.
    """

    engine: str = "transformers"
    replicas: int = 1
    num_gpus: float = 0
    num_cpus: float = 1
    address: str | None = None
    max_restarts: int = RESTARTS

    @classmethod
    def of(cls, spec: LoadSpec) -> ClusterOptions:
        """Check ``spec``; raises OptionError for what makes no sense on a cluster."""
        args = spec.engine_args
        options = cls(
            engine=args.get("engine", "transformers"),
            replicas=1 if spec.replicas is None else spec.replicas,
            num_gpus=spec.gpus_per_replica or 0,
            num_cpus=args.get("num_cpus", 1),
            address=spec.address or os.environ.get("RAY_ADDRESS") or None,
            max_restarts=args.get("max_restarts", RESTARTS),
        )
        options.check()
        return options

    def check(self) -> None:
        """Raise OptionError naming what was given and what is allowed."""
        if self.engine not in INNER:
            raise unknown_option("engine in a replica", self.engine, INNER)
        _require("replicas", self.replicas, isinstance(self.replicas, int) and self.replicas >= 1)
        _require("gpus_per_replica", self.num_gpus, self.num_gpus >= 0 and _whole_above_one(self.num_gpus))
        _require("num_cpus", self.num_cpus, self.num_cpus >= 0)
        _require("max_restarts", self.max_restarts, self.max_restarts >= -1)
        if self.address is not None and self.address.startswith("ray://"):
            raise OptionError(
                f"address={self.address!r}: Ray's client protocol streams no answers. Run the notebook on a "
                'node of the cluster and give address="HOST:6379" or "auto".'
            )

    @property
    def resources(self) -> dict[str, Any]:
        """What Ray sets aside for one replica."""
        return {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}


OWN = ("engine", "num_cpus", "max_restarts")
"""``engine_args`` of this engine; all others are the inner engine's."""


def inner_spec(spec: LoadSpec) -> LoadSpec:
    """Return what each replica loads: ``spec`` without what is the cluster's."""
    args = {key: value for key, value in spec.engine_args.items() if key not in OWN}
    engine = str(spec.engine_args.get("engine", "transformers"))
    return dataclasses.replace(
        spec, engine=engine, engine_args=args, replicas=None, gpus_per_replica=None, address=None
    )


def _whole_above_one(number: float) -> bool:
    return number <= 1 or number == int(number)


def _require(name: str, value: object, good: bool) -> None:
    expected = {
        "replicas": "a whole number from 1",
        "gpus_per_replica": "0, a share of one GPU such as 0.5, or a whole number of GPUs",
        "num_cpus": "a number from 0",
        "max_restarts": "a whole number, -1 for always",
    }
    if not good:
        raise OptionError(f"{name}={value!r}: expected {expected[name]}.")
