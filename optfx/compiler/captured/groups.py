"""Which operations share a kernel.

The operations of a kernel walk over one space, a box of elements. Each has a frame: which dimension of the space each
of its own dimensions is. Two kernels become one where what one makes is used at the very element that the other is at,
and nothing on the way waits for both. In a kernel of rows one dimension of the space is the column: reductions go
along it.
"""

from __future__ import annotations

import itertools

import torch
from torch.fx import Node

from optfx.compiler.captured.cleaning import computes, is_random
from optfx.compiler.captured.rows import LONGEST
from optfx.compiler.kernels.binding import Unsupported
from optfx.compiler.kernels.cpp.expressions import Writer, ctype
from optfx.compiler.kernels.writer import name_of

MOST = 64  # operations of a kernel: a compiler's time grows faster than their number
COSTLY = {"exp", "log", "tanh", "sin", "cos", "pow", "div", "sigmoid", "erf", "log1p", "expm1", "sqrt", "rsqrt", "gelu"}
REDUCED = {"sum", "amax", "amin"}
ALONG = REDUCED | {"gather"}  # a row becomes a number
PLACED = {"scatter", "scatter_add"}  # an element of each row gets another value

LONG = 1024  # elements that are summed one by one though they follow each other; ATen is better at more

Axes = tuple[int | None, ...]


class Span:
    """What an operation walks over: its box, the column, and which dimensions of the box its result has."""

    def __init__(self, node: Node):
        name, val = name_of(node), node.meta["val"]
        self.size, self.column = tuple(val.shape), None
        self.result: Axes = tuple(range(val.ndim))
        if name in ALONG:
            x = node.args[0].meta["val"]  # type: ignore[union-attr]
            self.size, self.column = tuple(x.shape), column_of(node)
            kept = [d for d in range(x.ndim) if d != self.column]
            self.result = tuple(range(x.ndim)) if val.ndim == x.ndim else tuple(kept)
            self.result = tuple(None if d == self.column else d for d in self.result)
        elif name in PLACED:
            self.column = column_of(node)


def column_of(node: Node) -> int:
    x, dim = node.args[0].meta["val"], node.args[1] if len(node.args) > 1 else None  # type: ignore[union-attr]
    dims = [dim] if isinstance(dim, int) else list(dim or range(x.ndim))  # type: ignore[call-overload]
    if len(dims) != 1 or not x.ndim:
        raise Unsupported(f"{node.target} along {dims}")
    d, n = dims[0] % x.ndim, x.shape[dims[0]]
    if not (0 < n <= LONGEST or (name_of(node) == "sum" and (n <= LONG or x.stride(d) > 1))):
        raise Unsupported(f"{node.target} along {n}")
    return d


def is_written(node: Node) -> bool:
    """Whether this room writes C++ for an operation."""
    val = node.meta.get("val")
    if not isinstance(val, torch.Tensor) or is_random(node):
        return False
    try:
        name, column = name_of(node), Span(node).column
        tensors = list(node.all_input_nodes)
        for x in [node, *tensors]:
            ctype(x.meta["val"].dtype)
            size, stride = x.meta["val"].shape, x.meta["val"].stride()
            if sum((n - 1) * s for n, s in zip(size, stride, strict=True) if n) >= 2**31:
                raise Unsupported("so large a tensor")
        if name in REDUCED:
            x = tensors[0].meta["val"]
            return name == "sum" or (x.dtype == val.dtype and val.dtype.is_floating_point)
        if name in ALONG | PLACED:
            index = node.args[2].meta["val"]  # type: ignore[union-attr]
            whole = list(node.args[0].meta["val"].shape)  # type: ignore[union-attr]
            whole[column] = 1  # type: ignore[index]
            return list(index.shape) == whole and not node.kwargs
        if name == "remainder" and not val.dtype.is_floating_point:
            return False  # the processor stops at a division by zero, where ATen raises an error
        shapes = [x.meta["val"].shape for x in tensors]
        if torch.broadcast_shapes(*shapes) != val.shape:
            return False
        writer = Writer()
        writer.names = dict.fromkeys(tensors, "x")
        writer.expression(node)
    except (Unsupported, RuntimeError, KeyError):
        return False
    return True


def access(node: Node, arg: Node) -> tuple[int, ...]:
    """Which dimension of the box each dimension of an argument is."""
    n = len(Span(node).size)
    return tuple(range(n - arg.meta["val"].ndim, n))


class Kernel:
    """Operations that walk over one space together.

    Args:
        size: of the space.
        column: the dimension that reductions go along.
        frames: operation -> which dimension of the space each of its own is; in order.
    """

    def __init__(self, size: list[int], column: int | None, frames: dict[Node, Axes]):
        self.size, self.column, self.frames = size, column, frames

    @classmethod
    def of(cls, node: Node) -> Kernel:
        """One operation."""
        span = Span(node)
        wide = [d for d, n in enumerate(span.size) if n != 1]
        if span.column is not None and span.column not in wide:
            wide.append(span.column)  # a row of one element is a row
        column = None if span.column is None else wide.index(span.column)
        frame = tuple(wide.index(d) if d in wide else None for d in range(len(span.size)))
        return cls([span.size[d] for d in wide], column, {node: frame})

    @property
    def nodes(self) -> list[Node]:
        return list(self.frames)

    def axes(self, node: Node, arg: Node) -> Axes:
        """Which dimension of the space each dimension of an argument is."""
        frame, shape = self.frames[node], arg.meta["val"].shape
        return tuple(frame[d] if n != 1 else None for d, n in zip(access(node, arg), shape, strict=True))

    def result(self, node: Node) -> Axes:
        """Which dimension of the space each dimension of a result is."""
        frame, shape = self.frames[node], node.meta["val"].shape
        return tuple(None if d is None or n == 1 else frame[d] for d, n in zip(Span(node).result, shape, strict=True))

    def domain(self, node: Node) -> set[int]:
        """The dimensions of the space that an operation walks over."""
        return {d for d in self.frames[node] if d is not None}


class Partition:
    """The work of a graph, shared out among kernels; what they do not write is a unit of its own.

    Args:
        work: computing nodes, in order.
        kept: those whose results must be in memory at the end.
    """

    def __init__(self, work: list[Node], kept: set[Node]):
        self.kept = kept
        self.order = {x: i for i, x in enumerate(work)}
        self.units: dict[Node, Kernel | Node] = {x: Kernel.of(x) if is_written(x) else x for x in work}
        self.feeds = {x: producers(x) for x in work}  # what each needs
        random = [x for x in work if is_random(x)]
        for before, x in itertools.pairwise(random):  # numbers are drawn in order
            self.feeds[x].append(before)
        self.users: dict[Node, list[Node]] = {x: [] for x in work}
        for x in work:
            for base in self.feeds[x]:
                self.users[base].append(x)
        while sum(map(self._join_producers, work)):
            pass

    def needs(self, unit: Kernel | Node) -> list[Kernel | Node]:
        """The units that one waits for."""
        nodes = unit.nodes if isinstance(unit, Kernel) else [unit]
        found = {id(u): u for x in nodes for u in map(self.units.__getitem__, self.feeds[x]) if u is not unit}
        return list(found.values())

    def stored(self, kernel: Kernel) -> list[Node]:
        """The results of a kernel that others need."""
        return [x for x in kernel.nodes if x in self.kept or any(self.units[u] is not kernel for u in self.users[x])]

    def _join_producers(self, x: Node) -> bool:
        """Join the kernel of an operation with those whose results it takes; whether there was one."""
        joined = False
        for base in self.feeds[x] if isinstance(self.units[x], Kernel) else []:
            p, c = self.units[base], self.units[x]
            if isinstance(p, Kernel) and isinstance(c, Kernel) and p is not c and (both := self._join(p, c)):
                self.units |= dict.fromkeys(both.nodes, both)
                joined = True
        return joined

    def _join(self, p: Kernel, c: Kernel) -> Kernel | None:
        """One kernel of two, of which c uses what p makes, or None."""
        if len(p.frames) + len(c.frames) > MOST or (same := _common(p, c)) is None:
            return None
        if len(same) == len(p.size):
            small, large, to = p, c, same
        elif len(same) == len(c.size):
            small, large, to = c, p, {b: a for a, b in same.items()}
        else:
            return None
        column = large.column
        if small.column is not None:
            if column not in (None, to[small.column]):
                return None
            column = to[small.column]
        if len(small.size) < len(large.size):
            rows = column is not None and set(to.values()) == set(range(len(large.size))) - {column}
            if not rows and (small is c or not self._may_repeat(small, large)):
                return None
        if self._way_around(p, c):
            return None
        moved = {x: tuple(None if d is None else to[d] for d in frame) for x, frame in small.frames.items()}
        frames = sorted((large.frames | moved).items(), key=lambda item: self.order[item[0]])
        both = Kernel(large.size, column, dict(frames))
        return both if column is None or both.size[column] <= LONGEST or _in_one_pass(both) else None

    def _may_repeat(self, small: Kernel, large: Kernel) -> bool:
        """Whether a kernel is cheap, and only another uses it: then it may be done again at each element of that."""
        return not any(
            name_of(x) in COSTLY or x in self.kept or any(self.units[u] not in (small, large) for u in self.users[x])
            for x in small.nodes
        )

    def _way_around(self, p: Kernel, c: Kernel) -> bool:
        """Whether c waits for p by a third."""
        stack = [u for u in self.needs(c) if u is not p]
        seen: set[int] = set()
        while stack:
            unit = stack.pop()
            if unit is p:
                return True
            if id(unit) not in seen:
                seen.add(id(unit))
                stack += self.needs(unit)
        return False


def producers(x: Node) -> list[Node]:
    """The work whose results a node takes."""
    bases = [a.meta["place"].base if "place" in a.meta else a for a in x.all_input_nodes if "constant" not in a.meta]
    return [base for base in bases if computes(base)]


def _in_one_pass(kernel: Kernel) -> bool:
    """Whether no element waits for a sum."""
    after: set[Node] = set()
    for x in kernel.frames:
        if any(b in after or (name_of(b) in ALONG and b in kernel.frames) for b in producers(x)):
            after.add(x)
            if name_of(x) in ALONG or kernel.column in kernel.domain(x):
                return False
    return True


def _common(p: Kernel, c: Kernel) -> dict[int, int] | None:
    """Which dimension of c each dimension of p is, as far as c's use of p says it; None if they do not fit."""
    same: dict[int, int] = {}
    for x in c.nodes:
        for arg in x.all_input_nodes:
            base = arg.meta["place"].base
            if base in p.frames:
                found = _matches(p, base, c, x, arg)
                if found is None or any(same.setdefault(a, b) != b for a, b in found):
                    return None
    rest = [set(range(len(k.size))) - set(ends) for k, ends in ((p, same), (c, same.values()))]
    if rest[0] == {p.column} and len(rest[1]) == 1:  # numbers of rows are used by elements of rows
        same[rest[0].pop()] = rest[1].pop()
    fit = len(set(same.values())) == len(same) and all(p.size[a] == c.size[b] for a, b in same.items())
    return same if fit else None


def _matches(p: Kernel, base: Node, c: Kernel, x: Node, arg: Node) -> list[tuple[int, int]] | None:
    """(dimension of p, dimension of c) for each dimension of what p made, as c reads it; None if it is read at another
    element."""
    place, val = arg.meta["place"], base.meta["val"]
    if p.column is not None and p.size[p.column] == 1 and name_of(base) not in ALONG and p.column in p.domain(base):
        return None  # one column, and nothing tells an element of it from a number of the row
    made = {}
    for d, (n, s) in enumerate(zip(val.shape, val.stride(), strict=True)):
        if n != 1:
            if (n, s) in made or s == 0:
                return None
            made[n, s] = p.result(base)[d]
    found = []
    for n, s, axis in zip(place.size, place.stride, c.axes(x, arg), strict=True):
        if n != 1 and s != 0:
            if (n, s) not in made or axis is None or made[n, s] is None:
                return None
            found.append((made.pop((n, s)), axis))
    return found if not made and place.offset == 0 else None
