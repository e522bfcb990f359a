"""Kernels as graphs that torch runs under `vmap`: for many optimizers, what is not written in C++."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.fx import GraphModule

from optfx.compiler.kernels.binding import Bound, Owned, flat
from optfx.compiler.members import Alone
from optfx.compiler.record.inputs import Input


def launcher(loop: GraphModule) -> Callable[..., Bound]:
    """The `launch` of a kernel: a call for each leaf of one member, under `vmap` over all members."""

    def launch(owners: list[Owned], values: list[Tensor], rebound: set[Input], members: Alone) -> Bound:
        def run() -> None:
            for rows, scalars, partials in owners:
                for k, row in enumerate(rows):
                    leaves = [flat(values[i], members) for i in row]
                    members.run(loop, *leaves, *(p[..., k] for p in partials), *scalars)

        return Bound(run, lambda: None)

    return launch
