"""Gradient noise."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from optfx import core, random, tree
from optfx.core import GradientTransformation, Hyper, NonNegative
from optfx.tree import Tree


class AddNoiseState(NamedTuple):
    """The state of `add_noise`."""

    count: Tensor  # () int64, steps taken
    keys: Tree  # like params, the random key of each leaf, (2,) int64


def noisy(u: Tensor, key: Tensor, std) -> Tensor:
    return u + std * random.normal(key, u.shape, u.dtype)


@tree.record
class add_noise(GradientTransformation):
    r"""Add Gaussian noise whose variance decays.

    $$u_t = g_t + \sqrt{\eta / t^\gamma}\; \xi_t, \qquad \xi_t \sim \mathcal N(0, 1), \qquad t = 1, 2, \dots$$

    The noise is a pure function of the key, the path of the leaf and the step. So a run that is repeated, or resumed
    from a saved state, sees the same noise, whatever else is in the tree.

    Args:
        eta: $\eta$, the variance of the noise at the first step.
        gamma: $\gamma$, how fast the variance falls.
        key: an int, or a key from `optfx.random.key`, (2,) int64. Give each member of a vmapped batch its own key.

    Raises:
        ValueError: two leaves share a path.

    Reference: Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015,
        <https://arxiv.org/abs/1511.06807>; optax, `add_noise`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.add_noise(eta=1.0, gamma=0.55, key=0)
        >>> tx.update({"w": torch.zeros(2)}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([-2.2230,  1.0080])}
    """

    eta: NonNegative
    gamma: Hyper
    key: int | Tensor

    def begin(self, params: Tree) -> AddNoiseState:
        key = self.key if isinstance(self.key, Tensor) else random.key(self.key)
        keys = random.split_like(key, params)
        return AddNoiseState(core.counter(params), tree.map(lambda k, p: k.to(p.device, copy=True), keys, params))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        std = tree.safe_sqrt(now["eta"] / count.to(tree.scalar_dtype(count.device)) ** now["gamma"])
        keys = tree.leafwise(random.fold_in, state.keys, data=count)
        return tree.leafwise(noisy, updates, keys, same_shapes=False, std=std), AddNoiseState(count, state.keys)
