"""A graph without what need not be done: dead code, what changes nothing, what is done twice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from optfx.compiler.captured.trace import Traced
from optfx.compiler.kernels.writer import name_of

SAME = {"alias", "clone", "contiguous", "detach", "lift", "lift_fresh", "lift_fresh_copy", "_to_copy", "expand"}
BY_ONE = {"mul", "div"}


def clean(traced: Traced) -> Traced:
    """Make a graph smaller. Views and constants remain as nodes, and cost nothing."""
    known: dict[Hashable, Node] = {}
    instead: dict[Node, Node] = {}
    for x in traced.graph.nodes:
        if x.op == "output":
            continue
        x.args, x.kwargs = (map_arg(given, lambda a: instead.get(a, a)) for given in (x.args, x.kwargs))
        if x.op != "call_function":
            continue
        if isinstance(x.meta.get("val"), Tensor):
            place = x.meta["place"]
            if place.base in instead:  # a view of a node that is another now
                x.meta["place"] = place = place._replace(base=instead[place.base])
            if place.base is not x and place.base.meta["place"].base is not place.base:  # which is a view itself
                base = place.base.meta["place"]
                x.meta["place"] = place = place._replace(base=base.base, offset=base.offset + place.offset)
            if _changes_nothing(x):
                instead[x] = x.args[0]  # type: ignore[assignment]
                continue
        if not is_random(x):
            first = known.setdefault(_key(x), x)
            if first is not x:
                instead[x] = first
    outputs = [instead.get(x, x) if isinstance(x, Node) else x for x in traced.outputs]
    return traced._replace(outputs=outputs)


def needed(traced: Traced) -> list[Node]:
    """The computing nodes that outputs depend on, in order. Random numbers are drawn in any case."""
    wanted: set[Node] = set()

    def want(x: Any) -> None:
        stack = [x]
        while stack:
            x = stack.pop()
            if x in wanted:
                continue
            wanted.add(x)
            if "constant" in x.meta:
                continue
            place = x.meta.get("place")
            stack += x.all_input_nodes if place is None or place.base is x else [place.base]

    for x in traced.graph.nodes:
        if is_random(x):
            want(x)
    for x in traced.outputs:
        if isinstance(x, Node):
            want(x)
    return [x for x in traced.graph.nodes if x in wanted and computes(x)]


def computes(x: Node) -> bool:
    """Whether a node is work: not an input, a view or a constant."""
    place = x.meta.get("place")
    return x.op == "call_function" and "constant" not in x.meta and (place is None or place.base is x)


def is_random(x: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(x.target, "tags", ())


def _changes_nothing(x: Node) -> bool:
    """Whether a node is its argument, element by element and in the same order in memory."""
    a, one = x.args[0] if x.args else None, x.args[1] if len(x.args) > 1 else None
    name = name_of(x)
    if not isinstance(a, Node) or "val" not in a.meta:
        return False
    same = name in SAME or (name in BY_ONE and type(one) in (int, float) and one == 1 and not x.kwargs)
    if x.meta["place"].base is not x:
        same = x.meta["place"] == a.meta["place"]
    old, new = a.meta["val"], x.meta["val"]
    return bool(same) and (old.dtype, old.shape, old.stride()) == (new.dtype, new.shape, new.stride())


def _key(x: Node) -> Hashable:
    """What is equal for nodes of equal value."""
    place = x.meta.get("place")
    if place is not None and place.base is not x:
        return "view", place, x.meta["val"].dtype
    return x.target, _hashable(x.args), _hashable(x.kwargs)


def _hashable(x: Any) -> Hashable:
    if isinstance(x, (tuple, list)):
        return tuple(_hashable(y) for y in x)
    if isinstance(x, dict):
        return tuple((k, _hashable(y)) for k, y in sorted(x.items()))
    return type(x), repr(x) if isinstance(x, float) else x
