"""What is found out about a step on the way, so that it is recorded again."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.compiler.record.lazy import Form

Place = tuple[int, ...]
"""Where a transform is called: as the how-manieth of the transform that calls it, and so on outwards."""


@dataclasses.dataclass
class Known:
    """What earlier runs of a step have found out."""

    opaque: dict[Place, str] = dataclasses.field(default_factory=dict)  # transforms that run as they are, and why
    results: dict[Place, list[Form]] = dataclasses.field(default_factory=dict)  # what they give, where it was seen
    opened: set[Any] = dataclasses.field(default_factory=set)  # leaf functions that run operation by operation
    outside: dict[int, Tensor] = dataclasses.field(default_factory=dict)  # tensors that no step is given, by id
    complete: bool = False  # a run that met such tensors has come to its end


class Again(BaseException):
    """Something was found out that makes the record so far wrong. No `except Exception` of a user may catch it."""


class NotClosed(Exception):
    """Leaf functions that look beyond one element, or at tensors that they are not given."""

    def __init__(self, functions: list[Any]):
        super().__init__(f"one of {functions}")
        self.codes = set(map(code_of, functions))


class Drifted(Exception):
    """The state has other dtypes after an update than before; so it has them from the start."""

    def __init__(self, dtypes: list[torch.dtype]):
        super().__init__("the dtypes of the state change")
        self.dtypes = dtypes


class Changed(Exception):
    """What runs as it is gave results of other forms than it was thought to. Nothing has been written yet."""

    def __init__(self, what: str, place: Any, forms: list[Form]):
        super().__init__(f"{what} gave {', '.join(map(str, forms))}")
        self.place, self.forms = place, forms


class Together(Exception):
    """Parameters that can take a step only with all others."""


class Resting(NamedTuple):
    """What takes no part in a step and stays as it is, by number."""

    params: frozenset[int]
    state: tuple[int, ...]  # leaves of the state that belong to them alone


def code_of(f: Any) -> Any:
    """What stays the same of a function that is made anew in each step."""
    return getattr(f, "__code__", f)
