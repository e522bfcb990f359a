"""What happens to one leaf, without saying which, and the compiled kernels of it.

A `Program` is a pure function of flat tensors and () scalars, and hashable: leaves with equal programs share one
kernel, whatever their number and length. Its scalar arithmetic is taken out of the loop into a prelude that runs once a
step, in float64.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from optfx.compiler import cpp, inductor
from optfx.compiler.recorder import Call, Lazy, Recorder, Slot
from optfx.core.donate import fresh
from optfx.tree import verbs
from optfx.tree.verbs import Scalars


class Program(NamedTuple):
    """A function of flat leaves: calls, what is written to which leaf, and parts of reductions."""

    dtypes: tuple[torch.dtype, ...]  # of the leaves it takes
    scalars: tuple[torch.dtype, ...]  # of the scalars
    calls: tuple[Any, ...]  # (f, args, ((name, Slot | value), ...), outs); an arg is a leaf's number or (call, output)
    writes: tuple[Any, ...]  # (value, the number of the leaf it is written to)
    parts: tuple[Any, ...]  # (f, args, scalars, dtype): the parts of reductions, in the order of what receives them

    def __call__(self, xs: Sequence[Tensor], ss: Sequence[Tensor]) -> tuple[list[tuple[Tensor, int]], list[Tensor]]:
        done: list[list[Tensor]] = []

        def get(ref: Any) -> Tensor:
            return xs[ref] if type(ref) is int else done[ref[0]][ref[1]]

        def given(f: Any, named: Any) -> Scalars:
            return Scalars(f, {name: ss[v.index] if isinstance(v, Slot) else v for name, v in named})

        for f, args, named, outs in self.calls:
            done.append(verbs.run_leaf(f, tuple(map(get, args)), given(f, named), outs))
        parts = [
            verbs.part_of(f, list(map(get, args)), given(f, named)).to(dtype) for f, args, named, dtype in self.parts
        ]
        return [(get(ref), to) for ref, to in self.writes], parts


class Placed(NamedTuple):
    """A program, and the inputs and slots of a recorder that it takes, in its order."""

    program: Program
    inputs: tuple[int, ...]
    slots: tuple[int, ...]


def program_of(writes: list[tuple[Lazy, int]], parts: list[Any], recorder: Recorder) -> Placed:
    """The program that computes leaves and writes them to inputs, and parts: (f, leaves, scalars, dtype)."""
    calls: dict[Call, int] = {}
    slots: dict[int, int] = {}
    inputs = {to for _, to in writes}

    def local(named: Any) -> Any:
        for _, v in named:
            if isinstance(v, Slot):
                slots.setdefault(v.index, len(slots))
        return tuple((k, Slot(slots[v.index]) if isinstance(v, Slot) else v) for k, v in named)

    def visit(x: Lazy) -> None:
        if not isinstance(x.source, Call):
            inputs.add(x.source)
        elif x.source not in calls:
            for a in x.source.args:
                visit(a)
            calls[x.source] = len(calls)

    for x in [x for x, _ in writes] + [x for _, xs, _, _ in parts for x in xs]:
        visit(x)
    at = {i: n for n, i in enumerate(sorted(inputs))}

    def ref(x: Lazy) -> Any:
        return (calls[x.source], x.k) if isinstance(x.source, Call) else at[x.source]

    done = tuple((c.f, tuple(map(ref, c.args)), local(c.scalars), c.outs) for c in calls)
    sums = tuple((f, tuple(map(ref, xs)), local(named), dtype) for f, xs, named, dtype in parts)
    program = Program(
        tuple(verbs.real_dtype(recorder.inputs[i].dtype) for i in at),
        tuple(getattr(recorder.slots[u], "dtype", torch.float64) for u in slots),
        done,
        tuple((ref(x), at[to]) for x, to in writes),
        sums,
    )
    return Placed(program, tuple(at), tuple(slots))


class Kernel(NamedTuple):
    """A compiled program, which writes in place what the program writes.

    `launch(rows, values, parts, scalars, brought)` binds it to leaves and returns a function without arguments: `rows`
    has, for each leaf, the numbers in `values` of the program's leaves; those `brought` are other tensors each time.
    """

    prelude: GraphModule  # the program's scalars -> those of the loop, in float64
    dtypes: tuple[torch.dtype, ...]  # what the loop takes them in
    launch: Callable[..., Callable[[], None]]
    together: bool  # whether one call does all leaves
    by: str  # for people


_kernels: dict[Any, Kernel] = {}


def kernel(program: Program, device: torch.device) -> Kernel:
    """The kernel of a program, compiled once."""
    if (program, device) not in _kernels:
        _kernels[program, device] = _make(program, device)
    return _kernels[program, device]


def _make(program: Program, device: torch.device) -> Kernel:
    n, k = len(program.dtypes), len(program.parts)

    def flat(*args: Tensor) -> tuple[()]:
        xs, sums = args[:n], args[n : n + k]
        writes, parts = program(xs, args[n + k :])
        new = [(fresh(y) if any(y is x for x in xs) else y, to) for y, to in writes]
        for y, to in [*((y, xs[to]) for y, to in new), *zip(parts, sums, strict=True)]:
            to.copy_(y)
        return ()

    leaves = [torch.empty(inductor.HINT, dtype=d, device=device) for d in program.dtypes]
    sums = [torch.empty((), dtype=dtype, device=device) for *_, dtype in program.parts]
    scalars = [torch.ones((), dtype=d, device=device) for d in program.scalars]

    def traced(decompositions: Any = None) -> tuple[GraphModule, GraphModule, tuple[torch.dtype, ...]]:
        graph = make_fx(flat, decomposition_table=decompositions, tracing_mode="symbolic")(*leaves, *sums, *scalars)
        if decompositions is None:
            _check_elementwise(graph, program)
        return _hoist(graph, n + k)

    prelude, loop, dtypes = traced()
    by = "Inductor"
    if device.type == "cpu":
        try:
            return Kernel(prelude, dtypes, cpp.launcher(loop, n, k), True, "C++")
        except cpp.Unsupported as why:
            by = f"Inductor, for {why} is not written in C++"
    prelude, loop, dtypes = traced(inductor.decompositions())
    args = [*leaves, *sums, *(torch.ones((), dtype=d, device=device) for d in dtypes)]
    return Kernel(prelude, dtypes, inductor.launcher(loop, args), False, by)


def in_place(f: Callable[..., list[Tensor]], args: list[Tensor], targets: list[Tensor]) -> Callable[[], Any]:
    """Scalar work: `f(*args)` written to `targets`, compiled as one function."""
    every = list({id(x): x for x in (*args, *targets)}.values())
    at = {id(x): k for k, x in enumerate(every)}

    def g(*given: Tensor) -> tuple[()]:
        ys = f(*(given[at[id(x)]] for x in args))
        ys = [fresh(y) if any(y is x for x in given) else y for y in ys]
        for x, y in zip(targets, ys, strict=True):
            given[at[id(x)]].copy_(y)
        return ()

    graph = make_fx(g)(*(x.clone() for x in every))  # make_fx runs what it traces: not on the real counts
    graph.graph.eliminate_dead_code()
    graph.recompile()
    if all(x.device.type == "cpu" for x in every):
        with contextlib.suppress(cpp.Unsupported):
            return cpp.scalar_work(graph, every)
    run = inductor.compiled(graph, every)
    return lambda: run(every)


_EACH = {"_to_copy", "copy_", "full_like", "zeros_like", "ones_like", "detach", "alias", "sym_size", "empty_like"}


def _check_elementwise(gm: GraphModule, program: Program) -> None:
    """Refuse a function that was given to `elementwise` and looks beyond one element: in a kernel it would see many
    leaves as one."""
    for x in gm.graph.nodes:
        value = x.meta.get("val")
        if x.op != "call_function" or not isinstance(value, Tensor):
            continue
        of_leaf = any(a.meta["val"].ndim for a in x.all_input_nodes if isinstance(a.meta.get("val"), Tensor))
        each = torch.Tag.pointwise in x.target.tags or x.target.overloadpacket.__name__ in _EACH
        if (value.ndim and each) or not of_leaf:
            continue
        if value.ndim or not _ends_in_a_part(x):
            names = ", ".join(dict.fromkeys(verbs.name_of(f) for f, *_ in (*program.calls, *program.parts)))
            raise ValueError(
                f"fuse: {x.target} looks beyond one element, in a function given to elementwise or reduce (one of "
                f"{names}); what sees a whole leaf is given to leafwise"
            )


def _ends_in_a_part(x: Node) -> bool:
    """Whether a number that was made of a leaf goes nowhere but into reductions."""
    users = [u for u in x.users if u.op == "call_function" and isinstance(u.meta.get("val"), Tensor)]
    return all(not u.meta["val"].ndim and _ends_in_a_part(u) for u in users)


def _hoist(gm: GraphModule, n: int) -> tuple[GraphModule, GraphModule, tuple[torch.dtype, ...]]:
    """Split a graph of n leaves and some scalars into what needs no leaf, and the rest given that."""
    inputs = [x for x in gm.graph.nodes if x.op == "placeholder"]
    scalar: dict[Node, None] = {}
    for x in gm.graph.nodes:
        value = x.meta.get("val")
        alone = isinstance(value, Tensor) and not value.ndim and all(a in scalar for a in x.all_input_nodes)
        if x in inputs[n:] or (x.op in ("call_function", "get_attr") and alone):
            scalar[x] = None
    for x in list(gm.graph.nodes):  # a quotient by a scalar is a product with its reciprocal, taken once in float64
        if x.target is _DIV and x not in scalar and x.args[1] in scalar:
            with gm.graph.inserting_before(x):
                over = gm.graph.call_function(torch.ops.aten.reciprocal.default, (x.args[1],))
            over.meta = dict(x.args[1].meta)
            scalar[over] = None
            x.target, x.args = torch.ops.aten.mul.Tensor, (x.args[0], over)
    boundary = [x for x in scalar if any(u not in scalar and u.op != "output" for u in x.users)]
    before, loop = Graph(), Graph()
    env: dict[Node, Node] = {}
    for x in scalar:  # casts between floating dtypes are left out: the prelude stays in float64
        narrowed = x.op == "call_function" and x.target in _CASTS and x.meta["val"].is_floating_point()
        narrowed = narrowed and x.all_input_nodes[0].meta["val"].is_floating_point()
        env[x] = env[x.all_input_nodes[0]] if narrowed else before.node_copy(x, env.__getitem__)
    before.output(tuple(env[x] for x in boundary))
    env = {x: loop.node_copy(x) for x in inputs[:n]}
    for x in boundary:
        env[x] = loop.placeholder(x.name)
        env[x].meta = dict(x.meta)
    for x in gm.graph.nodes:
        if x not in scalar and x not in env:
            env[x] = loop.node_copy(x, env.__getitem__)
    return GraphModule(gm, before), GraphModule(gm, loop), tuple(x.meta["val"].dtype for x in boundary)


_DIV = torch.ops.aten.div.Tensor
_CASTS = (torch.ops.aten._to_copy.default, torch.ops.prims.convert_element_type.default)
