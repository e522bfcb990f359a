"""The base of transforms that hold others: it converts them, names them, and finds their parts of the state."""

from __future__ import annotations

from typing import Any, ClassVar

from optfx import tree
from optfx.core import hyper
from optfx.core.foreign import as_transform
from optfx.core.transform import GradientTransformation
from optfx.tree import Tree


class Wrapper(GradientTransformation):
    """A transform around others, which it holds in one field (one transform, a tuple or a dict), or in several.

    A subclass defines `step`, which calls `run` of the transforms inside, and `begin` where a field holds a single one.
    The constructor turns foreign pairs into transforms. In the path of a number, a transform in a tuple or dict is
    named by its index or key, and one of several fields by its field; a single one adds nothing, unless the wrapper has
    numbers of its own: then it is named by its field.

    Example:
        >>> import torch, optfx
        >>> from optfx import core, tree
        >>> @tree.record
        ... class uphill(core.Wrapper):
        ...     inner: core.GradientTransformation
        ...     def states(self, state):
        ...         return {"": state}
        ...     def begin(self, params):
        ...         return self.inner.begin(params)
        ...     def step(self, updates, state, params, **extra):
        ...         updates, state = self.inner.run(updates, state, params, extra)
        ...         return tree.scale(-1.0, updates), state
        >>> tx = uphill(optfx.sgd(0.5))
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))[0]
        {'w': tensor([0.5000])}
    """

    holds: ClassVar[str | tuple[str, ...]] = "inner"  # the field that holds them, or the fields that hold one each
    partial: ClassVar[bool] = False  # whether they see only some of the leaves
    apart: ClassVar[bool] = False  # whether each sees the same updates, and none those of another

    def __post_init__(self) -> None:
        for field in self.fields():
            held = getattr(self, field)
            if isinstance(held, dict):
                held = {k: as_transform(tx) for k, tx in held.items()}
            else:
                held = tuple(map(as_transform, held)) if isinstance(held, (tuple, list)) else as_transform(held)
            object.__setattr__(self, field, held)
        super().__post_init__()

    @classmethod
    def fields(cls) -> tuple[str, ...]:
        """The fields that hold transforms."""
        return (cls.holds,) if isinstance(cls.holds, str) else cls.holds

    def inside(self) -> dict[str, GradientTransformation]:
        if isinstance(self.holds, tuple):
            return {field: getattr(self, field) for field in self.holds}
        held = getattr(self, self.holds)
        if isinstance(held, tuple):
            return {str(i): tx for i, tx in enumerate(held)}
        return held if isinstance(held, dict) else {self._name: held}

    @property
    def _name(self) -> str:
        return self.fields()[0] if hyper.hyper_fields(self) else ""  # else two numbers could share a path

    def with_inside(self, new: dict[str, GradientTransformation]) -> Any:
        """The same wrapper around other transforms, by the names of `inside`."""
        if isinstance(self.holds, tuple):
            return tree.replace(self, **new)
        held: Any = getattr(self, self.holds)
        if not isinstance(held, dict):
            held = tuple(new.values()) if isinstance(held, tuple) else new[self._name]
        else:
            held = new
        return tree.replace(self, **{self.holds: held})

    def begin(self, params: Tree) -> Any:
        """The states of several, in a tuple or dict like the one that holds them."""
        held: Any = getattr(self, self.fields()[0])
        if isinstance(held, dict):
            return {name: tx.begin(params) for name, tx in held.items()}
        return tuple([tx.begin(params) for tx in held])

    def states(self, state: Any) -> dict[str, Tree]:
        """The part of the state that belongs to each transform inside: an entry of what `begin` makes, for one the
        field `inner`, and for one of several fields the field of its name.

        Raises:
            ValueError: the state of something else.
        """
        who = type(self).__name__
        if isinstance(self.holds, tuple):
            if not all(hasattr(state, field) for field in self.holds):
                raise ValueError(f"{who}: expected its state, got {_described(state)}")
            return {field: getattr(state, field) for field in self.holds}
        held = getattr(self, self.holds)
        if isinstance(held, tuple):
            if type(state) is not tuple or len(state) != len(held):
                raise ValueError(f"{who}: expected its state, a tuple of {len(held)}, got {_described(state)}")
            return {str(i): inner for i, inner in enumerate(state)}
        if isinstance(held, dict):
            if type(state) is not dict or set(state) != set(held):
                raise ValueError(f"{who}: expected its state, a dict of {list(held)}, got {_described(state)}")
            return {name: state[name] for name in held}
        if not hasattr(state, "inner"):
            raise ValueError(f"{who}: expected its state, got {_described(state)}")
        return {self._name: state.inner}

    def parts(self, state: Tree) -> dict[str, tuple[GradientTransformation, Tree]]:
        inside = self.inside()
        return {name: (inside[name], inner) for name, inner in self.states(state).items()}


def _described(state: Any) -> str:
    """What was given as a state, in a few words."""
    if isinstance(state, dict):
        return f"a dict of {list(state)}"
    return f"a {type(state).__name__}" + (f" of {len(state)}" if isinstance(state, (tuple, list)) else "")
