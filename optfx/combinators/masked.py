"""Transforms for some leaves only: the others are taken out of the tree, so the inner transform keeps no state for
them and its norms do not see them."""

from __future__ import annotations

from typing import Any, NamedTuple

from optfx.core import GradientTransformation, as_transform, select, update_inside
from optfx.tree import Tree, merge, record, split


@record
class masked(GradientTransformation):
    """Apply a transform to the leaves that a mask selects; pass the updates of the others through unchanged.

    Args:
        inner: a transform.
        mask: what to select, always computed from params: a selector (`select.ndim(min=2)`), a function
            `params -> tree of bools`, or a tree of bools or prefix of one.

    The state is that of `inner` on the selected leaves.

    Raises:
        ValueError: a mask that does not fit the params, naming the path; a mask that is a function, and no params.

    Reference: optax, `masked` (which computes the mask from the updates).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.masked(optfx.scale(0.0), optfx.select.path("b"))
        >>> params = {"b": torch.ones(1), "w": torch.ones(1)}
        >>> tx.update(params, tx.init(params), params)[0]
        {'b': tensor([0.]), 'w': tensor([1.])}
    """

    inner: GradientTransformation
    mask: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", as_transform(self.inner))

    def parts(self, state: Tree) -> dict[str, Any]:
        return {"": (self.inner, state)}

    def init(self, params: Tree) -> Tree:
        return self.inner.init(split(params, select.resolve(self.mask, params, bool, "masked"))[0])

    def update(self, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        keep = select.resolve(self.mask, seen_by(self, self.mask, updates, params), bool, "masked")
        mine, rest = split(updates, keep)
        own = None if params is None else split(params, keep)[0]
        mine, state = update_inside(self.inner, mine, state, own, extra)
        return merge(mine, rest), state


def seen_by(tx: GradientTransformation, spec: Any, updates: Tree, params: Tree) -> Tree:
    """The tree that a mask or label is worked out on: params, which only a tree of values can do without."""
    if params is None:
        if callable(spec):
            raise ValueError(
                f"{type(tx).__name__} needs params, which its mask or labels are computed from: "
                "call update(updates, state, params)"
            )
        return updates
    return params


class PartitionState(NamedTuple):
    """The state of `partition`."""

    inner: dict[str, Tree]  # by label, the state of that transform on its leaves


@record
class partition(GradientTransformation):
    """Different transforms for different leaves.

    Args:
        transforms: `{label: transform}`.
        param_labels: the label of each leaf, always computed from params: `select.label({...})`, a function
            `params -> tree of strings`, or a tree of strings or prefix of one.

    Each transform sees only its leaves: a `clip_by_global_norm` inside measures the norm of its group. A
    group that is to stay as it is gets `set_to_zero()`.

    Raises:
        ValueError: a label that has no transform, naming the path; labels that do not fit the params.

    Reference: optax, `partition`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.partition({"slow": optfx.sgd(0.1), "fast": optfx.sgd(1.0)}, {"body": "slow", "head": "fast"})
        >>> params = {"body": torch.ones(1), "head": torch.ones(1)}
        >>> tx.update(params, tx.init(params), params)[0]
        {'body': tensor([-0.1000]), 'head': tensor([-1.])}
    """

    transforms: dict[str, GradientTransformation]
    param_labels: Any

    def __post_init__(self) -> None:
        transforms = {label: as_transform(tx) for label, tx in sorted(self.transforms.items())}
        object.__setattr__(self, "transforms", transforms)

    def parts(self, state: Tree) -> dict[str, Any]:
        return {label: (tx, state.inner[label]) for label, tx in self.transforms.items()}

    def _labels(self, params: Tree) -> list[str]:
        labels = select.resolve(self.param_labels, params, str, "partition")
        if unknown := set(labels) - set(self.transforms):
            raise ValueError(
                f"partition: no transform for the label {', '.join(sorted(unknown))}; there are {list(self.transforms)}"
            )
        return labels

    def init(self, params: Tree) -> PartitionState:
        labels = self._labels(params)
        return PartitionState(
            {
                label: tx.init(split(params, [own == label for own in labels])[0])
                for label, tx in self.transforms.items()
            }
        )

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        labels = self._labels(seen_by(self, self.param_labels, updates, params))
        new = {}
        for label, tx in self.transforms.items():
            keep = [own == label for own in labels]
            mine, rest = split(updates, keep)
            own = None if params is None else split(params, keep)[0]
            mine, new[label] = update_inside(tx, mine, state.inner[label], own, extra)
            updates = merge(mine, rest)
        return updates, PartitionState(new)
