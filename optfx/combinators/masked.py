"""Transforms for some of the leaves: the others are taken out of the tree, so the inner transform keeps no state for
them and its norms do not include them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, select
from optfx.tree import Tree


def masked_by(keep: list[bool], updates: Tree, params: Tree, extra: dict[str, Any]) -> tuple[Tree, Tree, Tree, dict]:
    """The leaves to keep of the updates, the other updates, and the leaves to keep of params and of the extra arguments
    that have their structure."""
    kept, rest = tree.split(updates, keep)
    structure, single = tree.flatten(updates)[1], isinstance(updates, Tensor)

    def select_from(x: Any) -> Any:
        return tree.split(x, keep)[0] if tree.flatten(x)[1] == structure else x

    # a single parameter has the structure of any tensor, the loss included: then only `grad` is known to match
    extra = {name: select_from(x) if name == "grad" or not single else x for name, x in extra.items()}
    return kept, rest, None if params is None else select_from(params), extra


def tree_to_mask(tx: GradientTransformation, spec: Any, updates: Tree, params: Tree) -> Tree:
    """The tree that a mask or labels are computed from: params, or updates of that structure if the mask is a tree."""
    if params is not None:
        return params
    if select.is_rule(spec, updates):
        raise ValueError(
            f"{type(tx).__name__} needs params, which its mask or labels are computed from: "
            "call update(updates, state, params)"
        )
    return updates


@tree.record
class masked(core.Wrapper):
    """Apply a transform to the leaves that a mask selects, and pass the other updates through unchanged.

    Args:
        inner: a transform.
        mask: what to select, always computed from params: a selector (`select.ndim(min=2)`), a function
            `params -> tree of bools`, or a tree of bools or prefix of one.

    The state is that of `inner` on the selected leaves. Extra arguments with the structure of params are masked too.

    Raises:
        ValueError: a mask that does not fit the params, naming the path; the mask is a function and params are missing.

    Reference: optax, `masked` (which computes the mask from the updates).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.masked(optfx.scale(0.0), optfx.select.path("b"))
        >>> params = {"b": torch.ones(1), "w": torch.ones(1)}
        >>> tx.update(params, tx.init(params), params)[0]
        {'b': tensor([0.]), 'w': tensor([1.])}
    """

    partial = True
    inner: GradientTransformation
    mask: Any

    def _keep(self, params: Tree) -> list[bool]:
        return select.resolve(self.mask, params, bool, "masked")

    def states(self, state: Tree) -> dict[str, Tree]:
        return {"": state}

    def begin(self, params: Tree) -> Tree:
        return self.inner.begin(tree.split(params, self._keep(params))[0])

    def step(self, updates: Tree, state: Tree, params: Tree, **extra: Any) -> tuple[Tree, Tree]:
        keep = self._keep(tree_to_mask(self, self.mask, updates, params))
        kept, rest, params, extra = masked_by(keep, updates, params, extra)
        kept, state = self.inner.run(kept, state, params, extra)
        return tree.merge(kept, rest), state

    def eval_params(self, state: Tree, params: Tree) -> Tree:
        kept, rest = tree.split(params, self._keep(params))
        return tree.merge(self.inner.eval_params(state, kept), rest)


@tree.record
class partition(core.Wrapper):
    """Different transforms for different leaves.

    Args:
        transforms: `{label: transform}`.
        param_labels: the label of each leaf, always computed from params: `select.label({...})`, a function
            `params -> tree of strings`, or a tree of strings or prefix of one.

    Each transform sees only its own leaves: a `clip_by_global_norm` inside measures the norm of its group. Use
    `set_to_zero()` for a group that should not change. Extra arguments with the structure of params are split too.

    The state is a dict with an entry for each label.

    Raises:
        ValueError: a label without a transform, naming it; labels that do not fit the params, naming the path; the
            labels are a function and params are missing.

    Reference: optax, `partition`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.partition({"slow": optfx.sgd(0.1), "fast": optfx.sgd(1.0)}, {"body": "slow", "head": "fast"})
        >>> params = {"body": torch.ones(1), "head": torch.ones(1)}
        >>> tx.update(params, tx.init(params), params)[0]
        {'body': tensor([-0.1000]), 'head': tensor([-1.])}
    """

    holds, partial = "transforms", True
    transforms: dict[str, GradientTransformation]
    param_labels: Any

    def _keep(self, params: Tree) -> dict[str, list[bool]]:
        """Which leaves have each label."""
        labels = select.resolve(self.param_labels, params, str, "partition")
        if unknown := set(labels) - set(self.transforms):
            raise ValueError(
                f"partition: no transform for the label {', '.join(sorted(unknown))}; there are {list(self.transforms)}"
            )
        return {label: [x == label for x in labels] for label in self.transforms}

    def begin(self, params: Tree) -> dict[str, Tree]:
        keep = self._keep(params)
        return {label: tx.begin(tree.split(params, keep[label])[0]) for label, tx in self.transforms.items()}

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        new: dict[str, Tree] = {}
        for label, keep in self._keep(tree_to_mask(self, self.param_labels, updates, params)).items():
            kept, rest, kept_params, kept_extra = masked_by(keep, updates, params, extra)
            kept, new[label] = self.transforms[label].run(kept, state[label], kept_params, kept_extra)
            updates = tree.merge(kept, rest)
        return updates, new

    def eval_params(self, state: Any, params: Tree) -> Tree:
        for label, keep in self._keep(params).items():
            kept, rest = tree.split(params, keep)
            params = tree.merge(self.transforms[label].eval_params(state[label], kept), rest)
        return params
