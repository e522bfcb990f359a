"""Foreign transforms: any pair of `init` and `update` functions."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

from optfx import tree
from optfx.core.transform import EXTRA_ARGS, GradientTransformation
from optfx.tree import Tree


@tree.record
class from_functions(GradientTransformation):
    """A pair of functions as a transform.

    Args:
        init_fn: params -> state.
        update_fn: (updates, state, params, **extra) -> (updates, state).

    Example:
        >>> import torch
        >>> from optfx import core
        >>> tx = core.from_functions(lambda params: (), lambda updates, state, params=None: (updates, state))
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))
        ({'w': tensor([1.])}, ())
    """

    init_fn: Callable[..., Any]
    update_fn: Callable[..., Any]
    names: tuple[str, ...] = dataclasses.field(init=False, repr=False)  # the extra arguments that update_fn names
    takes_any: bool = dataclasses.field(init=False, repr=False)  # whether it takes any others

    def __post_init__(self) -> None:
        parameters = list(inspect.signature(self.update_fn).parameters.values())[3:]
        names = tuple(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "takes_any", any(p.kind is p.VAR_KEYWORD for p in parameters))

    @property
    def extra_args(self) -> frozenset[str]:
        return frozenset((*self.names, *EXTRA_ARGS) if self.takes_any else self.names)

    def asks_for(self, name: str) -> bool:
        return name in self.names

    def begin(self, params: Tree) -> Tree:
        return self.init_fn(params)

    def step(self, updates: Tree, state: Tree, params: Tree, **extra: Any) -> tuple[Tree, Tree]:
        return self.update_fn(updates, state, params, **extra)


def as_transform(x: Any) -> GradientTransformation:
    """`x` as a transform: itself, or a foreign `init`/`update` pair wrapped in `from_functions`.

    Args:
        x: a transform, or anything with functions `init` and `update`, such as a NamedTuple of two functions.

    Raises:
        TypeError: `x` has no `init` and `update`.

    Example:
        >>> from typing import NamedTuple
        >>> from optfx import core
        >>> class Pair(NamedTuple):
        ...     init: object
        ...     update: object
        >>> type(core.as_transform(Pair(lambda params: (), lambda updates, state, params=None: (updates, state))))
        <class 'optfx.core.foreign.from_functions'>
    """
    if isinstance(x, GradientTransformation):
        return x
    is_class = isinstance(x, type) and issubclass(x, GradientTransformation)
    if is_class or not (callable(getattr(x, "init", None)) and callable(getattr(x, "update", None))):
        raise TypeError(f"expected a transform or a pair with init and update, got {x!r}{_advice(x)}")
    return from_functions(x.init, x.update)


def _advice(x: Any) -> str:
    """What to do about something in the place of a transform."""
    if isinstance(x, torch.optim.Optimizer):
        return ": optfx.interop.from_torch makes a transform of it"
    if isinstance(x, torch.nn.Module):
        return ": a module is given to `init`"
    if isinstance(x, tuple) and len(x) == 2 and all(inspect.isfunction(f) for f in x):
        return ": two functions become a transform by core.from_functions(init, update)"
    if isinstance(x, (list, tuple, Iterator)):
        return ": transforms are given one by one, chain(*steps)"
    if isinstance(x, (float, torch.Tensor)):
        return f": a rate belongs to an optimizer, sgd({x!r})"
    if callable(x) and hasattr(x, "__name__"):
        return f": call it first, {x.__name__}(...)"
    return ""
