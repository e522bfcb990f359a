"""One transform after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optfx import core, tree
from optfx.core import GradientTransformation
from optfx.tree import Tree


def run_in_turn(
    tx: core.Wrapper, state: Tree, updates: Tree, params: Tree, extra: dict[str, Any]
) -> tuple[Tree, dict[str, Tree]]:
    """Feed the updates of each step into the next. Returns those of the last, and the new states by name."""
    given = {"grad": updates} | extra  # a step that asks for the gradient wants what came into the chain
    new = {}
    for name, (step, inner) in tx.parts(state).items():
        updates, new[name] = step.run(updates, inner, params, given if step.asks_for("grad") else extra)
    return updates, new


def refuse_two_steps(who: str, steps: Sequence[GradientTransformation]) -> None:
    """Refuse to scale updates that are already final, and to flip the sign of all of them twice.

    Raises:
        ValueError: a final transform, or a learning rate, after a final one; two steps that flip the sign.
    """
    final = None
    for step in (part for tx in steps for part in in_order(tx)):
        name = type(step).__name__
        if final is not None and (step.final or step.is_rate):
            raise ValueError(
                f"{who}: {name} after {final}, which is final: its updates already have their rate and sign"
            )
        final = name if step.final else final
    if len(both := [i for i, step in enumerate(steps) if flips(step)]) > 1:
        raise ValueError(
            f"{who}: the steps {' and '.join(map(str, both))} have a learning rate each, which flips the sign, so the "
            "updates would go up the gradient: leave one out, or give it flip_sign=False"
        )


def flips(tx: GradientTransformation) -> bool:
    """Whether it flips the sign of every update."""
    if tx.final:
        return False  # nothing may follow it that flips
    if tx.is_rate:
        return getattr(tx, "flip_sign", True)
    inside = [flips(part) for part in tx.inside().values()]
    if isinstance(tx, core.Wrapper) and tx.partial:
        return len(inside) > 1 and all(inside)  # masks of single ones may leave each leaf to one of several
    return any(inside)


def in_order(tx: GradientTransformation) -> list[GradientTransformation]:
    """The transforms that every leaf goes through, in order; what a final wrapper holds is its own affair."""
    inside = [] if isinstance(tx, core.Wrapper) and (tx.partial or tx.final) else tx.inside().values()
    found = [part for x in inside for part in in_order(x)]
    if isinstance(tx, core.Wrapper) and tx.apart:  # no part is after one of another branch, so one final part will do
        found = [x for x in found if not x.final] + [x for x in found if x.final][:1]
    return [*found, tx]


@tree.record
class chain(core.Wrapper):
    """Feed the updates of each transform into the next.

    Args:
        *steps: transforms, or foreign `init`/`update` pairs.

    The state is a tuple with an entry for each step. A step that asks for `grad` gets the updates that were given to
    the chain, unless the caller passes another.

    Raises:
        ValueError: a learning rate or a final transform after a final one, which owns the rate and the sign; two
            learning rates, which would flip the sign twice.

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

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        updates, new = run_in_turn(self, state, updates, params, extra)
        return updates, tuple(new.values())


@tree.record
class named_chain(core.Wrapper):
    """A chain whose steps have names, by which their states and numbers are found.

    Args:
        *steps: `(name, transform)` pairs.

    The state is a dict with an entry for each name.

    Raises:
        ValueError: two steps with the same name; also what `chain` refuses.

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

    def _arguments(self, brief: bool) -> list[tuple[str, Any]]:
        return [("", pair) for pair in self.steps.items()]  # as `__init__` takes them

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        return run_in_turn(self, state, updates, params, extra)
