"""Where programs and scalar work become compiled functions."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from optfx.compiler.kernels import cpp, inductor, mapped
from optfx.compiler.kernels.binding import Bound, Owned, Unsupported
from optfx.compiler.kernels.program import Program
from optfx.compiler.kernels.split import example, large, split
from optfx.compiler.members import Alone, Members
from optfx.compiler.record.findings import NotClosed
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.tracer import traced
from optfx.core.donate import fresh
from optfx.tree import nibbles

Launch = Callable[[list[Owned], list[Tensor], set[Input], Alone], Bound]
"""`launch(owners, values, rebound, members)` binds a kernel to the leaves of some owners. `values` has the tensor that
each input is; those of the inputs `rebound` are others in each step."""


def writer_for(device: torch.device) -> Any:
    """The module that writes kernels for a device; None where Inductor writes all of them."""
    if device.type == "cpu":
        return cpp
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from optfx.compiler.kernels import triton

        return triton
    return None


class Kernel(NamedTuple):
    """A compiled program, which writes in place."""

    prelude: GraphModule  # the program's scalars -> those of the loop, in float64
    dtypes: tuple[torch.dtype, ...]  # in which the loop takes them
    launch: Launch
    together: bool  # whether one call does the leaves of all owners
    by: str  # for people


class Workshop:
    """The kernels of one optimizer, each compiled once, and the compilers that are still at work.

    Args:
        members: whose kernels they are.
    """

    def __init__(self, members: Alone) -> None:
        self.members = members
        self._kernels: dict[tuple[Program, torch.device], Kernel] = {}
        self._compilers = cpp.Compilers()

    def kernel(self, program: Program, device: torch.device) -> Kernel:
        """The kernel of a program."""
        key = program, device
        if key not in self._kernels:
            self._kernels[key] = self._make(program, device)
        return self._kernels[key]

    def _make(self, program: Program, device: torch.device) -> Kernel:
        masks, k = program.masks, len(program.parts)
        prelude, loop, dtypes = split(program, device)
        reason, writer = "", writer_for(device)
        if writer is not None:
            try:
                return Kernel(prelude, dtypes, writer.launcher(loop, masks, k, self._compilers), True, writer.NAME)
            except Unsupported as why:
                reason = f", for {why} is not written in {writer.NAME}"
        if nibbles.UINT4 in program.dtypes:  # which torch does not compute with
            raise NotClosed([nibbles.packed, nibbles.unpacked])
        if isinstance(self.members, Members):
            return Kernel(prelude, dtypes, mapped.launcher(loop, program.views), False, f"vmap{reason}")
        if device.type == "cpu":
            cpp.check_compiler()  # which Inductor needs, too
        prelude, loop, dtypes = split(program, device, decomposed=True)
        leaves, places, _ = example(program, device, large(program))
        scalars = [torch.ones((), dtype=d, device=device) for d in dtypes]
        launch = inductor.launcher(loop, [*leaves, *places, *scalars], program.views)
        return Kernel(prelude, dtypes, launch, False, f"Inductor{reason}")

    def scalar_work(
        self,
        f: Callable[..., list[Tensor]],
        args: list[Tensor],
        targets: list[Tensor],
        known: dict[Any, GraphModule],
        name: Any,
    ) -> Bound:
        """`f(*args)` written to `targets`, compiled as one function. What is traced of one member is kept in `known`,
        by its `name`: it is the same for any number of them."""
        every = list({id(x): x for x in (*args, *targets)}.values())
        at = {id(x): k for k, x in enumerate(every)}

        def run(*given: Tensor) -> tuple[()]:
            ys = f(*(given[at[id(x)]] for x in args))
            ys = [fresh(y) if any(y is x for x in given) else y for y in ys]
            for x, y in zip(targets, ys, strict=True):
                given[at[id(x)]].copy_(y)
            return ()

        # copies, for what is traced runs, and Inductor takes tensors of one memory for one tensor
        examples = [self.members.one(x).clone() for x in every]
        writer = writer_for(every[0].device) if len({x.device for x in every}) == 1 else None
        if writer is not None:
            key = name, *(at[id(x)] for x in (*args, *targets))
            if key not in known:
                known[key] = traced(run, examples)
            with contextlib.suppress(Unsupported):
                return writer.scalar_work(known[key], every, self._compilers, self.members)
        from torch.fx.experimental.proxy_tensor import make_fx

        graph = make_fx(run)(*examples)
        if isinstance(self.members, Members):
            return Bound(lambda: self.members.run(graph, *every), lambda: None)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        every += _lifted(graph)
        compiled = inductor.compiled(graph, [x.clone() for x in every])
        return Bound(lambda: compiled(every), lambda: None)

    def finish(self) -> None:
        """Wait for the compilers.

        Raises:
            RuntimeError: with what a compiler said.
        """
        self._compilers.finish()


def _lifted(gm: GraphModule) -> list[Tensor]:
    """The constants that a graph holds, which become arguments: Inductor passes them on as such."""
    found: list[Tensor] = []
    work = next(x for x in gm.graph.nodes if x.op != "placeholder")
    for x in [x for x in gm.graph.nodes if x.op == "get_attr"]:
        found.append(getattr(gm, x.target))
        with gm.graph.inserting_before(work):
            argument = gm.graph.placeholder(f"constant_{len(found)}")
        argument.meta = dict(x.meta)
        x.replace_all_uses_with(argument)
        if x is work:
            work = x.next
        gm.graph.erase_node(x)
    for name in [name for name, _ in gm.named_buffers()]:  # also those that nothing reads
        delattr(gm, name)
    gm.recompile()
    return found
