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

    A subclass writes `begin` and `step`, which call `begin` and `run` of what it holds. Foreign pairs become transforms
    when it is made. What it holds goes by its place or key where it is several. Where it is one, it adds nothing to the
    path of a number, unless the wrapper has numbers of its own: then it goes by the name of the field.
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

    def states(self, state: Any) -> dict[str, Tree]:
        """The part of the state that belongs to each transform inside: the field `inner`, unless a subclass says
        other."""
        return {self._name: state.inner}

    def parts(self, state: Tree) -> dict[str, tuple[GradientTransformation, Tree]]:
        inside = self.inside()
        return {name: (inside[name], inner) for name, inner in self.states(state).items()}
