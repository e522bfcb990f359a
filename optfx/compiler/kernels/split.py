"""A program as two graphs: scalar arithmetic that runs once a step, in float64, and the loop over elements."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import cycle, islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from optfx.compiler.kernels import inductor
from optfx.compiler.kernels.program import Program
from optfx.compiler.record.along import Along
from optfx.compiler.record.findings import NotClosed
from optfx.compiler.record.recorder import LITERALS
from optfx.compiler.record.tracer import function_of, traced
from optfx.core.donate import fresh

LENGTH = 1 << 20  # of the leaves that Inductor sees: it tunes kernels for it, and it is long enough to need threads
SHAPES = ((16,), (4, 6))  # of those that are traced for C++: what is the same for both is so for all
PRIMES = {1: (LENGTH,), 2: (4099, 257), 3: (1031, 37, 31)}
SIZES = ((2, 3, 5, 4), (3, 2, 2, 5))  # of dimensions, where leaves have some in common, over and over


class Split(NamedTuple):
    """The two graphs of a program."""

    prelude: GraphModule  # the program's scalars -> those of the loop, in float64
    loop: GraphModule  # (leaves, places of parts, scalars) -> nothing: it writes leaves and parts
    dtypes: tuple[torch.dtype, ...]  # in which the loop takes its scalars


def example(
    program: Program, device: torch.device, shapes: Sequence[tuple[int, ...]]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Leaves of some shapes, places of parts and scalars as a program takes them."""
    leaves = [torch.zeros(s, dtype=d, device=device) for s, d in zip(shapes, program.computed, strict=True)]
    parts = [torch.empty((), dtype=p.dtype, device=device) for p in program.parts]
    return leaves, parts, [torch.ones((), dtype=d, device=device) for d in program.scalars]


def traced_shapes(program: Program) -> list[list[tuple[int, ...]]]:
    """Those of the leaves that a program is traced with."""
    if program.is_flat:
        return [[shape] * len(program.dtypes) for shape in SHAPES]
    return [program.shapes(tuple(islice(cycle(sizes), len(program.masks[0])))) for sizes in SIZES]


def large(program: Program) -> list[tuple[int, ...]]:
    """The shapes of leaves that Inductor is shown: it takes sizes that are equal for one, and divisors for given."""
    ndim = len(program.masks[0])
    return program.shapes(PRIMES.get(ndim, tuple(2 * d + 3 for d in range(ndim))))


@functools.lru_cache(maxsize=128)  # tracing takes as long as all else, and optimizers have programs in common
def split(program: Program, device: torch.device, decomposed: bool = False) -> Split:
    """Trace a program for leaves of any length, and take the scalar arithmetic out of the loop.

    Args:
        program: what is traced.
        device: where its leaves are.
        decomposed: into the operations that Inductor knows.

    Raises:
        NotClosed: a function of the program looks beyond one element, or at a tensor that it is not given.
    """
    n, k = len(program.dtypes), len(program.parts)

    def run(*args: Tensor) -> tuple[()]:
        xs = args[:n]
        values, parts = program(xs, args[n + k :])
        values = [fresh(y) if any(y is x for x in xs) else y for y in values]
        for y, store in zip(values, program.stores, strict=True):
            xs[store.to].copy_(y)
        for y, place in zip(parts, args[n : n + k], strict=True):
            place.copy_(y)
        return ()

    try:
        if decomposed:
            graph = inductor.traced(run, [x for xs in example(program, device, large(program)) for x in xs])
        else:
            examples = [[x for xs in example(program, device, s) for x in xs] for s in traced_shapes(program)]
            graph, other = (traced(run, xs) for xs in examples)
            if str(graph.graph) != str(other.graph):
                raise NotClosed(program.functions)
            _check_closed(graph, program)
    except Exception as error:  # a shape that does not fit, say: eager code shows the function one whole leaf
        raise NotClosed(program.functions) from error
    return _split(graph, n + k, program.dtypes)


# ---- whether it may be a loop --------------------------------------------------------------------

# elementwise, and without torch's tag for it
ALSO_POINTWISE = {
    "_to_copy",
    "alias",
    "copy_",
    "detach",
    "empty_like",
    "full_like",
    "ones_like",
    "rsub",
    "sym_size",
    "zeros_like",
}


def _check_closed(gm: GraphModule, program: Program) -> None:
    """Refuse a function that looks beyond one element, for a kernel would show it many leaves as one, or at a tensor
    that it is not given, or that writes."""
    if sum(x.op == "call_function" and x.target._schema.is_mutable for x in gm.graph.nodes) != len(
        program.stores
    ) + len(program.parts):
        raise NotClosed(program.functions)
    own = sum(isinstance(call.f, Along) for call in program.calls)
    for x in gm.graph.nodes:
        value = x.meta.get("val")
        if x.op == "get_attr" and any(_name(u) not in LITERALS for u in x.users):
            raise NotClosed(program.functions)
        if x.op != "call_function" or not isinstance(value, Tensor):
            continue
        of_leaf = any(a.meta["val"].ndim for a in x.all_input_nodes if isinstance(a.meta.get("val"), Tensor))
        pointwise = torch.Tag.pointwise in x.target.tags or _name(x) in ALSO_POINTWISE
        if (value.ndim and pointwise) or not of_leaf:
            continue
        if value.ndim and 1 in value.shape and own:
            own -= 1  # what the program itself makes of rows
        elif value.ndim or not _ends_in_a_part(x):
            raise NotClosed(program.functions)
    if own:
        raise NotClosed(program.functions)


def _name(x: Node) -> str:
    return x.target.overloadpacket.__name__  # type: ignore[union-attr]


def _ends_in_a_part(x: Node) -> bool:
    """Whether a number that was made of a leaf is used for nothing but reductions."""
    users = [u for u in x.users if u.op == "call_function" and isinstance(u.meta.get("val"), Tensor)]
    return all(not u.meta["val"].ndim and _ends_in_a_part(u) for u in users)


# ---- the two graphs ------------------------------------------------------------------------------

DIV = torch.ops.aten.div.Tensor
CASTS = (torch.ops.aten._to_copy.default, torch.ops.prims.convert_element_type.default)


def _split(gm: GraphModule, n: int, dtypes: Sequence[torch.dtype]) -> Split:
    """Split a graph of n leaves and places, and some scalars. Leaves have these dtypes in memory."""
    inputs = [x for x in gm.graph.nodes if x.op == "placeholder"]
    scalar = dict.fromkeys(inputs[n:])
    for x in gm.graph.nodes:
        if x.op in ("call_function", "get_attr") and _is_number(x) and all(a in scalar for a in x.all_input_nodes):
            scalar[x] = None
    _multiply_by_reciprocals(gm.graph, scalar)
    boundary = [x for x in scalar if any(u not in scalar and u.op != "output" for u in x.users)]

    prelude, made = Graph(), {}
    for x in scalar:  # casts between floating dtypes are left out: the prelude stays in float64
        made[x] = made[x.all_input_nodes[0]] if _narrows(x) else prelude.node_copy(x, made.__getitem__)
    prelude.output(tuple(made[x] for x in boundary))

    loop, made = Graph(), {}
    for x in inputs[:n]:
        made[x] = loop.node_copy(x)
    for x, dtype in zip(inputs, dtypes, strict=False):
        made[x].meta["val"] = x.meta["val"].view(dtype)
    for x in boundary:
        made[x] = loop.placeholder(x.name)
        made[x].meta = dict(x.meta)
    for x in gm.graph.nodes:
        if x not in scalar and x not in made:
            made[x] = loop.node_copy(x, made.__getitem__)
    return Split(function_of(gm, prelude), function_of(gm, loop), tuple(x.meta["val"].dtype for x in boundary))


def _multiply_by_reciprocals(graph: Graph, scalar: dict[Node, None]) -> None:
    """Make quotients by a scalar products with its reciprocal, which is taken once in float64: a division takes as long
    as several products."""
    for x in list(graph.nodes):
        if x.target is DIV and x not in scalar and x.args[1] in scalar:
            with graph.inserting_before(x):
                over = graph.call_function(torch.ops.aten.reciprocal.default, (x.args[1],))
            over.meta = dict(x.args[1].meta)
            scalar[over] = None
            x.target, x.args = torch.ops.aten.mul.Tensor, (x.args[0], over)


def _is_number(x: Node) -> bool:
    value = x.meta.get("val")
    return isinstance(value, Tensor) and not value.ndim


def _narrows(x: Node) -> bool:
    """Whether a node is a cast from one floating dtype to another."""
    if x.op != "call_function" or x.target not in CASTS:
        return False
    return all(y.meta["val"].is_floating_point() for y in (x, x.all_input_nodes[0]))
