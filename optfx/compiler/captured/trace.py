"""A function of trees of tensors as a graph of ATen operations, and where in memory each value of it lies."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from optfx.compiler.kernels.writer import name_of
from optfx.compiler.record.lazy import storage_of
from optfx.compiler.record.operations import aten
from optfx.compiler.record.reading import Watching, depends_on_values
from optfx.compiler.record.tracer import Following, traced_graph
from optfx.tree import flatten, unflatten


class NotCaptured(Exception):
    """A function that no list of operations stands for: it looks at values, or has results of no fixed shape."""


class Place(NamedTuple):
    """A view: where the elements of a value lie in the memory of a base."""

    base: Node
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0  # in elements, from the first of the base


class Asked(NamedTuple):
    """What a function asked of torch."""

    graph: str
    outputs: list[str]
    given: Any
    closed: list[Tensor]  # tensors that it found outside, or made of numbers

    def is_like(self, other: Asked) -> bool:
        """Whether another function does the same."""
        alike = all(map(_same, self.closed, other.closed)) and len(self.closed) == len(other.closed)
        return alike and self[:3] == other[:3]


def _same(x: Tensor, y: Tensor) -> bool:
    return x is y or (x.dtype == y.dtype and torch.equal(x, y))


class Traced(NamedTuple):
    """A graph of operations none of which writes to its arguments.

    The meta of a node has `val`, a tensor without memory, its `place`, and `constant` where it depends on no input.
    """

    graph: Graph
    inputs: list[Node]  # placeholders, one for each leaf of the arguments
    closed: dict[Node, Tensor]  # tensors that the function found outside
    outputs: list[Any]  # nodes, and leaves that are no tensors
    taken: Any  # the structure of the arguments
    given: Any  # and of the result
    asked: Asked
    writes: bool = False  # whether the function writes to tensors of its own

    def keeps_apart(self) -> bool:
        """Whether every operation does the same with a row, a matrix or an element, however many there are of them.

        A batched product does. A product into which a dimension over members was folded does not, nor a convolution
        with a group for each: the library chooses its arithmetic by their number.
        """
        return all(map(_keeps_apart, self.graph.nodes))


def trace(f: Callable[..., Any], args: tuple[Any, ...], writes: bool = False) -> Traced:
    """Run a function, and note what it asks of torch.

    Args:
        f, args: see `capture`.
        writes: whether it is known to write to tensors of its own. Else it runs twice, if it does.

    Raises:
        NotCaptured: it cannot be a graph.
    """
    traced = _run(f, args, writes)
    _note_places(traced.graph)
    return traced


def asked(f: Callable[..., Any], args: tuple[Any, ...], writes: bool) -> Asked:
    """What a function asks of torch, of which nothing else is kept: see `trace`."""
    traced = _run(f, args, writes)
    for x in traced.graph.nodes:
        x.meta.clear()  # a graph is in memory for a while, and what it has computed need not be
    return traced.asked


def _run(f: Callable[..., Any], args: tuple[Any, ...], writes: bool) -> Traced:
    leaves, taken = flatten(args)
    if others := [x for x in leaves if not isinstance(x, Tensor) or x.device.type != "cpu"]:
        raise NotCaptured(f"an argument is no tensor on the CPU: {others[0]!r}")
    # each by itself, though one tensor be given twice, or closed over too; and each element in a place of its own
    leaves = [x.detach().contiguous() if 0 in x.stride() else x.detach() for x in leaves]
    found: list[Any] = []

    def run(*leaves: Tensor, f: Callable[..., Any] = f) -> list[Tensor]:
        with _Unchecked(), Watching(_refuse_followed):
            results, given = flatten(f(*unflatten(taken, leaves)))
        found[:] = [[x if not isinstance(x, Tensor) else None for x in results], given]
        return [aten.alias.default(x) for x in results if isinstance(x, Tensor)]

    graph, constants = traced_graph(torch.func.functionalize(run) if writes else run, leaves, _Refusing)
    if any(getattr(x.meta.get("val"), "layout", torch.strided) != torch.strided for x in graph.nodes):
        raise NotCaptured("it works with a sparse tensor")
    if not writes and (writes := any(map(_writes, graph.nodes))):
        graph, constants = traced_graph(torch.func.functionalize(run), leaves, _Refusing)
    if writes:
        _unwritten(graph)
        if others := [x for x in graph.nodes if _writes(x)]:
            raise NotCaptured(f"{others[0].target} writes to a tensor that is not its own")
    closed = {x: constants[x.target] for x in graph.nodes if x.op == "get_attr"}
    made = iter(next(x for x in graph.nodes if x.op == "output").args[0])
    others, given = found
    outputs = [next(made) if x is None else x for x in others]
    inputs = [x for x in graph.nodes if x.op == "placeholder"]
    what = Asked(str(graph), [*map(str, outputs)], given, [*closed.values()])
    return Traced(graph, inputs, closed, outputs, taken, given, what, writes)


APART = {
    *("bmm", "baddbmm", "sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "prod"),
    *("cumsum", "sort", "topk", "logsumexp", "linalg_vector_norm", "var", "var_mean", "std"),
    *("_softmax", "_softmax_backward_data", "_log_softmax", "_log_softmax_backward_data"),
    *("native_layer_norm", "native_layer_norm_backward", "native_group_norm", "native_group_norm_backward"),
    *("gather", "scatter", "scatter_add", "index", "index_put", "index_select", "index_add", "embedding"),
    *("embedding_dense_backward", "select_backward", "slice_backward", "select_scatter", "slice_scatter"),
    *("max_pool2d_with_indices", "max_pool2d_with_indices_backward", "avg_pool2d", "avg_pool2d_backward"),
    *("cat", "stack", "repeat", "flip", "roll", "tril", "triu", "constant_pad_nd", "clone", "_to_copy", "copy"),
    *("_unsafe_view", "_reshape_copy", "expand_copy", "getitem"),
}


def _keeps_apart(x: Node) -> bool:
    f: Any = x.target
    if x.op != "call_function" or not x.all_input_nodes or f is operator.getitem:
        return True
    return torch.Tag.pointwise in f.tags or f.is_view or name_of(x) in APART or name_of(x) in OF_SHAPE


def _writes(x: Node) -> bool:
    return x.op == "call_function" and isinstance(x.target, torch._ops.OpOverload) and x.target._schema.is_mutable


def _unwritten(graph: Graph) -> None:
    """Put a new tensor in the place of one that is made and written to, if there are no views of it by then:
    `functionalize` does not follow tensors that are made of none that it is given."""
    before: set[Node] = set()
    sharing: defaultdict[Any, list[Node]] = defaultdict(list)  # by their memory, those of `before`
    for x in [*graph.nodes]:
        value, new = x.meta.get("val"), x
        here = sharing[storage_of(value)] if isinstance(value, Tensor) else []
        if _writes(x) and here == [x.args[0]] and here[0].op == "call_function" and (pure := _pure(x)) is not None:
            own = here.pop()
            with graph.inserting_before(x):
                new = graph.call_function(pure, x.args, x.kwargs)
            new.meta |= {"val": value, "written": True}  # what follows has its memory, and the last that was written
            own.meta |= {"val": torch.empty_like(value), "written": True}
            own.replace_all_uses_with(new, delete_user_cb=lambda y, new=new: y is not new and y not in before)
            x.replace_all_uses_with(new)
            graph.erase_node(x)
        before.add(new)
        here.append(new)


def _pure(x: Node) -> Any:
    """The operation that makes a new tensor of what this one writes; None where there is none."""
    return getattr(getattr(aten, name_of(x).removesuffix("_"), None), x.target._overloadname, None)  # type: ignore[union-attr]


PHYSICAL = {aten._conj.default: aten.conj_physical.default, aten._neg_view.default: aten.neg.default}


class _Refusing(Following):
    """What looks at values is no operation of a graph. Nor is a view whose elements are others than those in memory, by
    a bit that memory does not have: they are computed instead."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = PHYSICAL.get(func, func) if isinstance(args[0] if args else None, Tensor) else func
        if func is aten._local_scalar_dense.default:
            depends = not self.tracer.is_given_by_code(args[0])
        else:
            depends = depends_on_values(func, args)
        if depends:
            raise NotCaptured(f"{func} depends on the values of tensors")
        return super().__torch_dispatch__(func, types, args, kwargs)


ASKS = {torch.is_conj, Tensor.is_conj, torch.is_neg, Tensor.is_neg}


def _refuse_followed(x: Tensor) -> None:
    """Refuse to have the memory of a tensor read that the function is given, or has made of such."""
    followed = [mode.tracer.knows(x) for mode in _get_current_dispatch_mode_stack() if isinstance(mode, Following)]
    if any(followed):
        raise NotCaptured("it reads the value of a tensor")


class _Unchecked(TorchFunctionMode):
    """`one_hot` looks at its classes, to check them; here it does not. Nobody is told that a view is computed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ASKS:
            raise NotCaptured(f"{func.__name__} depends on a view that is none here")
        if func is torch.nn.functional.one_hot and (classes := [*args[1:], *kwargs.values()]) and classes[0] > 0:
            index = args[0]
            return (index.unsqueeze(-1) == torch.arange(classes[0])).to(torch.int64)
        return func(*args, **kwargs)


# ---- places --------------------------------------------------------------------------------------

OF_SHAPE = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}


def _note_places(graph: Graph) -> None:
    """Find views by their memory, constants by what they depend on; then let go of the memory."""
    values = {x: x.meta["val"] for x in graph.nodes if isinstance(x.meta.get("val"), Tensor)}
    for x, value in values.items():
        place, sources = Place(x, tuple(value.shape), tuple(value.stride())), x.all_input_nodes
        if x.target is operator.getitem:
            sources = x.args[0].all_input_nodes  # type: ignore[union-attr]
        for a in sources if x.op == "call_function" else []:
            of = values.get(a)
            if of is not None and of.dtype == value.dtype and storage_of(of) == storage_of(value):
                base, at = a.meta["place"].base, a.meta["place"].offset
                place = Place(base, place.size, place.stride, at + value.storage_offset() - of.storage_offset())
        x.meta["place"] = place
        if x.op == "call_function" and _is_constant(x, sources):
            x.meta["constant"] = value.resolve_conj().resolve_neg()
    for x, value in values.items():
        x.meta["val"] = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _is_constant(x: Node, sources: list[Node]) -> bool:
    if torch.Tag.nondeterministic_seeded in getattr(x.target, "tags", ()) or "written" in x.meta:
        return False
    return name_of(x) in OF_SHAPE or all("constant" in a.meta for a in sources)
