"""A step of the optimizer for those of its parameters that have a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from torch import Tensor

from optfx.compiler import fuse
from optfx.compiler.record.findings import Resting
from optfx.core import GradientTransformation
from optfx.interop.owners import Owner
from optfx.interop.torch_state import Layout, Names, State, memory, memory_of, places_of
from optfx.interop.unscaled import unscaled
from optfx.tree import Tree, leaves

BLOCK = 1 << 20  # elements up to which parameters go through an eager step together


def blocks(which: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Parameters in blocks of few elements each: only what a block needs is in memory at a time, and in cache."""
    found: list[list[int]] = []
    room = 0
    for i in which:
        if not found or sizes[i] > room:
            found.append([])
            room = BLOCK
        found[-1].append(i)
        room -= sizes[i]
    return [tuple(block) for block in found]


def fitting(updates: Any, params: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The updates of some parameters, as an optimizer gave them.

    Raises:
        ValueError: one that is missing, or does not fit its parameter.
    """
    found = {name: _update(updates, name) for name in names}
    for name, x in found.items():
        shape = params[name].shape
        if not isinstance(x, Tensor) or x.shape != shape:
            kind = f"has the shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"is a {type(x).__name__}"
            raise ValueError(f"TorchOptimizer: the update of {name!r} {kind}, expected a tensor of {tuple(shape)}")
    return found


def _update(updates: Any, name: str) -> Any:
    return updates.get(name) if isinstance(updates, dict) else None


class Whole:
    """A step, or an evaluation, of all owners at once.

    Args:
        tx: the optimizer with the numbers of each owner.
        owners: by the names that `tx` has for them.
        names: of the parameters.
        params: the parameters that take part, by name.
    """

    def __init__(self, tx: GradientTransformation, owners: Mapping[str, Owner], names: Names, params: Tree) -> None:
        self.tx, self.owners, self.names = tx, owners.values(), names
        self.fused: fuse | None = None
        self.params = tuple([i for owner in owners.values() for i in owner.params])
        state = tx.begin(params)  # its form only
        owned = {part: owner.params for part, owner in owners.items()}
        self.layout = Layout(state, places_of(state, names, owned))

    def resting(self, active: Sequence[int]) -> Resting | None:
        """What stays as it is in a step of these parameters, where each is an owner of its own."""
        if len(active) == len(self.params):
            return None
        stepping, order = set(active), sorted(self.params, key=lambda i: self.names.of[i])  # as leaves
        state = [k for k, p in enumerate(self.layout.places) if not p.form[0] and stepping.isdisjoint(p.params)]
        return Resting(frozenset([k for k, i in enumerate(order) if i not in stepping]), tuple(state))

    def compiled(
        self, params: Mapping[int, Any], state: Tree, theirs: Set[int], scaled: bool, extra: dict[str, Any]
    ) -> tuple[fuse, Tree]:
        """The compiled step, and the state that it takes.

        Args:
            params: the parameters themselves.
            state: what is kept of them.
            theirs: tensors by id that others have a hand on: a step must not write to them.
            scaled: whether gradients have a scale.
            extra: extra arguments.
        """
        opt = self.fused
        if opt is None or isinstance(opt.tx, unscaled) != scaled or any(id(x) in theirs for x in leaves(opt.state)):
            opt = self.fused = fuse(unscaled(self.tx) if scaled else self.tx)
            _, state = opt.init(self.names.tree(params), state, copy=False, **extra)
        return opt, state

    def check(self, kept: Mapping[int, State]) -> None:
        """Refuse a state that somebody has put there and that has another form.

        Raises:
            ValueError: naming the parameter and the key.
        """
        self.layout.check(kept, self.names.of)


class Part(NamedTuple):
    """What a transform does for some parameters of a block."""

    tx: GradientTransformation
    params: tuple[int, ...]
    layout: Layout
    owner: Any  # the parts of one owner share what it keeps once
    is_block: bool  # whether it is the whole block


class Program:
    """An eager step, transform by transform up to the last that sees all parameters, and then block by block.

    The transforms of an optimizer have owners of their own: groups that differ in their rate may share Adam's numbers
    and counts.

    Args:
        before: the transforms up to the last that sees all parameters: for each its path, whether it asks for the
            gradient, itself, and its owners by the names that it has for them.
        after: those after it: for each its path, whether it asks for the gradient, and its owners with what it is for
            them.
        names: of the parameters.
        params: the parameters that take part.
        sizes: how many elements each has.
    """

    def __init__(
        self,
        before: Sequence[tuple[str, bool, GradientTransformation, Mapping[str, Owner]]],
        after: Sequence[tuple[str, bool, Sequence[tuple[Owner, GradientTransformation]]]],
        names: Names,
        params: Mapping[int, Any],
        sizes: Sequence[int],
    ) -> None:
        self.names = names
        everything = names.tree(params)
        self._before: list[tuple[bool, GradientTransformation, Layout]] = []
        for path, wants_grad, tx, owners in before:
            state, owned = tx.begin(everything), {part: owner.params for part, owner in owners.items()}
            self._before.append((wants_grad, tx, Layout(state, places_of(state, names, owned, path))))
        self._blocks: list[tuple[tuple[int, ...], list[tuple[bool, list[Part]]]]] = []
        for block in blocks(list(params), sizes) if after else ():
            steps: list[tuple[bool, list[Part]]] = []
            inside = set(block)
            for path, wants_grad, owners in after:
                parts: list[Part] = []
                for k, (owner, tx) in enumerate(owners):
                    if mine := tuple(i for i in owner.params if i in inside):
                        state = tx.begin(names.part(mine, everything))
                        layout = Layout(state, places_of(state, names, {"": mine}, path, ""))
                        parts.append(Part(tx, mine, layout, (path, k), len(mine) == len(block)))
                steps.append((wants_grad, parts))
            self._blocks.append((block, steps))

    def check(self, kept: Mapping[int, State]) -> None:
        """As `Whole.check`."""
        for _, _, layout in self._before:
            layout.check(kept, self.names.of)
        for _, steps in self._blocks:
            for _, parts in steps:
                for part in parts:
                    part.layout.check(kept, self.names.of)

    def run(
        self, grads: dict[str, Any], params: dict[str, Any], kept: Mapping[int, State], extra: dict[str, Any]
    ) -> Iterator[tuple[Sequence[int], dict[str, Any]]]:
        """Take the step. The state of a block is kept before the next one begins, and its old state and its updates are
        let go, so that memory never holds these of all parameters.

        Args:
            grads: by name.
            params: by name.
            kept: what is kept of each parameter; the new state is written there.
            extra: extra arguments.

        Yields:
            The parameters of the block, and its updates by name.
        """
        if len(self._blocks) > 1:  # a gradient may be a parameter of another block
            written = memory_of(params)
            grads = {name: g.clone() if memory(g) in written else g for name, g in grads.items()}
        updates = self._run_before(grads, params, kept, extra)
        if not self._blocks:
            yield list(self.names.of), fitting(updates, params, params)
        once: dict[Any, State] = {}
        for block, steps in self._blocks:
            mine = [self.names.of[i] for i in block]
            yield block, fitting(self._run_block(block, steps, updates, grads, params, kept, extra, once), params, mine)

    def _run_before(self, grads: Tree, params: Tree, kept: Mapping[int, State], extra: dict[str, Any]) -> Tree:
        updates, new = dict(grads), []
        for wants_grad, tx, layout in self._before:
            known = {"grad": grads} | extra if wants_grad else extra
            updates, state = tx.run(updates, layout.read(kept), params, known)
            new.append((layout, state))
        others = memory_of(params, grads) if new else set()
        for layout, state in new:
            layout.write(kept, state, None, others)
        return updates

    def _run_block(
        self,
        block: Sequence[int],
        steps: Sequence[tuple[bool, Sequence[Part]]],
        updates: dict[str, Any],
        grads: Tree,
        params: Tree,
        kept: Mapping[int, State],
        extra: dict[str, Any],
        once: dict[Any, State],
    ) -> dict[str, Any]:
        """The updates of a block, which are taken out of those of all."""
        names, new = self.names, []
        by_name = {k for k, x in extra.items() if isinstance(x, dict) and x.keys() == grads.keys()}
        mine, of_block, grads_of_block = (names.part(block, x) for x in (updates, params, grads))
        extra = {k: names.part(block, x) if k in by_name else x for k, x in extra.items()}
        for i in block:
            del updates[names.of[i]]
        for wants_grad, parts in steps:
            known = {"grad": grads_of_block} | extra if wants_grad else extra
            before, mine = mine, dict(mine)
            for part in parts:
                own, own_params, theirs = before, of_block, known
                if not part.is_block:
                    own, own_params = names.part(part.params, before), names.part(part.params, of_block)
                    theirs = {
                        k: names.part(part.params, x) if k in by_name or x is grads_of_block else x
                        for k, x in known.items()
                    }
                u, state = part.tx.run(own, part.layout.read(kept), own_params, theirs)
                for i in part.params:
                    mine[names.of[i]] = _update(u, names.of[i])
                new.append((part, state))
        others = memory_of(of_block, grads_of_block)
        for part, state in new:
            part.layout.write(kept, state, once.setdefault(part.owner, {}), others)
        return mine
