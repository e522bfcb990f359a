"""Files of tensors and facts: no pickle of anything but tensors, numbers and text, and whole or not there at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def write(path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors by name, and facts that are JSON, into one file in the format of `torch.save`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # the same disk, so that the move is atomic
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"facts": json.dumps(facts), "tensors": {k: v.contiguous() for k, v in tensors.items()}}, file)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a file that `write` made, with `facts["kind"] == kind`. No code of it is run.

    Raises:
        ValueError: another kind of file.
    """
    found = torch.load(path, map_location="cpu", weights_only=True)
    facts = json.loads(found["facts"]) if isinstance(found, dict) and "facts" in found else {}
    if not isinstance(facts, dict) or facts.get("kind") != kind:
        raise ValueError(f"{path} holds no {kind}")
    return found["tensors"], facts
