"""Which Ray cluster: the one this process has joined, the one at an address, or one started here."""

from __future__ import annotations

import logging
import os
import socket
import threading
import warnings
from typing import Any

from ... import extras
from ...errors import LoadError, MissingDependency
from .failures import said
from .options import ClusterOptions

INSTALL = f"the ray engine needs Ray:  {extras.command('ray')}"
STORE_BYTES = 1 << 30
"""Shared memory of a cluster that is started here: it holds images on their way, not models."""

SPACE = 4
"""So many times the CPUs that the first model asks for, so that a second one finds some."""

_lock = threading.Lock()
_users = 0
_ours = False


def join(options: ClusterOptions) -> None:
    """Join a cluster, or start one on this machine. Raises MissingDependency and LoadError.

    A process is in one cluster at a time: an address that is another one's than the joined is a LoadError.
    """
    global _users, _ours
    ray = imported()
    with _lock:
        if not ray.is_initialized():
            _users, _ours = 0, options.address in (None, "local")
            _initialise(ray, options)
        elif options.address is not None:
            _refuse_another(options.address, str(ray.get_runtime_context().gcs_address))
        _users += 1


def _refuse_another(asked: str, joined: str) -> None:
    """Raise LoadError where ``asked`` is not the joined cluster's address; warn where that cannot be told."""
    host, _, port = asked.rpartition(":")
    its_host, _, its_port = joined.rpartition(":")
    if (asked == "local" and not _ours) or (port.isdigit() and port != its_port):
        raise LoadError(
            f"address={asked!r}: this process has joined the Ray cluster at {joined}, and can be in one "
            "only. Leave address= out to use that one, or leave it first: unload its models, then "
            "ray.shutdown()."
        )
    if port.isdigit() and not (_numbers(host) & ({"127.0.0.1", "::1"} | _numbers(its_host))):
        warnings.warn(
            f"address={asked!r}: the Ray cluster at {joined}, which this process has joined, is used.",
            stacklevel=2,
        )


def _numbers(host: str) -> set[str]:
    """The numeric addresses of a host; none where it is unknown."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def leave() -> None:
    """Give the cluster up; one that was started here ends with its last user."""
    global _users, _ours
    ray = imported()
    with _lock:
        _users = max(0, _users - 1)
        if _users == 0 and _ours:
            _ours = False
            ray.shutdown()


def started_here() -> bool:
    """Whether the cluster is one that ``join`` started."""
    return _ours


def imported() -> Any:
    """Return Ray, told to report nothing to anybody. Raises MissingDependency."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingDependency(INSTALL) from None
    return ray


def _initialise(ray: Any, options: ClusterOptions) -> None:
    """``ray.init`` without dashboard and logs in the notebook. Raises LoadError."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # its notes would print between a notebook's outputs
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        if not _ours:
            ray.init(address=options.address, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, **_sizes(options), **quiet)
    except Exception as error:  # noqa: BLE001 - Ray raises anything
        place = "on this machine" if _ours else f"at {options.address}"
        raise LoadError(f"no Ray cluster {place}: {said(error)}") from None


def _sizes(options: ClusterOptions) -> dict[str, Any]:
    """Room for these replicas and for other models', whatever the number of cores: Ray's CPU is a ticket."""
    wanted = int(options.replicas * options.num_cpus) + 1
    return {"num_cpus": SPACE * max(os.cpu_count() or 1, wanted), "object_store_memory": STORE_BYTES}


def missing(options: ClusterOptions) -> str | None:
    """Say what the replicas need and the cluster lacks at present; None when there is enough."""
    have = imported().cluster_resources()
    for ours, rays in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
        needed = options.replicas * float(getattr(options, ours))
        if needed > have.get(rays, 0):
            return (
                f"{options.replicas} replicas need {needed:g} {rays}, the cluster has {have.get(rays, 0):g}"
            )
    return None
