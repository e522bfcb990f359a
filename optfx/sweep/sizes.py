"""How many members a block has: by a rule at first, then by what was fastest on this machine.

Small blocks stay in the caches, and large ones save calls. What is worth more depends on the processor, so a long run
tries blocks of half and twice the size while it trains, in turn with its own, and later runs of such members begin with
what was fastest. No number depends on it: a member has the same bits in blocks of any size.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections import deque
from statistics import median
from typing import Any

import torch

MOST, CACHED = 32, 1 << 21  # members in a block, where there are many, and their bytes: more leave the cache
CALLED = 8  # members in a block, whatever their bytes: with fewer, calls take longer than products
FEWEST = 2  # a product of one matrix is rounded as no other
FIXED = 16  # in a block, where the numbers of a member depend on how many there are
TURNS, BETTER = 5, 0.97  # windows of each of two sizes, and what share of the time makes the other one the better


def most_by_rule(member: int) -> int:
    """How many members a block has at most.

    Args:
        member: the bytes of one, with its state.

    Example:
        >>> most_by_rule(1 << 10), most_by_rule(1 << 17), most_by_rule(1 << 20)
        (32, 16, 8)
    """
    return min(max(CACHED // max(member, 1), CALLED), MOST)


def block_size(n: int, workers: int, most: int = MOST) -> int:
    """How many members a block has: all workers get as many blocks.

    Args:
        n: members.
        workers: threads.
        most: members of a block.

    Example:
        >>> block_size(256, 2), block_size(20, 2), block_size(160, 2), block_size(1, 8), block_size(256, 2, 16)
        (32, 10, 27, 2, 16)
    """
    blocks = workers * math.ceil(n / (workers * most))
    return max(math.ceil(n / blocks), FEWEST)


class Sizes:
    """How many members blocks have at most, as far as it is known, and what is yet to be tried.

    Args:
        kind: what tells members apart that may want other blocks: the forms of their tensors and of a batch.
        member: the bytes of one, with its state.
    """

    def __init__(self, kind: Any, member: int) -> None:
        from optfx.compiler.kernels.cpp.build import folder, processor

        told = repr((kind, processor(), torch.get_num_threads(), torch.__version__))
        self._file = folder() / f"blocks-{hashlib.sha256(told.encode()).hexdigest()[:32]}.json"
        self._best = most_by_rule(member)
        self._open = [self._best // 2, self._best * 2]
        self._n = self._workers = self._whose = 0
        self._times = _times()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged
            known = json.loads(self._file.read_text())
            self._best, self._open = int(known["most"]), [*map(int, known["open"])]

    @property
    def trying(self) -> bool:
        """Whether the best size is yet to be found, with these members."""
        return self._other() != self._size(self._best)

    def begin(self, n: int, workers: int) -> int:
        """The size of the blocks of n members."""
        if (n, workers) != (self._n, self._workers):
            self._n, self._workers, self._times = n, workers, _times()
        return self._size(self._best)

    def turn(self) -> int:
        """The size of the blocks in the next window, which `note` will be told the time of."""
        self._whose = int(self.trying and len(self._times[0]) > len(self._times[1]))
        return self._other() if self._whose else self._size(self._best)

    def note(self, seconds: float) -> None:
        """What a step took. After some turns the better size is known, and kept."""
        self._times[self._whose].append(seconds)
        if len(self._times[1]) < TURNS:
            return
        own, other = map(median, self._times)
        tried, self._times = self._open.pop(0), _times()
        if other < BETTER * own:  # so it may be that less still, or more still, is better still
            further = tried // 2 if tried < self._best else tried * 2
            self._best, self._open = tried, [further] if FEWEST <= further <= 4 * MOST else []
        draft = self._file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"most": self._best, "open": self._open}))
        os.replace(draft, self._file)

    def _other(self) -> int:
        return self._size(self._open[0] if self._open else self._best)

    def _size(self, most: int) -> int:
        return block_size(self._n, self._workers, most)


def _times() -> tuple[deque[float], deque[float]]:
    """Of a step with the best size, and with the one that is tried."""
    return deque(maxlen=TURNS), deque(maxlen=TURNS)
