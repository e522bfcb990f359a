"""Threads that wait for nobody.

Threads that share out an operation wait for each other at its end. Where another process takes one of their cores for a
moment, all of them stand still, hundreds of times a step. So each block of members is trained by one thread, what is
read, operation by operation, is read by one thread too, and large matrices are worked on side by side.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch.overrides import _get_current_function_mode_stack

A = TypeVar("A")
B = TypeVar("B")


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

    pool = ThreadPoolExecutor(workers, "optfx")
    list(pool.map(alone, range(workers)))
    torch.set_num_threads(before)  # of all threads to come, too
    return pool


def side_by_side(f: Callable[[A], B], xs: Sequence[A]) -> list[B]:
    """A function of each of these, as many at a time as torch has threads, one thread each. What is left over, and all
    where the function may run in this thread alone, is done one by one by all threads.

    Example:
        >>> side_by_side(lambda x: x + 1, [1, 2, 3])
        [2, 3, 4]
    """
    if not is_ordinary() or len(xs) < (n := torch.get_num_threads()) or n == 1:
        return [f(x) for x in xs]
    apart = len(xs) // n * n
    return [*_kept_pool(n, os.getpid()).map(torch.no_grad()(f), xs[:apart]), *map(f, xs[apart:])]


def is_ordinary() -> bool:
    """Whether torch only computes in this thread, so that other threads may do it: in no mode, without derivatives."""
    if in_transform() or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    return not (torch._C._len_torch_dispatch_stack() or _get_current_function_mode_stack())


def in_transform() -> bool:
    """Whether this runs under a transform of torch.func, or is compiled."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]


@functools.cache
def _kept_pool(workers: int, process: int) -> ThreadPoolExecutor:  # the threads of a forked process are not there
    return pool_of(workers)
