"""Averages of the parameters, kept beside training."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, Hyper, apply_updates, at, counter, need_params
from optfx.tree import Tree, elementwise, record


class ParamsEmaState(NamedTuple):
    """The state of `params_ema`."""

    count: Tensor  # () int64, steps taken
    ema: Tree  # like params, their running mean


def copied(p: Tensor) -> Tensor:
    return p.clone()


def toward(e: Tensor, p: Tensor, weight: Any) -> Tensor:
    return torch.lerp(e, p, weight)


@record
class params_ema(GradientTransformation):
    r"""Keep a running mean of the parameters, and pass the updates on. It needs params, and stands last in a chain.

    $$e_t = \mu\, e_{t-1} + (1 - \mu)\, p_t, \qquad p_t = p_{t-1} + u_t, \qquad e_0 = p_0$$

    The mean is `ema` of the state: evaluate the model with it.

    Args:
        decay: $\mu$, how much of the mean is kept at each step.

    Raises:
        ValueError: no params.

    Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992;
        `torch.optim.swa_utils.get_ema_multi_avg_fn` (which begins with the params after the first step).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(1.0), optfx.params_ema(0.75))
        >>> params = {"w": torch.tensor([1.0])}
        >>> _, state = tx.update({"w": torch.tensor([4.0])}, tx.init(params), params)
        >>> optfx.tree.get(state, "ema")
        {'w': tensor([0.])}
    """

    decay: Hyper

    def init(self, params: Tree) -> ParamsEmaState:
        return ParamsEmaState(counter(params), elementwise(copied, params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        new = apply_updates(need_params(self, params), updates)
        ema = elementwise(toward, state.ema, new, weight=1 - at(state.count, self.decay))
        return updates, ParamsEmaState(state.count + 1, ema)
