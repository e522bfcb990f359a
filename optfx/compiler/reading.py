"""One step of an optimizer, read once: which leaf becomes what, and the graph of its scalar work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from optfx.compiler.recorder import Call, Event, Given, Lazy, Recorder, Reduction, Slot
from optfx.core import GradientTransformation, apply_updates
from optfx.tree import Tree, flatten, unflatten
from optfx.tree.recording import recording
from optfx.tree.share import scalar_dtype
from optfx.tree.words import difference


class Inputs(NamedTuple):
    """What a step is given: leaves, which kernels and events read, and scalars, which a graph reads."""

    leaves: list[Tensor]  # gradients, params, state, extra arguments: by number
    scalars: list[Tensor]  # () leaves of the state, tensors of the transform, extra arguments
    of_state: list[int]  # the inputs that the first scalars are
    n: int  # how many parameters there are: input i is a gradient below n, a parameter below 2 n
    extra: list[Any]  # for each extra leaf: ("leaf", number), ("scalar", number) or ("given", name)


class Reading(NamedTuple):
    """A step as it was read."""

    inputs: Inputs
    recorder: Recorder
    graph: GraphModule  # (scalars, marks) -> the slots that are tensors, then what is filled in
    writes: list[tuple[Lazy, int]]  # what the step writes, and to which input
    filled: list[int]  # the inputs that scalar work gives: those that stand between stages, then those of the state
    levels: Levels


def is_number(x: Any) -> bool:
    """Whether an extra argument is a number, which each step brings anew."""
    return isinstance(x, (Tensor, float, int)) and not isinstance(x, bool)


def gather(tx: GradientTransformation, grads: Tree, state: Tree, params: Tree, extra: dict[str, Any]) -> Inputs:
    """Number the inputs of a step."""
    (g, _), (p, _), (s, _) = flatten(grads), flatten(params), flatten(state)
    leaves, extras = [*g, *p, *s], []
    of_state = [i for i in range(2 * len(p), len(leaves)) if not leaves[i].ndim]
    scalars = [*(leaves[i] for i in of_state), *flatten(tx)[0]]
    place = p[0].device if p else torch.device("cpu")
    for name in sorted(extra):
        for x in flatten(extra[name])[0]:
            if isinstance(x, Tensor) and x.ndim:
                extras.append(("leaf", len(leaves)))
                leaves.append(x)
            elif is_number(x):
                extras.append(("scalar", len(scalars)))
                scalars.append(torch.zeros((), dtype=scalar_dtype(place), device=place))
            else:
                extras.append(("given", name))
    return Inputs(leaves, scalars, of_state, len(p), extras)


def read(tx: GradientTransformation, grads: Tree, state: Tree, params: Tree, extra: dict[str, Any]) -> Reading:
    """Run `tx.update` and `apply_updates` on leaves that hold nothing.

    It runs twice: first to learn how many numbers come back from reductions and events, for these are inputs of the
    graph that the second run traces.
    """
    step = _Step(tx, grads, state, params, extra)
    with torch.no_grad():
        scalars = [x.detach().clone() for x in step.inputs.scalars]
        make_fx(step.run)(*scalars)
        graph = make_fx(step.run)(*scalars, *map(torch.ones_like, step.recorder.marks))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    levels = Levels(graph, step.recorder, len(scalars))
    return Reading(step.inputs, step.recorder, graph, step.writes, step.filled, levels)


class _Step:
    """A step as a function of its scalars, which is traced, and of the numbers that reductions and events give."""

    recorder: Recorder
    writes: list[tuple[Lazy, int]]
    filled: list[int]

    def __init__(self, tx: GradientTransformation, grads: Tree, state: Tree, params: Tree, extra: dict[str, Any]):
        self.inputs, self.state = gather(tx, grads, state, params, extra), state
        self.structures = [flatten(t)[1] for t in (grads, params, state, tx)]
        self.extra = {name: flatten(extra[name]) for name in sorted(extra)}

    def run(self, *args: Tensor) -> list[Tensor]:
        inputs, n = self.inputs, self.inputs.n
        scalars, marks = args[: len(inputs.scalars)], args[len(inputs.scalars) :]
        of_state = list(zip(scalars, inputs.of_state, strict=False))
        leaves: list[Tensor] = [Lazy(i, 0, x) for i, x in enumerate(inputs.leaves)]
        reader = self.recorder = Recorder(inputs.leaves, {id(x): i for x, i in of_state}, iter(marks))
        for x, i in of_state:
            leaves[i] = x
        taken, fields = iter(leaves), iter(scalars[len(of_state) :])
        grads, params, state, tx = (
            unflatten(structure, [next(source) for _ in range(structure.num_leaves)])
            for structure, source in zip(self.structures, (taken, taken, taken, fields), strict=True)
        )
        found = iter(inputs.extra)
        extra = {
            name: unflatten(structure, [_extra(next(found), leaves, scalars) for _ in values])
            for name, (values, structure) in self.extra.items()
        }
        with recording(reader):
            updates, new_state = tx.update(grads, state, params, **extra)
            new_params = apply_updates(params, updates)
        if words := difference(self.state, new_state):
            raise ValueError(f"fuse: the state after the update {words}")
        new = list(enumerate([*flatten(new_params)[0], *flatten(new_state)[0]], n))
        self.writes = [(x, i) for i, x in new if isinstance(x, Lazy) and x.source != i]
        own = [(x, i) for i, x in new if not isinstance(x, Lazy) and x is not leaves[i]]
        filled = [*reader.filled, *own]
        self.filled = [i for _, i in filled]
        return [*(v for v in reader.slots if isinstance(v, Tensor)), *(x for x, _ in filled)]


def _extra(what: tuple[str, Any], leaves: list[Tensor], scalars: tuple[Tensor, ...]) -> Any:
    kind, which = what
    return Given(which) if kind == "given" else (leaves if kind == "leaf" else scalars)[which]


# ---- stages ----------------------------------------------------------------------------------


class Levels:
    """The stage in which each leaf, scalar, reduction and event of a reading can be computed.

    A stage has its scalar work, its kernels and its events, in this order: what a reduction or event gives is there
    from the next stage on.
    """

    def __init__(self, graph: GraphModule, reader: Recorder, n_scalars: int):
        marks = [x for x in graph.graph.nodes if x.op == "placeholder"][n_scalars:]
        waits: dict[Any, frozenset[int]] = {x: frozenset([i]) for i, x in enumerate(marks)}
        for x in graph.graph.nodes:
            if x not in waits:
                waits[x] = frozenset().union(*(waits[a] for a in x.all_input_nodes))
        (output,) = [x for x in graph.graph.nodes if x.op == "output"]
        found = iter([waits[x] for x in output.args[0]])
        self._slots = [next(found) if isinstance(v, Tensor) else frozenset() for v in reader.slots]
        self._filled = list(found)
        self._of_mark: dict[int, int] = {}
        self._of_input: dict[int, int] = {}
        self._of_call: dict[Call, int] = {}
        self._stored = {i: x for x, i in reader.stored}
        self._waiting = {i: w for (_, i), w in zip(reader.filled, self._filled, strict=False)}
        self.log: list[int] = []  # of each entry of the recorder's log
        for entry in reader.log:
            level = self._of_entry(entry)
            self.log.append(level)
            if isinstance(entry, Event):
                self._of_input |= dict.fromkeys(entry.results, level + 1)
                self._of_mark |= dict.fromkeys(entry.marks, level + 1)
            else:
                self._of_mark[entry.mark] = level + 1
        self.last = max(self.log, default=-1) + 1

    def slot(self, v: Any) -> int:
        return self._after(self._slots[v.index]) if isinstance(v, Slot) else 0

    def filled(self, k: int) -> int:
        return self._after(self._filled[k])

    def leaf(self, x: Lazy) -> int:
        if isinstance(x.source, Call):
            if x.source not in self._of_call:
                self._of_call[x.source] = self._of_work(x.source.args, [v for _, v in x.source.scalars])
            return self._of_call[x.source]
        if x.source in self._waiting:
            return self._after(self._waiting[x.source])
        return self.leaf(self._stored[x.source]) if x.source in self._stored else self._of_input.get(x.source, 0)

    def _after(self, marks: Iterable[int]) -> int:
        return max((self._of_mark[m] for m in marks), default=0)

    def _of_work(self, leaves: Iterable[Lazy], scalars: Iterable[Any]) -> int:
        return max([*map(self.leaf, leaves), *map(self.slot, scalars)], default=0)

    def _of_entry(self, entry: Reduction | Event) -> int:
        if isinstance(entry, Event):
            return self._of_work(entry.leaves, entry.scalars)
        return self._of_work([x for xs in entry.rows for x in xs], [v for _, v in entry.scalars])
