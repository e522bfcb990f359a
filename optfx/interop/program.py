"""A step of the optimizer for those of its parameters that have a gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optfx.combinators import chain, named_chain
from optfx.compiler import fuse
from optfx.core import GradientTransformation
from optfx.interop.owners import Owner, by_owner
from optfx.interop.torch_state import Layout, State, memory_of, places_of
from optfx.tree import Hole, Tree

BLOCK = 1 << 20  # elements up to which parameters of one owner go through a step together


def blocks(owners: Sequence[Owner], sizes: Sequence[int]) -> dict[str, Owner]:
    """The owners in parts of few elements each: only what a part needs is in memory at a time, and in cache."""
    found: list[Owner] = []
    for group, params in owners:
        mine, size = [], 0
        for i in params:
            if mine and size + sizes[i] > BLOCK:
                found.append(Owner(group, tuple(mine)))
                mine, size = [], 0
            mine.append(i)
            size += sizes[i]
        found.append(Owner(group, tuple(mine)))
    return {str(k): part for k, part in enumerate(found)}


class Program:
    """A step of the optimizer for some of its parameters.

    Args:
        tx: the optimizer with the numbers of each part.
        owners: the parameters that take part.
        parts: the same, where an owner may be in several parts, by the names that `tx` has for them.
        names: the names of the parameters that are in the trees, those that take no part as holes.
        params: the parameters by name.
        whole: whether all parts go through the step at once.
    """

    def __init__(
        self,
        tx: GradientTransformation,
        owners: Sequence[Owner],
        parts: Mapping[str, Owner],
        names: Mapping[int, str],
        params: Tree,
        whole: bool,
    ) -> None:
        self.tx, self.parts, self._names = tx, parts, names
        self.fused: fuse | None = None
        self._active = {i for owner in owners for i in owner.params}
        owner_of = {i: k for k, owner in enumerate(owners) for i in owner.params}
        self._owner_of = {part: owner_of[owner.params[0]] for part, owner in parts.items()}
        owned = {part: owner.params for part, owner in parts.items()}

        def layout(tx: GradientTransformation, params: Tree, key: str = "", part: str | None = None) -> Layout:
            state = tx.begin(params)  # its form only
            return Layout(state, places_of(state, names, owned, key, part))

        self._all = [layout(tx, params)] if whole else []
        # what is one for all parameters, and all that comes before it; then what each part goes through alone
        self._before: list[tuple[GradientTransformation, bool, Layout]] = []
        self._after: list[tuple[by_owner, bool, dict[str, Layout]]] = []
        is_chain = isinstance(tx, (chain, named_chain))  # which gives its steps the gradient, if they ask for it
        steps = list(tx.inside().items()) if is_chain else [("", tx)]
        last = max((k for k, (_, step) in enumerate(steps) if not isinstance(step, by_owner)), default=-1)
        for k, (name, step) in enumerate(steps if not whole else ()):
            wants_grad = is_chain and step.asks_for("grad")
            if k > last and isinstance(step, by_owner):
                alone = {p: layout(one, step.own(p, params), name, p) for p, one in step.transforms.items()}
                self._after.append((step, wants_grad, alone))
                self._all += alone.values()
            else:
                self._before.append((step, wants_grad, layout(step, params, name)))
                self._all.append(self._before[-1][2])

    @property
    def whole(self) -> Layout:
        """Where the whole state is kept."""
        (layout,) = self._all
        return layout

    def check(self, kept: Mapping[int, State]) -> None:
        """Refuse a state that somebody has put there and that has another form.

        Raises:
            ValueError: naming the parameter and the key.
        """
        for layout in self._all:
            layout.check(kept, self._names)

    def tree(self, values: Mapping[int, Any]) -> dict[str, Any]:
        """A tree of these values by the names of the parameters, with holes for those that take no part."""
        return {name: values[i] if i in self._active else Hole() for i, name in self._names.items()}

    def run(
        self, grads: dict[str, Any], params: dict[str, Any], kept: Mapping[int, State], extra: dict[str, Any]
    ) -> Iterator[tuple[Sequence[int], dict[str, Any]]]:
        """Take the step, a part at a time. The state of a part is kept before the next one begins, and its old state
        and its updates are let go, so that memory never holds these of all parameters.

        Args:
            grads: by name.
            params: by name.
            kept: what is kept of each parameter; the new state is written there.
            extra: extra arguments.

        Yields:
            The parameters of the part, and its updates by name.
        """
        updates = self._run_before(grads, params, kept, extra)
        if not self._after:
            yield tuple(self._active), updates
            return
        once: dict[int, State] = {}
        for part, owner in self.parts.items():
            yield owner.params, self._run_part(part, updates, grads, params, kept, extra, once)

    def _run_before(self, grads: Tree, params: Tree, kept: Mapping[int, State], extra: dict[str, Any]) -> Tree:
        updates, new = dict(grads), []
        for step, wants_grad, layout in self._before:
            known = {"grad": grads} | extra if wants_grad else extra
            updates, state = step.run(updates, layout.read(kept), params, known)
            new.append((layout, state))
        foreign = memory_of(params, grads) if new else set()
        for layout, state in new:
            layout.write(kept, state, None, foreign)
        return updates

    def _run_part(
        self,
        part: str,
        updates: dict[str, Any],
        grads: Tree,
        params: Tree,
        kept: Mapping[int, State],
        extra: dict[str, Any],
        once: dict[int, State],
    ) -> Tree:
        """The updates of a part, which are taken out of those of all."""
        own = self._after[0][0].own
        mine, params, grads = own(part, updates), own(part, params), own(part, grads)
        extra = {k: own(part, x) if isinstance(x, dict) and x.keys() == updates.keys() else x for k, x in extra.items()}
        for i in self.parts[part].params:
            updates[self._names[i]] = Hole()
        new = []
        for step, wants_grad, layouts in self._after:
            known = {"grad": grads} | extra if wants_grad else extra
            mine, state = step.transforms[part].run(mine, layouts[part].read(kept), params, known)
            new.append((layouts[part], state))
        foreign = memory_of(params, grads)
        for layout, state in new:
            layout.write(kept, state, once.setdefault(self._owner_of[part], {}), foreign)
        return mine
