"""A hook for a recorder, which notes what a computation does instead of running it.

While a recorder is active, the verbs hand it each call of a leaf function (`run_leaf`, or `run_matrices` for all leaves
of one shape) and each reduction (`reduce`), and asks it for the part of a sharded leaf that a process has (`part`,
`from_part`) and for numbers of four bits, two in a byte (`packed`, `unpacked`; None where it knows no better way). The
layers above may hand it work that is done at times (`when_due`), and a whole update (`update`).
Everything else (masks, paths, schedules, counts) runs as usual.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

_recorder: ContextVar[Any] = ContextVar("optfx_recorder", default=None)


def recorder() -> Any:
    """The active recorder; None in an ordinary run, in which the verbs compute."""
    return None if torch.compiler.is_compiling() else _recorder.get()


@contextmanager
def recording(by: Any) -> Iterator[None]:
    """Let `by` record what runs inside. It has the methods named above."""
    token = _recorder.set(by)
    try:
        yield
    finally:
        _recorder.reset(token)
