"""The batches of some steps, looked at once, however many blocks train on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.tree import flatten
from optfx.tree.nodes import entries, nodes

WORDS = (bool, int, float, str, type(None))  # what may stand in a batch beside tensors


class Window:
    """What compiled code takes as the batches of some steps.

    Args:
        batches: one for each step, `(shared, own)` (see `Recipe`).

    Attributes:
        kind: of all batches (see `kind_of`); None where they are of several.
        addresses: (steps, tensors of a batch) int64, where their tensors are.
    """

    def __init__(self, batches: list[Any]) -> None:
        kinds = {kind_of(batch) for batch in batches}
        self.batches, self.kind = batches, kinds.pop() if len(kinds) == 1 else None
        self._tensors = [plain_tensors_in(x) for x in batches] if self.kind is not None else []
        self.addresses = torch.tensor([[x.data_ptr() for x in xs] for xs in self._tensors], dtype=torch.int64)


def rows_of(x: Tensor, begin: int, size: int) -> Tensor:
    """The rows of a block; where there are fewer, the last one stands for those that are missing."""
    if begin + size <= len(x):
        return x[begin : begin + size]
    return x[torch.arange(begin, begin + size).clamp(max=len(x) - 1)]


def tensors_in(batch: Any) -> list[Tensor]:
    return [x for x in flatten(batch)[0] if isinstance(x, Tensor)]


def plain_tensors_in(batch: Any) -> list[Tensor]:
    """Tensors whose elements stand in memory as they are and in order, for which programs are made."""
    return [x.resolve_conj().resolve_neg().contiguous() for x in tensors_in(batch)]


def of_tensors(batch: Any) -> Any:
    """A batch of one member, which `vmap` maps: whatever else is in it has no leading dimension."""
    for path, x in ends(batch):
        if not isinstance(x, Tensor):
            raise TypeError(f"batches: {path!r} is {type(x).__name__}; of a key or a config it makes tensors alone")
    return batch


def ends(x: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree by path, and each None, which is one to `torch.func.vmap`."""
    return [(".".join(names), end) for names, end in nodes(x) if end is None or entries(end) is None]


def strangers(batch: Any) -> list[Any]:
    """What may change in a batch though it looks the same."""
    return [x for x in flatten(batch)[0] if not isinstance(x, (Tensor, *WORDS))]


def kind_of(batch: Any) -> Any:
    """What a program is made for: the forms of the tensors of a batch, and values of what else is in it; None where
    something else may change."""
    (shared, structure), (own, of_own) = map(flatten, batch)
    if strangers(shared):
        return None
    forms = [(x.shape, x.dtype) if isinstance(x, Tensor) else (type(x), x) for x in shared]
    forms += [(x.shape[1:], x.dtype) for x in own]  # made by vmap, so tensors
    return structure, of_own, *forms
