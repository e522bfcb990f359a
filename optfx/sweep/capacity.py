"""How many members fit in memory: measured for one and for two, and extrapolated linearly."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from optfx.tree.dispatch import DispatchMode
from optfx.tree.record import is_wrapped

SHARE = 0.8  # of free memory: kernels need workspace, and other programs run too


class LiveBytes(DispatchMode):
    """Counts the bytes of the storages that operations allocate inside the context, and that are still alive.

    Attributes:
        now: bytes alive.
        peak: the largest that `now` has been.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            plain = isinstance(x, Tensor) and x.layout == torch.strided
            if plain and not is_wrapped(x):  # `x.data` of one that is, which takes no memory
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
    """The peak of the bytes alive during `run(members)` in eager code: an upper bound for compiled code."""
    with LiveBytes() as live:
        run(members)
    return live.peak


def available_bytes(device: torch.device) -> int:
    """The memory that is free on a device.

    Raises:
        ValueError: it is unknown for this device.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.exists():
        raise ValueError(f"the free memory of {device} is unknown: give chunk_size")
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")  # a container's own limit; its file cache is freed when needed
    if (group / "memory.max").exists() and (most := (group / "memory.max").read_text().strip()) != "max":
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])
        free = min(free, int(most) - used)
    return free


def fitting(one: int, two: int, free: float) -> int:
    """How many members fit in `free` bytes if one needs `one` bytes at its peak and two need `two`.

    Example:
        >>> fitting(one=150, two=200, free=1000)
        18
    """
    each = max(two - one, 1)
    return max(0, int((free - (one - each)) // each))


class Room:
    """How many members fit in memory.

    Args:
        trial: trains so many members for a step.
        one: the peak of the bytes of one.
        kept: the bytes that a member has between two steps.
    """

    def __init__(self, trial: Callable[[int], Any], one: int, kept: int) -> None:
        self._trial, self._one, self._kept = trial, one, kept
        self._two: int | None = None  # as `one`, measured when it matters

    def most(self, n: int, device: torch.device) -> int:
        """How many of n members may train at once.

        Raises:
            MemoryError: not even one fits.
        """
        free = SHARE * available_bytes(device)
        if device.type == "cpu":
            free -= 2 * n * self._kept  # the population, and a copy of it
        if n * self._one <= free:  # a further member needs less than the first, with which the batch is counted
            return n
        if self._two is None:
            with torch.no_grad():
                self._two = peak_bytes(self._trial, 2)
        if most := min(n, fitting(self._one, self._two, free)):
            return most
        raise MemoryError(f"one member needs {self._one / 2**20:.0f} MiB, and {max(free, 0) / 2**20:.0f} are free")


def chunks(n: int, size: int, filled: bool = False) -> Iterator[tuple[Tensor, int]]:
    """The members of each chunk, the last filled up with copies of the last member, and how many are not copies."""
    for begin in range(0, n, size):
        index = torch.arange(begin, begin + size, device="cpu").clamp(max=n - 1)
        real = min(size, n - begin)
        yield index if filled else index[:real], real
