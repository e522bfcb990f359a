"""All leaves as one vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation
from optfx.tree import Tree
from optfx.tree.sharded import is_sharded


def vector(x: Tree) -> Tensor:
    """The elements of all leaves, one after another.

    Raises:
        TypeError: leaves of several dtypes, or sharded ones, naming the path.
    """
    found = tree.leaves(x)
    for path, leaf in zip(tree.paths(x), found, strict=True):
        if is_sharded(leaf):
            raise TypeError(f"flatten: the leaf at {path!r} is sharded, and a vector of all leaves has no such shards")
        if leaf.dtype != found[0].dtype:
            raise TypeError(f"flatten: the leaf at {path!r} is {leaf.dtype}, and others are {found[0].dtype}")
    return torch.cat([leaf.reshape(-1) for leaf in found]) if found else torch.zeros(0)


def leaves_of(x: Tensor, like: Tree) -> Tree:
    """The leaves again, with the shapes of `like`."""
    found = tree.leaves(like)
    parts = x.split([leaf.numel() for leaf in found]) if found else ()
    return tree.unflatten_like(like, [part.reshape(leaf.shape) for part, leaf in zip(parts, found, strict=True)])


@tree.record
class flatten(core.Wrapper):
    """Show a transform all leaves as one vector, as if the model had a single parameter.

    What looks at whole leaves looks at all of them then: block clipping becomes global, and a matrix of curvature is
    that of all parameters. Extra arguments with the structure of the updates become vectors too.

    Args:
        inner: a transform. Masks and labels inside see the vector, not its parts.

    Raises:
        TypeError: leaves of several dtypes, or sharded ones (`DTensor`), naming the path.

    Reference: optax, `flatten` (which lets dtypes mix).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.flatten(optfx.clip_by_block_rms(1.0))
        >>> params = {"a": torch.zeros(1), "b": torch.zeros(3)}
        >>> tx.update({"a": torch.tensor([4.0]), "b": torch.zeros(3)}, tx.init(params))[0]
        {'a': tensor([2.]), 'b': tensor([0., 0., 0.])}
    """

    inner: GradientTransformation

    def states(self, state: Tree) -> dict[str, Tree]:
        return {"": state}

    def begin(self, params: Tree) -> Tree:
        return self.inner.begin(vector(params))

    def step(self, updates: Tree, state: Tree, params: Tree, **extra: Any) -> tuple[Tree, Tree]:
        structure = tree.flatten(updates)[1]
        extra = {k: vector(x) if tree.flatten(x)[1] == structure else x for k, x in extra.items()}
        new, state = self.inner.run(vector(updates), state, None if params is None else vector(params), extra)
        return leaves_of(new, updates), state

    def eval_params(self, state: Tree, params: Tree) -> Tree:
        flat = vector(params)
        found = self.inner.eval_params(state, flat)
        return params if found is flat else leaves_of(found, params)
