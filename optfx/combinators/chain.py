"""One transform after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from optfx import core, tree
from optfx.core import GradientTransformation
from optfx.tree import Tree
from optfx.tree.record import show


def run_in_turn(
    steps: Iterable[GradientTransformation], states: Iterable[Tree], updates: Tree, params: Tree, extra: dict[str, Any]
) -> tuple[Tree, list[Tree]]:
    """Feed the updates of each step into the next; the updates of the last, and the new states in order."""
    given = {"grad": updates} | extra  # a step that asks for the gradient means what came into the chain
    new = []
    for step, state in zip(steps, states, strict=True):
        updates, state = step.run(updates, state, params, given if step.asks_for("grad") else extra)
        new.append(state)
    return updates, new


def refuse_two_steps(who: str, steps: Sequence[GradientTransformation]) -> None:
    """Refuse what would scale a step that is complete.

    Raises:
        ValueError: a final transform, or a learning rate, after a final one.
    """
    final = None
    for step in (part for tx in steps for part in _in_order(tx)):
        name = type(step).__name__
        if final is not None and (step.final or step.rate):
            raise ValueError(
                f"{who}: {name} after {final}, which is final: its updates have their rate and sign already"
            )
        final = name if step.final else final


def _in_order(tx: GradientTransformation) -> list[GradientTransformation]:
    """The transforms that all leaves go through, one after the other."""
    inside = [] if isinstance(tx, core.Wrapper) and tx.partial else tx.inside().values()
    return [part for x in inside for part in _in_order(x)] + [tx]


def describe(state: Any) -> str:
    """What was given as a state, in a few words."""
    if isinstance(state, dict):
        return f"a dict of {list(state)}"
    return f"a {type(state).__name__}" + (f" of {len(state)}" if isinstance(state, (tuple, list)) else "")


@tree.record
class chain(core.Wrapper):
    """Feed the updates of each transform into the next.

    Args:
        *steps: transforms, or foreign `init`/`update` pairs.

    The state is a tuple with an entry for each step. A step that needs `grad` gets the updates that the chain was
    given, unless the caller gives another.

    Raises:
        ValueError: a learning rate, or another final transform, after one that is final: it owns the rate and the sign.

    Reference: optax, `chain`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.clip(1.0), optfx.scale(-0.1))
        >>> updates, state = tx.update({"w": torch.tensor([5.0])}, tx.init({"w": torch.zeros(1)}))
        >>> updates
        {'w': tensor([-0.1000])}
    """

    holds = "steps"
    steps: tuple[GradientTransformation, ...]

    def __init__(self, *steps: Any) -> None:
        object.__setattr__(self, "steps", steps)
        self.__post_init__()
        refuse_two_steps("chain", self.steps)

    def states(self, state: Any) -> dict[str, Tree]:
        return {str(i): inner for i, inner in enumerate(state)}

    def begin(self, params: Tree) -> tuple[Tree, ...]:
        return tuple([tx.begin(params) for tx in self.steps])

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        if type(state) is not tuple or len(state) != len(self.steps):
            raise ValueError(f"chain: expected its state, a tuple of {len(self.steps)}, got {describe(state)}")
        updates, new = run_in_turn(self.steps, state, updates, params, extra)
        return updates, tuple(new)


@tree.record
class named_chain(core.Wrapper):
    """A chain whose steps have names, so that their states and numbers are found by name.

    Args:
        *steps: `(name, transform)` pairs.

    The state is a dict with an entry for each name.

    Raises:
        ValueError: two steps of one name; what `chain` refuses.

    Reference: optax, `named_chain`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.named_chain(("clip", optfx.clip_by_global_norm(1.0)), ("adam", optfx.adam(0.1)))
        >>> _, state = tx.update({"w": torch.tensor([3.0])}, tx.init({"w": torch.zeros(1)}))
        >>> optfx.tree.get(state, "clip.norm")
        tensor(3., dtype=torch.float64)
    """

    holds = "steps"
    steps: dict[str, GradientTransformation]

    def __init__(self, *steps: tuple[str, Any]) -> None:
        names = [name for name, _ in steps]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"named_chain: two steps are called {', '.join(sorted(twice))}")
        object.__setattr__(self, "steps", dict(steps))
        self.__post_init__()
        refuse_two_steps("named_chain", list(self.steps.values()))

    def __repr__(self) -> str:
        return f"named_chain({', '.join(map(show, self.steps.items()))})"

    def states(self, state: Any) -> dict[str, Tree]:
        return {name: state[name] for name in self.steps}

    def begin(self, params: Tree) -> dict[str, Tree]:
        return {name: tx.begin(params) for name, tx in self.steps.items()}

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        if type(state) is not dict or set(state) != set(self.steps):
            raise ValueError(f"named_chain: expected its state, a dict of {list(self.steps)}, got {describe(state)}")
        updates, new = run_in_turn(self.steps.values(), [state[name] for name in self.steps], updates, params, extra)
        return updates, dict(zip(self.steps, new, strict=True))
