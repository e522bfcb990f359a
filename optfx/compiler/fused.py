"""The optimizer as it runs: in place, by one kernel for all leaves that go through the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from optfx.compiler.plan import Plan
from optfx.compiler.reading import read
from optfx.core import GradientTransformation, as_transform, params as params_of
from optfx.tree import Tree, difference, flatten, map, uneven, unflatten

SMALL = 32768  # leaves of fewer elements are packed


class fuse:
    def __init__(self, tx: Any):
        self.tx: GradientTransformation = as_transform(tx)
        self._plan: Plan | None = None

    @torch.no_grad()
    def init(self, params: Tree, state: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        self._module = params if isinstance(params, nn.Module) else None
        params = params_of(params) if isinstance(params, nn.Module) else params
        state = self.tx.init(params) if state is None else state
        return self._adopt(params, map(_own, params), map(_own, state), self._guessed(extra))

    def _guessed(self, extra):
        if "value" in self.tx.extra_args and "value" not in extra:
            extra = {**extra, "value": 0.0}
        return extra

    def _adopt(self, grads: Tree, params: Tree, state: Tree, extra: dict[str, Any]) -> tuple[Tree, Tree]:
        self._plan = plan = Plan(read(self.tx, grads, state, params, extra), SMALL)
        n = plan.reading.inputs.n
        (_, self._pspec), (s, self._sspec) = flatten(params), flatten(state)
        self._own = plan.values[n:2*n+len(s)]
        self.params = unflatten(self._pspec, plan.values[n : 2 * n])
        self.state = unflatten(self._sspec, plan.values[2 * n : 2 * n + len(s)])
        self._form = [(x.shape, x.dtype, x.device) for x in flatten(grads)[0]]
        return self.params, self.state

    @torch.no_grad()
    def step(self, grads: Tree, state: Tree, params: Tree, **extra: Any) -> tuple[Tree, Tree]:
        plan = self._plan
        (g, gspec), (p, pspec), (s, sspec) = flatten(grads), flatten(params), flatten(state)
        for old, new in zip(self._own, (*p, *s), strict=True):
            if old is not new:
                old.copy_(new)
        brought = list(enumerate(g))
        more = [x for name in sorted(extra) for x in flatten(extra[name])[0]]
        for (kind, which), x in zip(plan.reading.inputs.extra, more, strict=True):
            if kind == "leaf": brought.append((which, x))
            elif kind == "scalar":
                plan.reading.inputs.scalars[which].copy_(torch.as_tensor(x))
        plan.run(brought, extra)
        return self.params, self.state


def _own(x: Tensor) -> Tensor:
    return x.detach().clone(memory_format=torch.contiguous_format)
