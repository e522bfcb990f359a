"""One step of an optimizer as a recording: which leaf becomes what, and the graph of its scalar work."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from optfx.compiler.record.findings import Again, Drifted, Known
from optfx.compiler.record.inputs import AsLeaf, AsScalar, Constant, Given, Input, Inputs, gather
from optfx.compiler.record.kept import Kept, kept_of, needed
from optfx.compiler.record.lazy import Form, Lazy, Write
from optfx.compiler.record.levels import Levels
from optfx.compiler.record.notes import Filled
from optfx.compiler.record.reading import code_in, kept_by
from optfx.compiler.record.recorder import Recorder
from optfx.compiler.record.tracer import Tracer
from optfx.core import GradientTransformation, apply_updates
from optfx.tree import Tree, flatten, unflatten
from optfx.tree.recording import recording
from optfx.tree.sharded import spread_of
from optfx.tree.words import difference


class Recording(NamedTuple):
    """A step, written down."""

    inputs: Inputs
    recorder: Recorder
    graph: GraphModule  # (scalars, partials) -> the slots that are tensors, then what is filled in
    writes: list[Write]  # what the step does to params and state
    kept: Kept  # what periodic work does to the state
    filled: list[Input]  # the inputs that scalar work gives: those that stand between stages, then those of the state
    levels: Levels
    traced: dict[Any, GraphModule]  # the scalar work of stages, once it has been traced


def record(
    tx: GradientTransformation,
    grads: Tree,
    state: Tree,
    params: Tree,
    extra: dict[str, Any],
    known: Known | None = None,
) -> Recording:
    """Run `tx.update` and `apply_updates` on leaves without values.

    A run may find out that a transform cannot be looked into, and then there is another. A tensor from outside is one
    that a second run meets again, for a tensor that a step makes of something else is another each time.

    Args:
        tx, grads, state, params, extra: what the step is given; only the forms of leaves matter.
        known: what earlier runs have found out.
    """
    known = Known() if known is None else known
    step = _Step(tx, grads, state, params, extra, known)
    n, code = len(step.inputs.scalars), [*code_in(tx)]
    kept = kept_by(code)
    with torch.no_grad():
        while True:
            tracer = Tracer()
            scalars = [tracer.follow(x.detach().clone()) for x in step.inputs.scalars[:n]]
            try:
                outputs = step.run(scalars, tracer)
            except Again:
                continue
            if known.complete or not known.outside:
                break
            known.complete = True
    if changed := [repr(name) for name, x in kept_by(code).items() if kept.get(name, x) != x]:
        warnings.warn(
            f"fuse: the code of the optimizer changes {', '.join(changed)}, which is no part of its state, and a "
            "compiled step does not run that code again: keep in the state what changes",
            stacklevel=5,
        )
    recorder = step.recorder
    step.inputs.scalars[n:] = [x for _, x in recorder.numbers]
    graph = tracer.finish([*scalars, *(x for x, _ in recorder.numbers), *recorder.partials], outputs)
    levels, filled = Levels(graph, recorder, len(step.inputs.scalars)), [to for _, to in step.filled]
    return Recording(step.inputs, recorder, graph, step.writes, step.kept, filled, levels, {})


class _Step:
    """A step as a function of its scalars, which is traced."""

    recorder: Recorder
    writes: list[Write]
    kept: Kept
    filled: list[Filled]

    def __init__(
        self,
        tx: GradientTransformation,
        grads: Tree,
        state: Tree,
        params: Tree,
        extra: dict[str, Any],
        known: Known,
    ):
        self.inputs, self.state, self.known = gather(tx, grads, state, params, extra), state, known
        self.structures = [flatten(t)[1] for t in (grads, params, state, tx)]
        self.extra = {name: flatten(extra[name]) for name in sorted(extra)}

    def run(self, scalars: list[Tensor], tracer: Tracer) -> list[Tensor]:
        inputs, n = self.inputs, self.inputs.n
        of_state = list(zip(scalars, inputs.of_state, strict=False))
        leaves: list[Tensor] = [Lazy(Input(i), 0, Form.of(x)) for i, x in enumerate(inputs.leaves)]
        recorder = self.recorder = Recorder(inputs.leaves, {id(x): i for x, i in of_state}, self.known, tracer)
        recorder.pairs += [(Input(i), Input(n + i)) for i in range(n)]
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
        with recording(recorder), recorder:
            updates, new_state = tx.update(grads, state, params, **extra)
            new_params = apply_updates(params, updates)
            if words := difference(self.state, new_state):
                raise ValueError(f"fuse: the state after the update {words}")
            new = [*map(recorder.bring, [*flatten(new_params)[0], *flatten(new_state)[0]])]
            new = [
                (x if not x.ndim else recorder.laid(recorder.leaf(x), spread_of(inputs.leaves[i])), Input(i))
                for i, x in enumerate(new, n)
            ]
        _check_forms(new, inputs)
        writes = [Write(recorder.written(x, i), i) for x, i in new if isinstance(x, Lazy) and x.source != i]
        recorder.stored[:] = needed(recorder, writes)
        self.writes, self.kept = kept_of(recorder, writes, 2 * n)
        own = [Filled(x, i) for x, i in new if not isinstance(x, Lazy) and x is not leaves[i]]
        self.filled = [*recorder.filled, *own]
        return [*(v for v in recorder.slots if isinstance(v, Tensor)), *(x for x, _ in self.filled)]


def _check_forms(new: list[tuple[Tensor, Input]], inputs: Inputs) -> None:
    """Raise if params or state would have other forms after the update than before."""
    for x, i in new:
        if x.shape != inputs.leaves[i].shape:
            what = "parameter" if i < 2 * inputs.n else "state"
            raise ValueError(
                f"fuse: a {what} has the shape {tuple(x.shape)} after the update, and "
                f"{tuple(inputs.leaves[i].shape)} before (leaf {i - inputs.n} of params and state)"
            )
    state = [(x.dtype, inputs.leaves[i].dtype) for x, i in new if i >= 2 * inputs.n]
    if any(x != y for x, y in state):
        raise Drifted([x for x, _ in state])


def _extra(what: AsLeaf | AsScalar | Constant | Given, leaves: list[Tensor], scalars: list[Tensor]) -> Any:
    kind = type(what)  # not isinstance, which looks at what is given
    if kind is AsLeaf:
        return leaves[what.input]  # type: ignore[union-attr]
    if kind is AsScalar:
        return scalars[what.index]  # type: ignore[union-attr]
    return what.value if kind is Constant else what  # type: ignore[union-attr]
