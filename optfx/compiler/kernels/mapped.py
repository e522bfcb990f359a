"""Kernels as graphs that torch runs under `vmap`: for many optimizers, what is not written in C++."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.fx import GraphModule

from optfx.compiler.kernels.binding import Bound, Owned, seen
from optfx.compiler.members import Alone
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.spaces import Sizes


def launcher(loop: GraphModule, views: Callable[[Sizes], list[Sizes]]) -> Callable[..., Bound]:
    """The `launch` of a kernel: a call for each leaf of one member, under `vmap` over all members."""

    def launch(owners: list[Owned], values: list[Tensor], rebound: set[Input], members: Alone) -> Bound:
        def run() -> None:
            for rows, sizes, scalars, partials in owners:
                for k, row in enumerate(rows):
                    leaves = [seen(values[i], s, members) for i, s in zip(row, views(sizes[k]), strict=True)]
                    members.run(loop, *leaves, *(p[..., k] for p in partials), *scalars)

        return Bound(run, lambda: None)

    return launch
