"""Last parts for parameters in half precision, in which small steps are lost where they are added."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, random, tree
from optfx.core import GradientTransformation, apply_updates
from optfx.tree import Tree
from optfx.tree.dtypes import HALF


def gap(u: Tensor, p: Tensor, target: Tensor) -> Tensor:
    return target - p


def lost(e: Tensor, wanted: Tensor, p: Tensor, new: Tensor) -> Tensor:
    return wanted - (new - p)


class CompensateState(NamedTuple):
    """The state of `compensate`."""

    error: Tree  # like the leaves of params in half precision, what is still to be added to them


@tree.record
class compensate(GradientTransformation):
    r"""Keep what is lost where updates are added to parameters in half precision (Kahan summation). It needs params.

    With $\operatorname{rd}$ the rounding to the dtype of the parameters and $e$ the error that is kept,

    $$e \leftarrow e + u, \qquad \theta' = \operatorname{rd}(\theta + e), \qquad e \leftarrow e - (\theta' - \theta)$$

    and the updates lead to $\theta'$. Put it last in the chain. It takes half the memory of `master_weights`, which
    also shows the optimizer inside what was lost. Sums are in float32, $e$ is kept in the dtype of the parameters.
    Leaves in float32 or wider are passed through.

    Raises:
        ValueError: no params.

    Reference: Kahan, "Further remarks on reducing truncation errors", 1965, <https://doi.org/10.1145/363707.363723>;
        Zamirai et al., "Revisiting BFloat16 Training", 2020, <https://arxiv.org/abs/2010.06192>; optimi,
        `kahan_sum` (which rounds $e + u$ too).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(1e-3), optfx.compensate())
        >>> params = {"w": torch.ones(1, dtype=torch.bfloat16)}
        >>> state = tx.init(params)
        >>> for _ in range(10):
        ...     updates, state = tx.update({"w": torch.ones(1, dtype=torch.bfloat16)}, state, params)
        ...     params = optfx.apply_updates(params, updates)
        >>> params
        {'w': tensor([0.9883], dtype=torch.bfloat16)}
    """

    needs_params, final = True, True

    def begin(self, params: Tree) -> CompensateState:
        narrow, _ = tree.split(params, _in(HALF, params))
        return CompensateState(tree.zeros_like(narrow))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        keep = _in(HALF, params)
        (mine, others), (narrow, _) = tree.split(updates, keep), tree.split(params, keep)
        wanted = tree.elementwise(torch.add, tree.cast(state.error, torch.float32), mine)
        mine = tree.elementwise(gap, mine, narrow, apply_updates(narrow, wanted))
        error = tree.elementwise(lost, state.error, wanted, narrow, apply_updates(narrow, mine))
        return tree.merge(mine, others), CompensateState(error)


class RoundStochasticallyState(NamedTuple):
    """The state of `round_stochastically`."""

    count: Tensor  # () int64, steps taken
    keys: Tree  # like the leaves of params in bfloat16, the random key of each, (2,) int64


def to_either_side(u: Tensor, key: Tensor, p: Tensor) -> Tensor:
    """The way to one of the two bfloat16 numbers beside p + u."""
    exact = (p + u).float()
    drawn = exact.view(torch.int32) + (random.bits(key, exact.shape) >> 16).to(torch.int32)
    near = (drawn >> 16 << 16).view(torch.float32)
    return torch.where(exact.isfinite(), near, exact) - p


@tree.record
class round_stochastically(GradientTransformation):
    r"""Round params + updates to bfloat16 up or down by chance, so that the mean is exact. It needs params.

    Between two neighbors $a < b$ a number $x$ becomes $b$ with the probability $(x - a) / (b - a)$: small steps are not
    lost but taken seldom. Put it last in the chain. Nothing is kept but keys. The draw is a pure function of the key,
    the path of the leaf and the step. Leaves of other dtypes are passed through.

    Args:
        key: an int, or a key from `optfx.random.key`, (2,) int64. Give each member of a vmapped batch its own key.

    Raises:
        ValueError: no params; two leaves share a path.

    Reference: Gupta et al., "Deep Learning with Limited Numerical Precision", 2015, <https://arxiv.org/abs/1502.02551>;
        torchao, `bf16_stochastic_round`.

    Example:
        >>> import torch, optfx
        >>> params = {"w": torch.ones(10_000, dtype=torch.bfloat16)}
        >>> tx = optfx.chain(optfx.sgd(1e-3), optfx.round_stochastically(key=0))
        >>> updates, state = tx.update(params, tx.init(params), params)
        >>> params = optfx.apply_updates(params, updates)
        >>> params["w"].unique(), params["w"].double().mean()
        (tensor([0.9961, 1.0000], dtype=torch.bfloat16), tensor(0.9990, dtype=torch.float64))
    """

    needs_params, final = True, True
    key: int | Tensor

    def begin(self, params: Tree) -> RoundStochasticallyState:
        narrow, _ = tree.split(params, _in((torch.bfloat16,), params))
        key = self.key if isinstance(self.key, Tensor) else random.key(self.key)
        keys = random.split_like(key, narrow)
        keys = tree.map(lambda k, p: k.to(p.device, copy=True), keys, narrow)
        return RoundStochasticallyState(core.counter(params), keys)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        keep, count = _in((torch.bfloat16,), params), state.count + 1
        (mine, others), (narrow, _) = tree.split(updates, keep), tree.split(params, keep)
        keys = tree.leafwise(random.fold_in, state.keys, data=count)
        mine = tree.leafwise(to_either_side, mine, keys, narrow, same_shapes=False)
        return tree.merge(mine, others), RoundStochasticallyState(count, state.keys)


def _in(dtypes: tuple[torch.dtype, ...], params: Tree) -> list[bool]:
    return [p.dtype in dtypes for p in tree.leaves(params)]
