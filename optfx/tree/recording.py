"""A hook for whoever wants to read a transform instead of running it.

While a recorder is at work, the verbs hand it each row of leaves, and each transform hands it its update. Everything
else (masks, paths, schedules, counts) runs as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

_recorder: ContextVar[Any] = ContextVar("optfx_recorder", default=None)


def recorder() -> Any:
    """Who reads the verbs now; None in an ordinary run, in which they compute."""
    return None if torch.compiler.is_compiling() else _recorder.get()


@contextmanager
def recording(by: Any) -> Iterator[None]:
    """Let `by` read what is run inside. It has the methods `run_leaf`, `reduce` and `update`."""
    token = _recorder.set(by)
    try:
        yield
    finally:
        _recorder.reset(token)
