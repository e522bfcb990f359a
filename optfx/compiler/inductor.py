"""Kernels by Inductor: for accelerators, and on the CPU for what `cpp` does not write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from optfx.compiler.memory import flat

HINT = 1 << 20  # the length that kernels are tuned for: long enough to be worth threads


def decompositions() -> dict[Any, Any]:
    from torch._inductor.decomposition import select_decomp_table

    return select_decomp_table()


def compiled(gm: GraphModule, args: Sequence[Tensor]) -> Callable[[list[Any]], Any]:
    """`gm` compiled, for lengths as symbolic as the graph's: a function of the list of its arguments."""
    from torch._inductor import config, standalone_compile

    with config.patch(size_asserts=False):  # they are half the time of a call
        artifact = standalone_compile(gm, list(args), dynamic_shapes="from_graph")
    # around the generated code stand wrappers that take longer than it does: the innermost is called
    todo: list[Any] = [artifact._compiled_fn]
    seen: set[int] = set()
    while todo:
        f = todo.pop()
        if hasattr(f, "current_callable"):
            inner = f.current_callable
            return lambda args: inner([*args])  # it empties the list
        if callable(f) and id(f) not in seen:
            seen.add(id(f))
            todo += [c.cell_contents for c in getattr(f, "__closure__", None) or ()]
            todo += [getattr(f, "compiled_fn", None), getattr(f, "__wrapped__", None)]
    raise RuntimeError("Inductor's compiled graph was not found where torch 2.13 keeps it")


def launcher(loop: GraphModule, args: Sequence[Tensor]) -> Callable[..., Callable[[], None]]:
    """The `launch` of a kernel: a call for each leaf."""
    run = compiled(loop, args)

    def launch(rows: list[list[int]], values: list[Any], parts: Any, scalars: Any, brought: set[int]) -> Any:
        calls = []
        for row, mine in zip(
            rows, zip(*(p.unbind() for p in parts), strict=True) if parts else [()] * len(rows), strict=True
        ):
            given = [None if i in brought else flat(values[i]) for i in row]
            calls.append(([*given, *mine, *scalars], [(k, i) for k, i in enumerate(row) if i in brought]))

        def call() -> None:
            for given, moving in calls:
                for k, i in moving:
                    given[k] = flat(values[i])
                run(given)

        return call

    return launch
