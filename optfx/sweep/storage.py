"""Files of tensors and facts: no pickle of anything but tensors, numbers and text, and whole or not there at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from optfx.tree import files


def write(path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors by name, and facts that are JSON, into one file in the format of `torch.save`."""
    files.write(path, {"facts": json.dumps(facts), "tensors": {k: v.contiguous() for k, v in tensors.items()}})


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a file that `write` made, with `facts["kind"] == kind`. No code of it is run.

    Raises:
        ValueError: another kind of file, or a damaged one.
    """
    found = files.read(path)
    facts = json.loads(found["facts"]) if isinstance(found, dict) and "facts" in found else {}
    if not isinstance(facts, dict) or facts.get("kind") != kind:
        raise ValueError(f"{path} holds no {kind}")
    return found["tensors"], facts
