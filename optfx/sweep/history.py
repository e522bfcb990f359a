"""What was seen while members trained: at each look, who was there, with which settings and metrics; who went on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import tree
from optfx.sweep.population import Population

STOPPED = -1  # in the place of the number of a member


class Look(NamedTuple):
    """What a callback is given: the members that are in training, after some steps.

    Attributes:
        step: how old they are.
        population: the members.
        metrics: `{name: (m,)}`, what `evaluate` says.
        values: (m,) float64, of the metric that decides: less is better, inf for what diverged.
    """

    step: int
    population: Population
    metrics: dict[str, Tensor]
    values: Tensor

    @property
    def best(self) -> int:
        """Where in the population the best member is."""
        return int(self.values.argmin())


@tree.record
class History:
    """The looks at a sweep of n members, in their order. A member that had been stopped has NaN.

    Attributes:
        steps: (looks,) int64, how old members were.
        metrics: `{name: (looks, n)}` float64, what `evaluate` said.
        values: (looks, n) float64, of the metric that decides: less is better, inf for what diverged.
        configs: `{name: (looks, n)}` float64, the settings that each had trained with until then.
        parent: (looks, n) int64, the number of the member that each was after the look: its own; that of another, of
            which it became a copy; or -1, if it was stopped.
    """

    steps: Tensor
    metrics: dict[str, Tensor]
    values: Tensor
    configs: dict[str, Tensor]
    parent: Tensor

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"History({len(self)} looks at {self.values.shape[-1]} members)"

    def __getitem__(self, index: Any) -> History:
        """The history of some members."""
        wide = lambda x: x[:, index] if x.ndim == 2 else x
        return tree.map(wide, self)

    def after(self, **row: Any) -> History:
        """With one more look: a row for each field."""
        grown = {}
        for name, x in row.items():
            own = getattr(self, name)
            if isinstance(x, dict):
                grown[name] = {k: torch.cat([own[k], v[None]]) if len(self) else v[None] for k, v in x.items()}
            else:
                grown[name] = torch.cat([own, x[None]]) if len(self) else x[None]
        return History(**grown)


def nothing() -> History:
    """No looks."""
    none = torch.empty(0, 0, dtype=torch.int64, device="cpu")
    return History(none.flatten(), {}, none.double(), {}, none)


def beside(histories: Sequence[History], members: Sequence[Tensor]) -> History:
    """The histories of different members as one: of all steps at which some of them were looked at.

    Args:
        histories: one for each sweep.
        members: the numbers of their members.
    """
    steps = torch.cat([h.steps for h in histories]).unique()

    def rows(h: History, x: Tensor | None) -> Tensor:
        n = h.values.shape[1]
        empty = torch.full((len(steps), n), math.nan, dtype=torch.float64)
        return empty if x is None else empty.index_copy(0, torch.searchsorted(steps, h.steps), x)

    def every(name: str) -> dict[str, Tensor]:
        names = dict.fromkeys(k for h in histories for k in getattr(h, name))
        return {k: torch.cat([rows(h, getattr(h, name).get(k)) for h in histories], 1) for k in names}

    parent = [rows(h, h.parent.double()).nan_to_num(STOPPED).long() for h in histories]
    for h, x, own in zip(
        histories, parent, members, strict=True
    ):  # where others were looked at, a member is what it was
        seen = torch.searchsorted(h.steps, steps, right=True) - 1
        for i, (k, step) in enumerate(zip(seen.tolist(), steps.tolist(), strict=True)):
            if step not in h.steps.tolist():
                last = h.parent[max(k, 0)]
                x[i] = torch.where(last == STOPPED, STOPPED, own) if k >= 0 else own
    values = torch.cat([rows(h, h.values) for h in histories], 1)
    return History(steps, every("metrics"), values, every("configs"), torch.cat(parent, 1))
