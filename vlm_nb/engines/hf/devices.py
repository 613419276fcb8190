"""Devices: which one, in which type it computes, and how much memory it has."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import platform
import threading
from pathlib import Path
from typing import Any

import torch

from ...errors import OptionError

BF16_CAPABILITY = (8, 0)
NO_MEMORY = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory"),
    *("cublas_status_alloc_failed", "cudnn_status_alloc_failed"),
)


def default_device() -> torch.device:
    """The first CUDA device, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def current_gpu() -> int | None:
    """The CUDA device that the calling thread has chosen; None if it has not used any yet."""
    cuda: Any = torch.cuda
    return int(cuda.current_device()) if cuda.is_initialized() else None


def use(gpu: torch.device | int | None) -> None:
    """Let the calling thread use this CUDA device where none is named, as graphs and streams do."""
    if isinstance(gpu, int) or (gpu is not None and gpu.type == "cuda"):
        torch.cuda.set_device(gpu)


def target_device(device_map: Any) -> torch.device:
    """The device that ``device_map`` puts (the start of) the model on. Raises OptionError."""
    if isinstance(device_map, dict):
        device_map = next(iter(device_map.values()), "cpu")
    if device_map is None or device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        return default_device()
    try:
        found = torch.device("cuda", device_map) if isinstance(device_map, int) else torch.device(device_map)
    except (RuntimeError, TypeError):
        raise OptionError(
            f'device_map={device_map!r}: expected "auto", "balanced", "cuda", "cuda:1", "mps", "cpu", '
            "a number, or a mapping of module names to those."
        ) from None
    if found.type != "cuda":
        return found
    count = torch.cuda.device_count()
    if (found.index or 0) >= count:
        raise OptionError(
            f"device_map={device_map!r}: torch sees {count} CUDA devices here; leave device_map out to use "
            f"the best there is ({default_device()})."
        )
    return default_device() if found.index is None else found


def compute_dtype(asked: Any, device: torch.device) -> Any:
    """The torch dtype to load in; "auto" stays "auto" (the checkpoint's own). Raises OptionError.

    None means bfloat16 where the device computes it, float16 on older GPUs; on a CPU, bfloat16 if it has
    instructions for it, else float32.
    """
    if asked == "auto" or isinstance(asked, torch.dtype):
        return asked
    if asked is not None:
        named = getattr(torch, str(asked).removeprefix("torch."), None)
        if not isinstance(named, torch.dtype) or not named.is_floating_point:
            raise OptionError(f'dtype={asked!r}: expected "auto", "bfloat16", "float16" or "float32".')
        return named
    if device.type == "cuda":
        modern = torch.cuda.get_device_capability(device) >= BF16_CAPABILITY or torch.version.hip is not None
        return torch.bfloat16 if modern else torch.float16
    if device.type == "mps":
        return torch.bfloat16 if _macos() >= (14, 0) else torch.float16
    return torch.bfloat16 if cpu_computes_bf16() else torch.float32


def cpu_computes_bf16() -> bool:
    """Whether the CPU has matrix instructions for bfloat16 (AVX512-BF16, AMX, or Arm's BF16)."""
    with contextlib.suppress(OSError):
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
        return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
    return False


def _macos() -> tuple[int, ...]:
    return tuple(int(part) for part in (platform.mac_ver()[0] or "0").split(".")[:2])


def used_memory(device: torch.device) -> int | None:
    """Bytes in use: by torch on a GPU, by this process on the CPU; None where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return int(torch.mps.current_allocated_memory())
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def free_memory(device: torch.device) -> int | None:
    """Bytes that could still be taken on ``device``; None where nobody tells."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
        share = process_share(device) * total  # torch.cuda.set_per_process_memory_fraction
        return int(max(0, min(free + reserved, share) - used))
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return _free_host_memory()


def process_share(device: torch.device) -> float:
    """The part of a GPU's memory that this process may take; all of it where torch cannot say."""
    told: Any = getattr(torch.cuda, "get_per_process_memory_fraction", None)
    return 1.0 if told is None else float(told(device))


def _free_host_memory() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        free = _meminfo("MemAvailable")
        limit = _cgroup_room()
        return free if limit is None else min(free, limit)
    with contextlib.suppress(ImportError):
        psutil: Any = importlib.import_module("psutil")
        return int(psutil.virtual_memory().available)
    return None


def _meminfo(key: str) -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


def _cgroup_room() -> int | None:
    """What a container may still take: its limit less what it uses (without the file cache)."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text().strip()
        if limit == "max":
            return None
        stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return int(limit) - int((root / "memory.current").read_text()) + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def release_memory() -> None:
    """Give unused device memory back to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc keeps what was freed
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on a GPU or in the host's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(hint in text for hint in NO_MEMORY)


class _WithoutCuDNN:
    """Leaves cuDNN's attention out while anybody is inside: torch has one setting for the whole process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                settings: Any = torch.backends.cuda
                self._before = settings.cudnn_sdp_enabled()
                settings.enable_cudnn_sdp(False)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.cuda.enable_cudnn_sdp(self._before)


_without_cudnn = _WithoutCuDNN()


def attention_kernels(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """On CUDA, sdpa without cuDNN's kernels: those are planned for every shape, and no two steps have one.

    What torch was set to before holds again once no engine is inside.
    """
    return _without_cudnn if device.type == "cuda" else contextlib.nullcontext()


def in_gib(size: float) -> str:
    """``size`` bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def room(device_map: Any, device: torch.device) -> tuple[int | None, str]:
    """Free bytes where ``device_map`` may put the model, and that place's name."""
    spread = device_map in ("auto", "balanced", "balanced_low_0", "sequential")
    if not spread or device.type != "cuda":
        return free_memory(device), str(device)
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    parts = [free_memory(place) for place in (*gpus, torch.device("cpu"))]
    return sum(part or 0 for part in parts), f"{len(gpus)} GPU(s) and the CPU"


def input_device(model: Any, device: torch.device) -> torch.device:
    """Where the model wants its inputs: where its embeddings are."""
    embeddings = model.get_input_embeddings()
    weight = getattr(embeddings, "weight", None)
    found = weight.device if isinstance(weight, torch.Tensor) else device
    return device if found.type == "meta" else found
