"""Gradient centralization."""

from __future__ import annotations

from torch import Tensor

from optfx import core, tree
from optfx.tree import Tree


def center(u: Tensor) -> Tensor:
    return u - u.mean(tuple(range(1, u.ndim)), keepdim=True) if u.ndim > 1 else u


@tree.record
class centralize(core.Stateless):
    r"""Subtract the mean from the updates of each unit. The state is empty.

    $$u_i = g_i - \operatorname{mean}(g_i)$$

    A unit $i$ is all that belongs to one output: in PyTorch's layout (out, in, ...) the mean is over all dimensions but
    the first. Scalars and vectors do not change.

    Reference: Yong et al., "Gradient Centralization: A New Optimization Technique for Deep Neural Networks", 2020,
        <https://arxiv.org/abs/2004.01461>; optax, `centralize`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.centralize()
        >>> params = {"w": torch.tensor([[1.0, 3.0], [4.0, 8.0]])}
        >>> tx.update(params, tx.init(params))[0]
        {'w': tensor([[-1.,  1.],
                [-2.,  2.]])}
    """

    def apply(self, updates: Tree, params: Tree) -> Tree:
        return tree.leafwise(center, updates)
