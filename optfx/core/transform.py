"""What a gradient transformation is: a pure pair `init(params) -> state`, `update(updates, state, params)`.

Three parties deal with a transform, and each has its own methods:

| who | methods | what they do |
|---|---|---|
| a user calls | `init`, `update` | check the arguments, then call `begin` and `run` |
| a transform that holds others calls | `begin`, `run` | call `step` with the extra arguments that it knows |
| an author defines | `begin`, `step` | are the transform itself |

Updates are added to params; only a transform that owns the step size flips the sign. Every transform is a record, so it
is a tree of those of its numbers that are tensors. Anything with `init` and `update` is accepted as a transform.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from optfx import tree
from optfx.core import hyper, select
from optfx.tree import Tree
from optfx.tree.record import is_live
from optfx.tree.recording import recorder
from optfx.tree.words import misfit

EXTRA_ARGS: dict[str, str] = {
    "value": "the loss at params, ()",
    "grad": "the gradient of the loss at params, before any transform",
    "value_fn": "params -> loss",
    "grad_fn": "params -> gradient of the loss",
    "obj_fn": "params -> objective, for estimates of its curvature",
}
"""The vocabulary of extra arguments of `update`. Every transform accepts these names, so that one training loop serves
every optimizer. Any other name is an error unless a transform declares it."""


class GradientTransformation:
    """A pure `init`/`update` pair over parameter trees. It unpacks: `init, update = tx`.

    A subclass is a `tree.record` that defines `begin` and `step`, and sets the attributes that hold for it.

    Attributes:
        needs_params: whether `step` needs params.
        needs: the extra arguments that `step` needs.
        takes: the extra arguments that `step` takes if they are given.
        final: whether it owns the step size and the sign, so that nothing may scale its updates afterwards.
        is_rate: whether it is the learning rate, which flips the sign.
        shows: the fields of the state that `hyperparams` shows beside the numbers, such as a factor of the rate.

    Example:
        >>> import torch
        >>> from optfx import core, tree
        >>> def accumulate(g, m, decay):
        ...     m = decay * m + g
        ...     return m, m
        >>> @tree.record
        ... class momentum(core.GradientTransformation):
        ...     decay: core.Hyper
        ...     def begin(self, params):
        ...         return core.counter(params), tree.zeros_like(params)
        ...     def step(self, updates, state, params):
        ...         count, m = state
        ...         updates, m = tree.elementwise(accumulate, updates, m, outs=2, **self.at(count))
        ...         return updates, (count + 1, m)
        >>> tx = momentum(0.5)
        >>> _, state = tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))
        >>> tx.update({"w": torch.ones(1)}, state)[0]
        {'w': tensor([1.5000])}
    """

    needs_params: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[tuple[str, ...]] = ()
    final: ClassVar[bool] = False
    is_rate: ClassVar[bool] = False
    shows: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense; one of your own calls this one."""
        hyper.check_numbers(self)

    # ---- what a user calls ------------------------------------------------------------------------

    def init(self, params: Tree) -> Tree:
        """The state before the first step.

        Args:
            params: tree of floating or complex tensors. No reference to it is kept.

        Returns:
            A tree of tensors whose structure, shapes, dtypes and devices never change afterwards.

        Raises:
            TypeError: a leaf that is not a floating or complex tensor, naming its path.
        """
        check_params(params)
        warn_of_idle_rules(self, params)
        return self.begin(params)

    def update(self, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        """One step: new updates and a new state. Nothing changes in place.

        Args:
            updates: tree of gradients, or what the transform before made of them.
            state: from `init` or the last `update`.
            params: tree like `updates`; optional unless the transform needs it.
            **extra: from `EXTRA_ARGS`, or declared by a transform.

        Returns:
            `(updates, state)`; the updates have the structure, shapes and dtypes of those given.

        Raises:
            ValueError: updates that do not fit params, or the state of something else, naming the path; params or an
                extra argument is missing.
            TypeError: an extra argument that is not in `EXTRA_ARGS`, nor declared by a transform.
        """
        if extra:
            check_extra(self, extra)
        if params is not None:
            check_updates(type(self).__name__, params, updates)
        if torch.compiler.is_compiling():
            return self.run(updates, state, params, extra)
        try:
            return self.run(updates, state, params, extra)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if words := self._foreign(state, updates if params is None else params):
                raise ValueError(f"{type(self).__name__}: this is not its state: it {words} ({error})") from error
            raise

    def eval_params(self, state: Tree, params: Tree) -> Tree:
        """The parameters to evaluate the model with, say an average; `params` itself unless a transform overrides it.

        Args:
            state: from the last `update`.
            params: the parameters being trained.

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
        """The step, with only the extra arguments that this transform knows."""
        if self.needs_params and params is None:
            raise ValueError(f"{type(self).__name__} needs params: call update(updates, state, params)")
        for name in self.needs:
            if extra.get(name) is None:
                words = f"{name} ({EXTRA_ARGS[name]})" if name in EXTRA_ARGS else name
                raise ValueError(
                    f"{type(self).__name__} needs the extra argument {words}: give {name}=... to `update` or `step`"
                )
        if extra:
            known = self.extra_args
            extra = {name: x for name, x in extra.items() if name in known}
        if (reader := recorder()) is not None:
            return reader.update(self, updates, state, params, extra)
        return self.step(updates, state, params, **extra)

    def _foreign(self, state: Tree, params: Tree) -> str | None:
        """How a state differs from one of this transform; None if it does not, or if that cannot be told."""
        if recorder() is not None:
            return None
        try:
            own = self.begin(params)
        except Exception:
            return None
        (xs, structure), (ys, other) = tree.flatten(own), tree.flatten(state)
        return misfit(own, xs, state, ys if structure == other else None)

    # ---- what an author writes --------------------------------------------------------------------

    def begin(self, params: Tree) -> Tree:
        """The state before the first step; params have been checked."""
        raise NotImplementedError(f"{type(self).__name__} has no method `begin(self, params)`")

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        """One step. `params` is never None if `needs_params`; the extra arguments are those in `needs`, and those in
        `takes` that were given."""
        raise NotImplementedError(f"{type(self).__name__} has no method `step(self, updates, state, params)`")

    def at(self, count: Tensor) -> dict[str, Any]:
        """All numbers of this transform after `count` steps, by field: () tensors in the scalar dtype, a `tree.Share`
        for a `Decay`, and None for None."""
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
    """Raise unless every leaf is a floating or complex tensor."""
    for i, leaf in enumerate(tree.leaves(params)):
        if not isinstance(leaf, Tensor):
            kind = f"a {type(leaf).__name__}, expected a tensor"
            if isinstance(leaf, (torch.nn.Module, Iterator)):
                kind += ": the parameters of a module are optfx.params(module)"
        elif not (leaf.dtype.is_floating_point or leaf.dtype.is_complex):
            kind = f"{leaf.dtype}, expected a floating or complex dtype"
        elif leaf.layout not in (torch.strided, torch.jagged):
            kind = f"{leaf.layout}, expected {torch.strided}"
        else:
            continue
        raise TypeError(f"the parameter at {tree.paths(params)[i]!r} is {kind}")


def warn_of_idle_rules(tx: GradientTransformation, params: Tree) -> None:
    """Warn of masks and labels that go by paths which no parameter has."""
    if torch.compiler.is_compiling() or recorder() is not None:  # a recorder may show parameters of its own
        return
    rules = {id(rule): (type(part).__name__, rule) for part in _all(tx) for rule in vars(part).values()}
    for who, rule in rules.values():
        for words in select.idle(rule, params):
            shown = ", ".join(tree.paths(params)[:8])
            warnings.warn(f"{who}: {words}; the paths are {shown}", stacklevel=3)


def _all(tx: GradientTransformation) -> Iterator[GradientTransformation]:
    yield tx
    for part in tx.inside().values():
        yield from _all(part)


def check_extra(tx: GradientTransformation, extra: Iterable[str]) -> None:
    """Raise on an extra argument that neither the vocabulary nor `tx` knows."""
    known = set(EXTRA_ARGS) | set(tx.extra_args)
    if unknown := [name for name in extra if name not in known]:
        raise TypeError(
            f"{type(tx).__name__}.update: unknown argument {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def check_updates(who: str, params: Tree, updates: Tree) -> None:
    """Raise on updates that do not fit params, and on live parameters while gradients are recorded: the graph of each
    step would hold on to the one before."""
    (xs, structure), (ys, other) = tree.flatten(params), tree.flatten(updates)
    if words := misfit(params, xs, updates, ys if structure == other else None):
        raise ValueError(f"{who}: the tree of updates does not fit params: it {words}")
    if torch.is_grad_enabled():
        for i, p in enumerate(xs):
            if is_live(p):
                kind = "an nn.Parameter" if isinstance(p, torch.nn.Parameter) else "a leaf"
                raise ValueError(
                    f"{who}: the parameter at {tree.paths(params)[i]!r} is {kind} that requires grad, so "
                    "every update would be recorded and memory would grow with each step. Use optfx.params(module), "
                    "p.detach() or torch.no_grad(); to differentiate through the update, pass p.clone()"
                )


class Count(NamedTuple):
    """The state of a transform that only counts its steps."""

    count: Tensor  # () int64, steps taken


class Stateless(GradientTransformation):
    """A transform that keeps nothing of past gradients.

    A subclass defines `apply(updates, params, **numbers)`, which gets its numbers by field name. The state is a step
    count if it has numbers, since each may be a schedule, and empty otherwise.

    Example:
        >>> import torch
        >>> from optfx import core, tree
        >>> def power(u, exponent):
        ...     return u.sign() * u.abs() ** exponent
        >>> @tree.record
        ... class raise_to(core.Stateless):
        ...     exponent: core.Hyper
        ...     def apply(self, updates, params, exponent):
        ...         return tree.elementwise(power, updates, exponent=exponent)
        >>> tx = raise_to(0.5)
        >>> tx.update({"w": torch.tensor([4.0, -9.0])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 2., -3.])}
    """

    def apply(self, updates: Tree, params: Tree, **numbers: Any) -> Tree:
        """The new updates. `params` is never None if `needs_params`."""
        raise NotImplementedError(f"{type(self).__name__} has no method `apply(self, updates, params)`")

    def begin(self, params: Tree) -> Tree:
        return Count(hyper.counter(params)) if hyper.hyper_fields(self) else ()

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        if not hyper.hyper_fields(self):
            return self.apply(updates, params, **extra), state
        return self.apply(updates, params, **self.at(state.count), **extra), Count(state.count + 1)
