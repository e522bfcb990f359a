"""What a gradient transformation is: a pure pair `init(params) -> state`, `update(updates, state, params)`.

Three kinds of people meet a transform, and each has methods of its own:

| who | calls or writes | which |
|---|---|---|
| a user | `init`, `update` | check what is given, then go inside |
| a transform that holds others | `begin`, `run` | go inside, with the extra arguments that the part knows |
| an author | `begin`, `step` | are the transform itself |

Updates are added to params; only a transform that owns the step size flips the sign. Every transform is a record, so it
is a tree of its tensor numbers. Anything with `init` and `update` is accepted where a transform is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from optfx import tree
from optfx.core import hyper
from optfx.tree import Tree
from optfx.tree.recording import recorder
from optfx.tree.words import misfit

EXTRA_ARGS: dict[str, str] = {
    "value": "the loss at params, ()",
    "grad": "the gradient of the loss at params, before any transform",
    "value_fn": "params -> loss",
    "grad_fn": "params -> gradient of the loss",
    "obj_fn": "params -> objective, for estimates of its curvature",
}
"""The vocabulary of extra arguments of `update`. A name from it is accepted by every transform, so that one training
loop serves every optimizer; any other name must be declared by a transform, or it is an error."""


class GradientTransformation:
    """A pure `init`/`update` pair over parameter trees. It unpacks: `init, update = tx`.

    A subclass is a `tree.record` that writes `begin` and `step`, and states these facts where they are so:
    """

    needs_params: ClassVar[bool] = False  # whether step cannot do without params
    needs: ClassVar[tuple[str, ...]] = ()  # the extra arguments that step cannot do without
    takes: ClassVar[tuple[str, ...]] = ()  # those that step takes where they are given
    final: ClassVar[bool] = False  # whether it owns the step, rate and sign: nothing may scale it afterwards
    rate: ClassVar[bool] = False  # whether it is the learning rate, which flips the sign

    # ---- what a user calls ------------------------------------------------------------------------

    def init(self, params: Tree) -> Tree:
        """The state before the first step.

        Args:
            params: tree of floating or complex tensors. No reference to it is kept.

        Returns:
            A tree of tensors whose structure, shapes, dtypes and devices never change afterwards.

        Raises:
            TypeError: naming the path of a leaf that is no tensor, or is neither floating nor complex.
        """
        check_params(params)
        return self.begin(params)

    def update(self, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        """One step: the new updates and the new state; nothing is changed in place.

        Args:
            updates: tree of gradients, or of what the transform before made of them.
            state: from `init` or the last `update`.
            params: tree like `updates`; optional unless the transform needs it.
            **extra: from `EXTRA_ARGS`, or declared by a transform.

        Returns:
            `(updates, state)`; the updates have the structure, shapes and dtypes of those given.

        Raises:
            ValueError: updates that do not fit params, naming the path; params or an extra argument that is missing.
            TypeError: an extra argument that nothing here knows.
        """
        if extra:
            check_extra(self, extra)
        if params is not None:
            check_updates(type(self).__name__, params, updates)
        return self.run(updates, state, params, extra)

    def eval_params(self, state: Tree, params: Tree) -> Tree:
        """The parameters to evaluate the model with: an average, say. `params` itself unless a transform says other.

        Args:
            state: from the last `update`.
            params: the parameters that are trained.

        Example:
            >>> import torch, optfx
            >>> tx = optfx.chain(optfx.sgd(1.0), optfx.params_ema(0.75))
            >>> params = {"w": torch.tensor([1.0])}
            >>> updates, state = tx.update({"w": torch.tensor([4.0])}, tx.init(params), params)
            >>> params = optfx.apply_updates(params, updates)
            >>> params, tx.eval_params(state, params)
            ({'w': tensor([-3.])}, {'w': tensor([0.])})
        """
        for part, inner in self.parts(state).values():
            params = part.eval_params(inner, params)
        return params

    def __iter__(self) -> Iterator[Any]:
        return iter((self.init, self.update))

    # ---- what a transform that holds this one calls -----------------------------------------------

    def run(self, updates: Tree, state: Tree, params: Tree, extra: dict[str, Any]) -> tuple[Tree, Tree]:
        """The step, with those of the extra arguments that this transform knows."""
        if self.needs_params and params is None:
            raise ValueError(f"{type(self).__name__} needs params: call update(updates, state, params)")
        for name in self.needs:
            if extra.get(name) is None:
                words = f" ({EXTRA_ARGS[name]})" if name in EXTRA_ARGS else ""
                raise ValueError(
                    f"{type(self).__name__} needs the extra argument {name}{words}: "
                    f"call update(updates, state, params, {name}=...)"
                )
        if extra:
            known = self.extra_args
            extra = {name: x for name, x in extra.items() if name in known}
        if (reader := recorder()) is not None:
            return reader.update(self, updates, state, params, extra)
        return self.step(updates, state, params, **extra)

    # ---- what an author writes --------------------------------------------------------------------

    def begin(self, params: Tree) -> Tree:
        """The state before the first step, of params that have been checked."""
        raise NotImplementedError(f"{type(self).__name__} has no method `begin(self, params)`")

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        """One step; params are there if `needs_params` says so, and the extra arguments are those of `needs`, and
        those of `takes` that were given."""
        raise NotImplementedError(f"{type(self).__name__} has no method `step(self, updates, state, params)`")

    def at(self, count: Tensor) -> dict[str, Any]:
        """All numbers of this transform after `count` steps, by field: () tensors in the scalar dtype, a `tree.Share`
        for a `Decay`, None for None."""
        return hyper.at(self, count)

    # ---- what is inside ---------------------------------------------------------------------------

    @property
    def extra_args(self) -> frozenset[str]:
        """The extra arguments that this transform, or one inside it, knows."""
        return frozenset(self.needs + self.takes).union(*(tx.extra_args for tx in self.inside().values()))

    def asks_for(self, name: str) -> bool:
        """Whether this transform, or one inside it, declares an extra argument."""
        return name in self.needs + self.takes or any(tx.asks_for(name) for tx in self.inside().values())

    def inside(self) -> dict[str, GradientTransformation]:
        """The transforms that this one holds, by name; none unless it is a `Wrapper`."""
        return {}

    def parts(self, state: Tree) -> dict[str, tuple[GradientTransformation, Tree]]:
        """The transforms that this one holds, each with its part of the state."""
        return {}


def check_params(params: Tree) -> None:
    """Refuse a leaf that is no tensor, or one that is neither floating nor complex."""
    for i, leaf in enumerate(tree.leaves(params)):
        if not isinstance(leaf, Tensor):
            kind = f"a {type(leaf).__name__}, expected a tensor"
        elif not (leaf.dtype.is_floating_point or leaf.dtype.is_complex):
            kind = f"{leaf.dtype}, expected a floating or complex dtype"
        else:
            continue
        raise TypeError(f"the parameter at {tree.paths(params)[i]!r} is {kind}")


def check_extra(tx: GradientTransformation, extra: Iterable[str]) -> None:
    """Refuse extra arguments that neither the vocabulary nor `tx` knows."""
    known = set(EXTRA_ARGS) | set(tx.extra_args)
    if unknown := [name for name in extra if name not in known]:
        raise TypeError(
            f"{type(tx).__name__}.update: unknown argument {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def check_updates(who: str, params: Tree, updates: Tree) -> None:
    """Refuse updates that do not fit params, and live `nn.Parameter`s while gradients are recorded: each step would
    hang its graph on that of the last one."""
    (xs, structure), (ys, other) = tree.flatten(params), tree.flatten(updates)
    if words := misfit(params, xs, updates, ys if structure == other else None):
        raise ValueError(f"{who}: the tree of updates does not fit params: it {words}")
    if torch.is_grad_enabled():
        for i, p in enumerate(xs):
            if p.requires_grad and isinstance(p, torch.nn.Parameter):
                raise ValueError(
                    f"{who}: the parameter at {tree.paths(params)[i]!r} is an nn.Parameter that requires grad, so "
                    "every update would be recorded and memory would grow with each step. Use optfx.params(module), "
                    "or torch.no_grad(); to differentiate through the update, pass p.clone()"
                )


class Count(NamedTuple):
    """The state of a transform that remembers only how many steps it took."""

    count: Tensor  # () int64, steps taken


class Stateless(GradientTransformation):
    """A transform that remembers nothing of the gradients.

    A subclass writes `apply(updates, params, **numbers)`, which gets its numbers by the names of the fields. The state
    is a count of steps where it has numbers, so that each may be a schedule, and else empty.
    """

    def apply(self, updates: Tree, params: Tree, **numbers: Any) -> Tree:
        """The new updates; params are there if `needs_params` says so."""
        raise NotImplementedError(f"{type(self).__name__} has no method `apply(self, updates, params)`")

    def begin(self, params: Tree) -> Tree:
        return Count(hyper.counter(params)) if hyper.hyper_fields(self) else ()

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        if not hyper.hyper_fields(self):
            return self.apply(updates, params, **extra), state
        return self.apply(updates, params, **self.at(state.count), **extra), Count(state.count + 1)
