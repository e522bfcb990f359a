"""Averages of the parameters during training."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, Hyper
from optfx.tree import Tree


class ParamsEmaState(NamedTuple):
    """The state of `params_ema`."""

    count: Tensor  # () int64, steps taken
    ema: Tree  # like params, their running mean


def average(e: Tensor, p: Tensor, decay) -> Tensor:
    return tree.mean(e, p, decay)


@tree.record
class params_ema(GradientTransformation):
    r"""Keep a running mean of the parameters, and pass the updates on. Needs params; put it last in a chain.

    $$e_t = \mu\, e_{t-1} + (1 - \mu)\, p_t, \qquad p_t = p_{t-1} + u_t, \qquad e_0 = p_0$$

    The mean is `ema` in the state, and what `eval_params` returns, in the dtypes of the parameters: evaluate the model
    with it.

    Args:
        decay: $\mu$, how much of the mean is kept at each step.
        dtype: the dtype of the mean; None for that of the parameters. In bfloat16 a mean
            with $\mu = 0.999$ never moves.

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

    needs_params = True
    decay: Decay
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ParamsEmaState:
        return ParamsEmaState(core.counter(params), tree.cast(tree.copy(params), self.dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        new = core.apply_updates(params, updates)
        ema = tree.elementwise(average, state.ema, new, decay=self.at(state.count)["decay"])
        return updates, ParamsEmaState(state.count + 1, ema)

    def eval_params(self, state: Any, params: Tree) -> Tree:
        return tree.cast_like(state.ema, params)


class ParamsAverageState(NamedTuple):
    """The state of `params_average`."""

    count: Tensor  # () int64, steps taken
    weight: Tensor  # () float64, weight of the next parameters in the mean
    average: Tree  # like params, their mean


@tree.record
class params_average(GradientTransformation):
    r"""Keep the mean of the parameters after some step, and pass the updates on. Needs params; put it last in a chain.

    $$a_t = a_{t-1} + \frac{p_t - a_{t-1}}{\max(1,\; t - 1 - t_0)}, \qquad p_t = p_{t-1} + u_t$$

    The mean is `average` in the state, and what `eval_params` returns, in the dtypes of the parameters: evaluate the
    model with it. Before the mean begins, it is $p_t$.

    Args:
        start: $t_0$, the number of steps before the mean begins.
        dtype: the dtype of the mean; None for that of the parameters.

    Raises:
        ValueError: no params.

    Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; `torch.optim.ASGD`,
        where it is `ax`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(1.0), optfx.params_average(start=0))
        >>> params = {"w": torch.tensor([1.0])}
        >>> _, state = tx.update({"w": torch.tensor([4.0])}, tx.init(params), params)
        >>> optfx.tree.get(state, "average")
        {'w': tensor([-3.])}
    """

    needs_params = True
    start: Hyper = 0.0
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ParamsAverageState:
        count = core.counter(params)
        one = torch.ones_like(count, dtype=tree.scalar_dtype(count.device))
        return ParamsAverageState(count, one, tree.cast(tree.copy(params), self.dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        count, new = state.count + 1, core.apply_updates(params, updates)
        average = tree.elementwise(torch.lerp, state.average, new, weight=state.weight)
        weight = 1 / (count - self.at(state.count)["start"]).clamp(min=1.0)
        return updates, ParamsAverageState(count, weight, average)

    def eval_params(self, state: Any, params: Tree) -> Tree:
        return tree.cast_like(state.average, params)
