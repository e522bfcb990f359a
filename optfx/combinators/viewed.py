"""Leaves in another shape, or in parts, for a transform that looks at shapes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from optfx import core, tree
from optfx.combinators.masked import tree_to_mask
from optfx.combinators.views import View
from optfx.core import GradientTransformation, select
from optfx.tree import Tree
from optfx.tree.recording import recorder


@tree.record
class viewed(core.Wrapper):
    """Show a transform some leaves in another shape, or in parts. What it makes of them goes back into the old shape.

    Args:
        inner: a transform. Its state is that of the leaves as it sees them: where a leaf is shown in parts, `qkv` say,
            their paths are `qkv.0`, `qkv.1` and so on. Masks and labels inside see these too.
        view: from `optfx.combinators.views`: `as_matrix()` for kernels, `split(3)` for queries, keys and values in one
            leaf, `heads(n)`, `merged(size)`, `blocks(size)`; or any `View`.
        mask: the leaves to show so, computed from params as in `masked`; others are shown as they are.

    Extra arguments with the structure of params are shown likewise. Several views are one `viewed` in another.

    Raises:
        ValueError: a mask that does not fit the params, naming the path; the mask is a function and params are missing;
            a leaf that the view does not fit, naming the path.

    Reference: what Muon's code does for kernels, Dion's for heads and Shampoo's for blocks, in one place.

    Example:
        >>> import torch, optfx
        >>> from optfx.combinators import views
        >>> tx = optfx.viewed(optfx.equilibrate_rows(), views.as_matrix(), optfx.select.ndim(min=3))
        >>> params = {"kernel": torch.full((1, 2, 2, 2), 3.0)}
        >>> tx.update(params, tx.init(params), params)[0]["kernel"].norm()
        tensor(1.)
    """

    inner: GradientTransformation
    view: View
    mask: Any = True

    def _show(self, x: Tree, keep: list[bool]) -> tuple[Tree, list[int]]:
        """A tree as the transform inside sees it, and in how many parts each leaf."""
        shown = [
            self._parts(path, leaf) if k else [leaf]
            for path, leaf, k in zip(tree.paths(x), tree.leaves(x), keep, strict=True)
        ]
        seen = [parts[0] if len(parts) == 1 else parts for parts in shown]
        return tree.unflatten_like(x, seen), [*map(len, shown)]

    def _parts(self, path: str, x: Tensor) -> list[Tensor]:
        try:
            return self.view.parts(x)
        except (IndexError, RuntimeError, ValueError) as error:
            if recorder() is not None:
                raise
            words = f"{self.view!r} does not fit {path!r} of shape {tuple(x.shape)}"
            raise ValueError(f"viewed: {words}: {error}. Leave it out with `mask`") from error

    def _back(self, x: Tree, like: Tree, keep: list[bool], counts: list[int]) -> Tree:
        """A tree that the transform inside has made, as others see it."""
        parts, found = iter(tree.leaves(x)), []
        for leaf, k, n in zip(tree.leaves(like), keep, counts, strict=True):
            mine = [next(parts) for _ in range(n)]
            found.append(self.view.whole(mine, leaf) if k else mine[0])
        return tree.unflatten_like(like, found)

    def _keep(self, params: Tree) -> list[bool]:
        return select.resolve(self.mask, params, bool, "viewed")

    def states(self, state: Tree) -> dict[str, Tree]:
        return {"": state}

    def begin(self, params: Tree) -> Tree:
        return self.inner.begin(self._show(params, self._keep(params))[0])

    def step(self, updates: Tree, state: Tree, params: Tree, **extra: Any) -> tuple[Tree, Tree]:
        keep = self._keep(tree_to_mask(self, self.mask, updates, params))
        structure, single = tree.flatten(updates)[1], isinstance(updates, Tensor)
        extra = {
            name: self._show(x, keep)[0] if tree.flatten(x)[1] == structure and (name == "grad" or not single) else x
            for name, x in extra.items()
        }
        seen = None if params is None else self._show(params, keep)[0]
        shown, counts = self._show(updates, keep)
        new, state = self.inner.run(shown, state, seen, extra)
        return self._back(new, updates, keep, counts), state

    def eval_params(self, state: Tree, params: Tree) -> Tree:
        keep = self._keep(params)
        shown, counts = self._show(params, keep)
        return self._back(self.inner.eval_params(state, shown), params, keep, counts)
