"""How many members fit in memory: measured on one and on two, and extrapolated along a straight line."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHARE = 0.8  # of what is free: kernels need workspace, and other programs run too


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations make while it is entered, and of those still alive.

    Attributes:
        now: bytes alive.
        peak: the most that ever were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._count(x.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.now += size
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def peak_bytes(run: Callable[[int], Any], members: int) -> int:
    """The most bytes alive at once while `run(members)` makes tensors, in eager code: an upper bound on compiled."""
    with LiveBytes() as live:
        run(members)
    return live.peak


def available_bytes(device: torch.device) -> int:
    """The memory that is free on a device now.

    Raises:
        ValueError: a device that does not tell.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.exists():
        raise ValueError(f"how much memory is free on {device} is not known here: give chunk_size")
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")  # a container's own limit; its file cache is given back when needed
    if (group / "memory.max").exists() and (most := (group / "memory.max").read_text().strip()) != "max":
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])
        free = min(free, int(most) - used)
    return free


def fitting(one: int, two: int, free: float) -> int:
    """How many members fit in `free` bytes when one takes `one` bytes at its peak and two take `two`.

    Example:
        >>> fitting(one=150, two=200, free=1000)
        18
    """
    each = max(two - one, 1)
    return max(0, int((free - (one - each)) // each))
