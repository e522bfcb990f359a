"""One step of an optimizer as a recording: which leaf becomes what, and the graph of its scalar work."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from optfx.compiler.record.inputs import AsLeaf, AsScalar, Given, Input, Inputs, gather
from optfx.compiler.record.lazy import Lazy, Write
from optfx.compiler.record.levels import Levels
from optfx.compiler.record.recorder import Filled, Recorder
from optfx.core import GradientTransformation, apply_updates
from optfx.tree import Tree, flatten, unflatten
from optfx.tree.recording import recording
from optfx.tree.words import difference


class Recording(NamedTuple):
    """A step, written down."""

    inputs: Inputs
    recorder: Recorder
    graph: GraphModule  # (scalars, partials) -> the slots that are tensors, then what is filled in
    writes: list[Write]  # what the step does to params and state
    filled: list[Input]  # the inputs that scalar work gives: those that stand between stages, then those of the state
    levels: Levels


def record(tx: GradientTransformation, grads: Tree, state: Tree, params: Tree, extra: dict[str, Any]) -> Recording:
    """Run `tx.update` and `apply_updates` on leaves without values.

    Partials are inputs of the graph that is traced. How many there are is known after a first run, so a step that has
    any runs twice.
    """
    step = _Step(tx, grads, state, params, extra)
    with torch.no_grad():
        scalars = [x.detach().clone() for x in step.inputs.scalars]
        graph = make_fx(step.run)(*scalars)
        if step.recorder.partials:
            graph = make_fx(step.run)(*scalars, *map(torch.ones_like, step.recorder.partials))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    levels = Levels(graph, step.recorder, len(scalars))
    return Recording(step.inputs, step.recorder, graph, step.writes, [to for _, to in step.filled], levels)


class _Step:
    """A step as a function of its scalars and of its partials, which is traced."""

    recorder: Recorder
    writes: list[Write]
    filled: list[Filled]

    def __init__(self, tx: GradientTransformation, grads: Tree, state: Tree, params: Tree, extra: dict[str, Any]):
        self.inputs, self.state = gather(tx, grads, state, params, extra), state
        self.structures = [flatten(t)[1] for t in (grads, params, state, tx)]
        self.extra = {name: flatten(extra[name]) for name in sorted(extra)}

    def run(self, *args: Tensor) -> list[Tensor]:
        inputs, n = self.inputs, self.inputs.n
        scalars, partials = args[: len(inputs.scalars)], args[len(inputs.scalars) :]
        of_state = list(zip(scalars, inputs.of_state, strict=False))
        leaves: list[Tensor] = [Lazy(Input(i), 0, x) for i, x in enumerate(inputs.leaves)]
        recorder = self.recorder = Recorder(inputs.leaves, {id(x): i for x, i in of_state}, partials)
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
        with recording(recorder):
            updates, new_state = tx.update(grads, state, params, **extra)
            new_params = apply_updates(params, updates)
        if words := difference(self.state, new_state):
            raise ValueError(f"fuse: the state after the update {words}")
        new = [(x, Input(i)) for i, x in enumerate([*flatten(new_params)[0], *flatten(new_state)[0]], n)]
        self.writes = [Write(x, i) for x, i in new if isinstance(x, Lazy) and x.source != i]
        own = [Filled(x, i) for x, i in new if not isinstance(x, Lazy) and x is not leaves[i]]
        self.filled = [*recorder.filled, *own]
        return [*(v for v in recorder.slots if isinstance(v, Tensor)), *(x for x, _ in self.filled)]


def _extra(what: AsLeaf | AsScalar | Given, leaves: list[Tensor], scalars: tuple[Tensor, ...]) -> Any:
    if isinstance(what, AsLeaf):
        return leaves[what.input]
    return scalars[what.index] if isinstance(what, AsScalar) else what
