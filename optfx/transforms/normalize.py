"""Updates of a given norm, all leaves together."""

from __future__ import annotations

from typing import Any

import torch

from optfx import core, tree
from optfx.core import Hyper, NonNegative
from optfx.hints import hinted
from optfx.transforms.spheres import where_positive
from optfx.tree import Tree


@tree.record
class normalize_by_update_norm(core.Stateless):
    r"""Give the whole tree of updates a norm that does not depend on the gradients.

    $$u = \frac{\sigma\, g}{\lVert g \rVert_2 + \varepsilon}$$

    Args:
        scale_factor: $\sigma$, the norm; a negative one flips the sign.
        eps: $\varepsilon$.

    Zero gradients give zero updates, whatever $\varepsilon$ is.

    Reference: optax, `normalize_by_update_norm`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.normalize_by_update_norm(eps=0.0)
        >>> tx.update({"w": torch.tensor([3.0, 4.0])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([0.6000, 0.8000])}
    """

    scale_factor: Hyper = 1.0
    eps: NonNegative = 1e-6

    def apply(self, updates: Tree, params: Tree, scale_factor: Any, eps: Any) -> Tree:
        size = tree.norm(updates).to(scale_factor) + eps
        return tree.elementwise(torch.mul, updates, other=scale_factor / where_positive(size))


@hinted
def normalize() -> normalize_by_update_norm:
    r"""Give the whole tree of updates the norm 1: $u = g / \lVert g \rVert_2$, or 0 if there is no gradient.

    Reference: optax, `contrib.normalize` (NaN at zero gradients).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.normalize()
        >>> tx.update({"w": torch.tensor([3.0, 4.0])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([0.6000, 0.8000])}
    """
    return normalize_by_update_norm(1.0, 0.0)
