"""Threads that wait for nobody.

Threads that share out an operation wait for each other at its end. Where another process takes one of their cores for a
moment, all of them stand still, hundreds of times a step. So each block of members is trained by one thread, and what
is read, operation by operation, is read by one thread too.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread for a while, in the thread that asks for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pool_of(workers: int) -> ThreadPoolExecutor:
    """Threads in which torch uses one thread."""
    started, before = threading.Barrier(workers), torch.get_num_threads()

    def alone(_: int) -> None:
        torch.get_num_threads()  # a thread takes over the number of all once, when it is first asked
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(workers, "optfx-sweep")
    list(pool.map(alone, range(workers)))
    torch.set_num_threads(before)  # of all threads to come, too
    return pool


def wait_for(x: Tensor) -> None:
    """Wait for the device of a tensor, before reading a clock."""
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
