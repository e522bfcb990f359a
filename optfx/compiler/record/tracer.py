"""What torch is asked to do with numbers, as a graph. It is done, too: numbers are cheap."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.node import map_aggregate

from optfx.compiler.record.lazy import storage_of
from optfx.tree.dispatch import DispatchMode


class Tracer:
    """A graph that grows with each operation. The `val` of each node's meta is the tensor that it was."""

    def __init__(self) -> None:
        self._graph = Graph()
        self.constants: dict[str, Tensor] = {}  # by the name that the graph has for them
        self._nodes: dict[int, Node] = {}  # by the id of the tensor
        self._kept: list[Tensor] = []  # so that no id is used twice
        self._written: set[Any] = set()  # the memory of tensors that were written to

    def knows(self, x: Tensor) -> bool:
        """Whether a tensor is followed."""
        return id(x) in self._nodes

    def is_constant(self, x: Tensor) -> bool:
        """Whether a tensor is made of no argument of the graph."""
        if not self.knows(x):
            return False
        waiting = [self._nodes[id(x)]]
        while waiting:
            node = waiting.pop()
            if node.op == "placeholder":
                return False
            waiting += node.all_input_nodes
        return True

    def is_given_by_code(self, x: Tensor) -> bool:
        """Whether a tensor is made of numbers in the code alone, so that it is the same each time."""
        waiting, memory = [self._node(x)], set()
        while waiting:
            node = waiting.pop()
            seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
            if node.op != "call_function" or seeded or "empty" in str(node.target):
                return False
            if "val" in node.meta:  # else it gave several
                memory.add(storage_of(node.meta["val"]))
            waiting += node.all_input_nodes
        return self._written.isdisjoint(memory)

    def follow(self, x: Tensor) -> Tensor:
        """Take a tensor as an argument of the graph."""
        return self._note(x, self._graph.placeholder(f"arg{len(self._kept)}"))

    def call(self, f: Any, args: Any, kwargs: Any) -> Any:
        """Do an operation, and note it. Tensors that are not followed are constants."""
        args, kwargs = tuple(args), dict(kwargs)
        view = _view_of(f) if torch.Tag.inplace_view in f.tags else None
        if view is not None and self._node(args[0]).op == "call_function":  # not of a tensor of somebody else
            return self._turn(args[0], f, view, args, kwargs)
        found = f(*args, **kwargs)
        if f._schema.is_mutable:
            own = args[0] if isinstance(args[0], (tuple, list)) else args[:1]
            self._written |= {storage_of(y) for y in own if isinstance(y, Tensor)}
        if f is torch.ops.aten.detach.default:
            return self._note(found, self._node(args[0]))
        given: Any = [map_aggregate(x, self._node) for x in (args, kwargs)]
        node = self._graph.create_node("call_function", f, *given, name=f.overloadpacket.__name__)
        if isinstance(found, (tuple, list)):
            for k, x in enumerate(found):
                self._note(x, self._graph.call_function(operator.getitem, (node, k)))
        elif isinstance(found, Tensor) and not (self.knows(found) and f._schema.is_mutable):
            self._note(found, node)
        if isinstance(found, Tensor):
            node.meta["val"] = found
        return found

    def _turn(self, x: Tensor, f: Any, view: Any, args: Any, kwargs: Any) -> Tensor:
        """Let a tensor be another view of its memory from now on, as `squeeze_` does."""
        before = self._node(x)
        before.meta["val"] = x.detach()
        node = self._graph.call_function(view, *[map_aggregate(x, self._node) for x in (args, kwargs)])
        return self._note(f(*args, **kwargs), node)

    def finish(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> GraphModule:
        """The graph as a function of these inputs, all of which were followed."""
        graph, made = Graph(), {}
        known = {self._nodes[id(x)] for x in inputs}
        for node in self._graph.nodes:  # what is made of an argument that was struck out is struck out, too
            if node.op != "placeholder" and known.issuperset(node.all_input_nodes):
                known.add(node)
        for k, x in enumerate(inputs):
            node = self._nodes[id(x)]
            made[node] = graph.placeholder(f"arg{k}")
            made[node].meta = dict(node.meta)
        for node in self._graph.nodes:
            if node in known and node not in made:
                made[node] = graph.node_copy(node, made.__getitem__)
        graph.output([made[self._nodes[id(x)]] for x in outputs])
        graph.eliminate_dead_code()
        return function_of(self.constants, graph)

    def end(self, outputs: Sequence[Tensor]) -> Graph:
        """The graph, whose inputs are all that was followed. It grows no more."""
        self._graph.output([self._node(x) for x in outputs])
        self._graph.eliminate_dead_code()
        return self._graph

    def _note(self, x: Tensor, node: Node) -> Tensor:
        node.meta["val"] = x
        self._nodes[id(x)] = node
        self._kept.append(x)
        return x

    def _node(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if not self.knows(x):
            name = f"constant_{len(self.constants)}"
            self.constants[name] = x
            self._note(x, self._graph.get_attr(name))
        return self._nodes[id(x)]


def _view_of(f: Any) -> Any:
    """The operation that gives the view which this one makes of its argument; None where there is none."""
    packet = getattr(torch.ops.aten, f.overloadpacket.__name__.removesuffix("_"), None)
    view = getattr(packet, f._overloadname, None)
    return view if view is not None and view.is_view else None


class Following(DispatchMode):
    """Has a tracer do what torch is asked to."""

    def __init__(self, tracer: Tracer):
        super().__init__()
        self.tracer = tracer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.tracer.call(func, args, kwargs or {})


def traced(f: Callable[..., Sequence[Tensor]], args: Sequence[Tensor]) -> GraphModule:
    """A function of tensors as a graph. It runs, and may write to them."""
    graph, constants = traced_graph(f, args)
    return function_of(constants, graph)


def function_of(constants: dict[str, Tensor] | GraphModule, graph: Graph) -> GraphModule:
    """A graph as a function, of which there is Python code once it is called: most are only read."""
    return _LazyGraphModule(constants, graph)


def traced_graph(
    f: Callable[..., Sequence[Tensor]], args: Sequence[Tensor], mode: type[Following] = Following
) -> tuple[Graph, dict[str, Tensor]]:
    """The graph alone, and its constants."""
    tracer = Tracer()
    for x in args:
        tracer.follow(x)
    with torch.no_grad(), mode(tracer):
        outputs = f(*args)
    return tracer.end(outputs), tracer.constants
