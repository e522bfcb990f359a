"""Sources of Triton as functions. Triton compiles them when they are first launched, and keeps what it made."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import tempfile
from typing import Any

import torch
from torch import Tensor

from optfx.compiler.kernels.cpp.build import folder

HEAD = """import triton
import triton.language as tl

from optfx.compiler.kernels.triton.functions import *
"""


@functools.cache
def module(source: str) -> Any:
    """A source as a module, from a file, for Triton reads the text of its functions."""
    text = HEAD + source
    path = folder() / f"triton_{hashlib.sha256(text.encode()).hexdigest()[:32]}.py"
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=folder(), suffix=".py")
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, path)  # whole or not at all: others may be at the same work
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


class Table:
    """Whole numbers on a device, which are sent there only where they are others than before.

    Args:
        n: how many.
        device: where.
    """

    def __init__(self, n: int, device: torch.device):
        self.there = torch.zeros(n, dtype=torch.int64, device=device)
        self._sent: list[int] = []

    def send(self, numbers: list[int]) -> Tensor:
        """The table, with these numbers in it."""
        if numbers != self._sent:
            self.there.copy_(torch.tensor(numbers, dtype=torch.int64), non_blocking=True)
            self._sent = list(numbers)
        return self.there
