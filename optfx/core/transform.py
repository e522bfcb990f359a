"""What a gradient transformation is: a pure pair `init(params) -> state`, `update(updates, state, params)`.

Updates are added to params; only what owns the step size flips the sign. Every transform is a record, so it is a tree
of its tensor hyperparameters. Anything with `init` and `update` is accepted where a transform is.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from optfx.core.hyper import counter
from optfx.tree import Tree, flatten, paths, record
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


def _extra_names(function: Callable[..., Any], before: int) -> tuple[frozenset[str], bool]:
    """The keyword arguments that a function declares after its first ones, and whether it takes any other."""
    parameters = list(inspect.signature(function).parameters.values())[before:]
    named = frozenset(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def extra_for(tx: GradientTransformation, extra: dict[str, Any]) -> dict[str, Any]:
    """The extra arguments that a wrapper hands on to `tx`: the common ones and those it declares."""
    return {k: v for k, v in extra.items() if k in EXTRA_ARGS or k in tx.extra_args}


def check_extra(tx: GradientTransformation, extra: Iterable[str]) -> None:
    """Refuse extra arguments that neither the vocabulary nor `tx` knows."""
    known = set(EXTRA_ARGS) | set(tx.extra_args)
    if unknown := [name for name in extra if name not in known]:
        raise TypeError(
            f"{type(tx).__name__}.update: unknown argument {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def check_beside(who: str, params: Tree, updates: Tree) -> None:
    """Refuse updates that do not fit params, and live `nn.Parameter`s while gradients are recorded: each step would
    hang its graph on the last one's."""
    (xs, structure), (ys, other) = flatten(params), flatten(updates)
    if words := misfit(params, xs, updates, ys if structure == other else None):
        raise ValueError(f"{who}: beside params, the tree of updates {words}")
    if torch.is_grad_enabled():
        for i, p in enumerate(xs):
            if p.requires_grad and isinstance(p, torch.nn.Parameter):
                raise ValueError(
                    f"{who}: the parameter at {paths(params)[i]!r} is an nn.Parameter that requires grad, so every "
                    "update would be recorded and memory would grow with each step. Use optfx.params(module), or "
                    "torch.no_grad(); to differentiate through the update, pass p.clone()"
                )


def _checked(update: Callable[..., Any]) -> Callable[..., Any]:
    declared, takes_any = _extra_names(update, 4)

    def inside(self: Any, updates: Tree, state: Tree, params: Tree, extra: dict[str, Any]) -> Any:
        if not takes_any:
            extra = {k: v for k, v in extra.items() if k in declared}
        if (reader := recorder()) is not None:
            return reader.update(update, self, updates, state, params, extra)
        return update(self, updates, state, params, **extra)

    @functools.wraps(update)
    def checked(self: Any, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> Any:
        if extra:
            check_extra(self, extra)
        if params is not None:
            check_beside(type(self).__name__, params, updates)
        return inside(self, updates, state, params, extra)

    checked.inside = inside  # type: ignore[attr-defined]
    return checked


class GradientTransformation:
    """A pure `init`/`update` pair over parameter trees. It unpacks: `init, update = tx`.

    A subclass is a `record` with the two methods; keyword arguments that its `update` (or `apply`) names beyond
    `params` are the extra arguments that it declares.
    """

    _declared: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("update", "apply"):
            if name in cls.__dict__:
                cls._declared = _extra_names(cls.__dict__[name], 4)[0]
        if "update" in cls.__dict__:
            cls.update = _checked(cls.__dict__["update"])  # type: ignore[method-assign]

    @property
    def extra_args(self) -> frozenset[str]:
        """The extra arguments that this transform, or one inside it, declares."""
        inside = [tx for f in dataclasses.fields(self) for tx in transforms_in(getattr(self, f.name))]  # type: ignore[arg-type]
        return self._declared.union(*(tx.extra_args for tx in inside))

    def init(self, params: Tree) -> Tree:
        """The state before the first step.

        Args:
            params: tree of floating or complex tensors. No reference to it is kept.

        Returns:
            A tree of tensors whose structure, shapes, dtypes and devices never change afterwards.
        """
        raise NotImplementedError

    def update(self, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        """One step: the new updates and the new state; nothing is changed in place.

        Args:
            updates: tree of gradients, or of what the transform before made of them.
            state: from `init` or the last `update`.
            params: tree like `updates`; optional unless the transform says that it needs it.
            **extra: from `EXTRA_ARGS`, or declared by a transform.

        Returns:
            `(updates, state)`; the updates have the structure, shapes and dtypes of those given.
        """
        raise NotImplementedError

    def parts(self, state: Tree) -> dict[str, tuple[GradientTransformation, Tree]]:
        """The transforms inside with their part of the state, by name; empty for one that holds no other."""
        return {}

    def __iter__(self) -> Iterator[Any]:
        return iter((self.init, self.update))


def transforms_in(value: Any) -> list[GradientTransformation]:
    """The transforms that the field of a record holds."""
    if isinstance(value, GradientTransformation):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tx for item in items for tx in transforms_in(item)]


def need_params(tx: GradientTransformation, params: Tree) -> Tree:
    """`params`, or an error that names the transform which cannot do without."""
    if params is None:
        raise ValueError(f"{type(tx).__name__} needs params: call update(updates, state, params)")
    return params


def update_inside(
    tx: GradientTransformation, updates: Tree, state: Tree, params: Tree, extra: dict[str, Any]
) -> tuple[Tree, Tree]:
    """The update of a transform that another one holds: with the extra arguments that it knows, and without the checks
    that were made at the edge."""
    return type(tx).update.inside(tx, updates, state, params, extra_for(tx, extra))  # type: ignore[attr-defined]


class Count(NamedTuple):
    """The state of a transform that remembers only how many steps it took."""

    count: Tensor  # () int64, steps taken


class Memoryless(GradientTransformation):
    """A transform that remembers only how many steps it took, so that any field may be a schedule.

    A subclass defines `apply(updates, count, params) -> updates`.
    """

    def apply(self, updates: Tree, count: Tensor, params: Tree, **extra: Any) -> Tree:
        raise NotImplementedError

    def init(self, params: Tree) -> Count:
        return Count(counter(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        return self.apply(updates, state.count, params, **extra), Count(state.count + 1)


@record
class from_functions(GradientTransformation):
    """A pair of functions as a transform.

    Args:
        init_fn: params -> state.
        update_fn: (updates, state, params, **extra) -> (updates, state).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.from_functions(lambda params: (), lambda updates, state, params=None: (updates, state))
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))
        ({'w': tensor([1.])}, ())
    """

    init_fn: Callable[..., Any]
    update_fn: Callable[..., Any]
    names: tuple[str, ...] = dataclasses.field(init=False, repr=False)  # the extra arguments that update_fn takes

    def __post_init__(self) -> None:
        declared, takes_any = _extra_names(self.update_fn, 3)
        object.__setattr__(self, "names", tuple(sorted(declared | set(EXTRA_ARGS) if takes_any else declared)))

    @property
    def extra_args(self) -> frozenset[str]:
        return frozenset(self.names)

    def init(self, params: Tree) -> Tree:
        return self.init_fn(params)

    def update(self, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        return self.update_fn(updates, state, params, **{k: v for k, v in extra.items() if k in self.names})


def as_transform(x: Any) -> GradientTransformation:
    """`x` itself, or a foreign `init`/`update` pair (a NamedTuple of two functions, say) as a transform.

    Raises:
        TypeError: for what has no `init` and `update`.
    """
    if isinstance(x, GradientTransformation):
        return x
    if not (callable(getattr(x, "init", None)) and callable(getattr(x, "update", None))):
        raise TypeError(f"expected a transform or a pair with init and update, got {x!r}")
    return from_functions(x.init, x.update)
