"""One transform after another."""

from __future__ import annotations

from typing import Any

from optfx.core import GradientTransformation, as_transform, update_inside
from optfx.tree import Tree, record
from optfx.tree.record import show


def run_in_turn(steps: Any, states: Any, updates: Tree, params: Tree, extra: dict[str, Any]) -> tuple[Tree, list[Tree]]:
    """Feed the updates of each step into the next; the updates of the last, and the new states in order."""
    new = []
    for step, state in zip(steps, states, strict=True):
        updates, state = update_inside(step, updates, state, params, extra)
        new.append(state)
    return updates, new


def shape_of(state: Any) -> str:
    """What came in the place of a state, in a few words."""
    if isinstance(state, dict):
        return f"a dict of {list(state)}"
    return f"a {type(state).__name__}" + (f" of {len(state)}" if isinstance(state, (tuple, list)) else "")


@record
class chain(GradientTransformation):
    """Feed the updates of each transform into the next.

    Args:
        *steps: transforms, or foreign `init`/`update` pairs.

    The state is a tuple with an entry for each step.

    Reference: optax, `chain`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.clip(1.0), optfx.scale(-0.1))
        >>> updates, state = tx.update({"w": torch.tensor([5.0])}, tx.init({"w": torch.zeros(1)}))
        >>> updates
        {'w': tensor([-0.1000])}
    """

    steps: tuple[GradientTransformation, ...]

    def __init__(self, *steps: Any) -> None:
        object.__setattr__(self, "steps", tuple(map(as_transform, steps)))

    def parts(self, state: Tree) -> dict[str, Any]:
        return {str(i): pair for i, pair in enumerate(zip(self.steps, state, strict=True))}

    def init(self, params: Tree) -> tuple[Tree, ...]:
        return tuple(step.init(params) for step in self.steps)

    def update(self, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        if type(state) is not tuple or len(state) != len(self.steps):
            raise ValueError(f"chain: expected its state, a tuple of {len(self.steps)}, got {shape_of(state)}")
        updates, new = run_in_turn(self.steps, state, updates, params, extra)
        return updates, tuple(new)


@record
class named_chain(GradientTransformation):
    """A chain whose steps have names, so that their states and hyperparameters are found by name.

    Args:
        *steps: `(name, transform)` pairs.

    The state is a dict with an entry for each name.

    Raises:
        ValueError: two steps of one name.

    Reference: optax, `named_chain`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.named_chain(("clip", optfx.clip_by_global_norm(1.0)), ("adam", optfx.adam(0.1)))
        >>> _, state = tx.update({"w": torch.tensor([3.0])}, tx.init({"w": torch.zeros(1)}))
        >>> optfx.tree.get(state, "clip.norm")
        tensor(3., dtype=torch.float64)
    """

    names: tuple[str, ...]
    steps: tuple[GradientTransformation, ...]

    def __init__(self, *steps: tuple[str, Any]) -> None:
        names = tuple(name for name, _ in steps)
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"named_chain: two steps are called {', '.join(sorted(twice))}")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "steps", tuple(as_transform(step) for _, step in steps))

    def __repr__(self) -> str:
        return f"named_chain({', '.join(map(show, zip(self.names, self.steps, strict=True)))})"

    def parts(self, state: Tree) -> dict[str, Any]:
        return {name: (step, state[name]) for name, step in zip(self.names, self.steps, strict=True)}

    def init(self, params: Tree) -> dict[str, Tree]:
        return {name: step.init(params) for name, step in zip(self.names, self.steps, strict=True)}

    def update(self, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        if type(state) is not dict or set(state) != set(self.names):
            raise ValueError(f"named_chain: expected its state, a dict of {list(self.names)}, got {shape_of(state)}")
        updates, new = run_in_turn(self.steps, [state[name] for name in self.names], updates, params, extra)
        return updates, dict(zip(self.names, new, strict=True))
