"""What transforms that hold others share: the foreign ones among those, their names, their part of the state."""

from __future__ import annotations

from typing import Any, ClassVar

from optfx import tree
from optfx.core import hyper
from optfx.core.foreign import as_transform
from optfx.core.transform import GradientTransformation
from optfx.tree import Tree


class Wrapper(GradientTransformation):
    """A transform around others: it holds them in one field, alone, in a tuple or in a dict.

    A subclass writes `step`, which calls `run` of what it holds, and `begin` where that is one. Foreign pairs become
    transforms when it is made. What it holds goes by its place or key where it is several. Where it is one, it adds
    nothing to the path of a number, unless the wrapper has numbers of its own: then it goes by the name of the field.
    """

    holds: ClassVar[str] = "inner"  # the field
    partial: ClassVar[bool] = False  # whether what it holds sees only some of the leaves

    def __post_init__(self) -> None:
        held = getattr(self, self.holds)
        if isinstance(held, dict):
            held = {k: as_transform(tx) for k, tx in held.items()}
        else:
            held = tuple(map(as_transform, held)) if isinstance(held, (tuple, list)) else as_transform(held)
        object.__setattr__(self, self.holds, held)

    def inside(self) -> dict[str, GradientTransformation]:
        held = getattr(self, self.holds)
        if isinstance(held, tuple):
            return {str(i): tx for i, tx in enumerate(held)}
        return held if isinstance(held, dict) else {self._name: held}

    @property
    def _name(self) -> str:
        return self.holds if hyper.hyper_fields(self) else ""  # a path is that of one number

    def with_inside(self, new: dict[str, GradientTransformation]) -> Any:
        """The same around other transforms, given by the names of `inside`."""
        held: Any = getattr(self, self.holds)
        if not isinstance(held, dict):
            held = tuple(new.values()) if isinstance(held, tuple) else new[self._name]
        else:
            held = new
        return tree.replace(self, **{self.holds: held})

    def begin(self, params: Tree) -> Any:
        """The states of several, in a tuple or dict like the one that holds them."""
        held: Any = getattr(self, self.holds)
        if isinstance(held, dict):
            return {name: tx.begin(params) for name, tx in held.items()}
        return tuple([tx.begin(params) for tx in held])

    def states(self, state: Any) -> dict[str, Tree]:
        """The part of the state that belongs to each transform inside: an entry of what `begin` makes, or for one the
        field `inner`.

        Raises:
            ValueError: the state of something else.
        """
        held, who = getattr(self, self.holds), type(self).__name__
        if isinstance(held, tuple):
            if type(state) is not tuple or len(state) != len(held):
                raise ValueError(f"{who}: expected its state, a tuple of {len(held)}, got {_described(state)}")
            return {str(i): inner for i, inner in enumerate(state)}
        if isinstance(held, dict):
            if type(state) is not dict or set(state) != set(held):
                raise ValueError(f"{who}: expected its state, a dict of {list(held)}, got {_described(state)}")
            return {name: state[name] for name in held}
        return {self._name: state.inner}

    def parts(self, state: Tree) -> dict[str, tuple[GradientTransformation, Tree]]:
        inside = self.inside()
        return {name: (inside[name], inner) for name, inner in self.states(state).items()}


def _described(state: Any) -> str:
    """What was given as a state, in a few words."""
    if isinstance(state, dict):
        return f"a dict of {list(state)}"
    return f"a {type(state).__name__}" + (f" of {len(state)}" if isinstance(state, (tuple, list)) else "")
