"""Kernels by Inductor: for accelerators, and on the CPU for what `cpp` does not write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch import Tensor
from torch.fx import GraphModule

from optfx.compiler.kernels.binding import Bound, Owned, seen
from optfx.compiler.kernels.cpp.build import folder
from optfx.compiler.members import Alone
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.spaces import Sizes

T = TypeVar("T")


def decompositions() -> dict[Any, Any]:
    from torch._inductor.decomposition import select_decomp_table

    return select_decomp_table()


def as_guest(compile: Callable[[], T]) -> T:
    """Let Inductor compile, without its fourteen probes of the processor, and with its cache beside ours.

    The probes compile and load one small library each, one after another, and take 16 s on a machine where Inductor is
    new. They ask whether the compiler can do what the processor says it can. If it cannot, Inductor is let ask.

    Args:
        compile: compiles when it is called, and may be called twice.
    """
    from torch._inductor import config
    from torch._inductor.exc import CppCompileError
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    name, before = "TORCHINDUCTOR_CACHE_DIR", os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if before in (None, default_cache_dir()):  # a temporary folder, if the user has not said another
        os.environ[name] = str(folder() / "inductor")
    try:
        if config.cpp.vec_isa_ok is not None:
            return compile()
        try:
            with config.patch({"cpp.vec_isa_ok": True}):
                return compile()
        except Exception as error:
            if not any(isinstance(e, CppCompileError) for e in _chain(error)):
                raise
            return compile()
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def traced(f: Callable[..., Any], args: Sequence[Tensor]) -> GraphModule:
    """A function as a graph of what Inductor knows, for tensors of any length."""
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(f, decomposition_table=decompositions(), tracing_mode="symbolic")(*args)


def compiled(gm: GraphModule, args: Sequence[Tensor]) -> Callable[[list[Any]], None]:
    """`gm` compiled, for lengths as symbolic as the graph's: a function of the list of its arguments.

    The generated code is called directly. What `standalone_compile` returns has wrappers around it that prepare
    arguments and results. They take 4 microseconds a call, ten times as long as a small leaf, and there is a call for
    each leaf. Nothing public leads past them, so their closures are searched for the generated code. Tested with torch
    2.13.

    Raises:
        RuntimeError: another torch keeps it elsewhere.
    """
    from torch._inductor import config, standalone_compile

    with config.patch(size_asserts=False):  # they take another 3 microseconds
        artifact = as_guest(lambda: standalone_compile(gm, list(args), dynamic_shapes="from_graph"))
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


def launcher(loop: GraphModule, args: Sequence[Tensor], views: Callable[[Sizes], list[Sizes]]) -> Callable[..., Bound]:
    """The `launch` of a kernel: a call for each leaf."""
    run = compiled(loop, args)

    def launch(owners: list[Owned], values: list[Tensor], rebound: set[Input], members: Alone) -> Bound:
        calls: list[tuple[list[Any], list[tuple[int, Input, Sizes]], list[tuple[int, Input, Sizes]]]] = []
        for rows, sizes, scalars, partials in owners:
            for k, row in enumerate(rows):
                leaves = [(j, i, shape) for j, (i, shape) in enumerate(zip(row, views(sizes[k]), strict=True))]
                moving = [leaf for leaf in leaves if leaf[1] in rebound]
                resting = [leaf for leaf in leaves if leaf[1] not in rebound]
                calls.append(([*(None for _ in row), *(p[k] for p in partials), *scalars], moving, resting))

        def look_up() -> None:
            for given, _, resting in calls:
                for j, i, shape in resting:
                    given[j] = seen(values[i], shape, members)

        def call() -> None:
            for given, moving, _ in calls:
                for j, i, shape in moving:
                    given[j] = seen(values[i], shape, members)
                run(given)

        return Bound(call, look_up)

    return launch
