"""The steps of averaged SGD as `torch.optim.ASGD` takes them: a decaying rate, and a mean of the parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, Hyper, apply_updates, at, counter, need_params, wide
from optfx.transforms.averages import copied, toward
from optfx.tree import Tree, elementwise, record


class ScaleByAsgdState(NamedTuple):
    """The state of `scale_by_asgd`."""

    count: Tensor  # () int64, steps taken
    eta: Tensor  # () float64, the rate of the next step


def descend(g: Tensor, p: Tensor, eta: Any, lambd: Any) -> Tensor:
    return -eta * (g + lambd * p)


@record
class scale_by_asgd(GradientTransformation):
    r"""Steps of gradient descent whose rate decays as the theory of averaging asks. It needs params.

    $$u_t = -\eta_t\, (g_t + \lambda\, p_{t-1}), \qquad
    \eta_1 = \gamma_1, \quad \eta_{t+1} = \frac{\gamma_t}{(1 + \lambda\, \gamma_t\, t)^\alpha}$$

    Args:
        learning_rate: $\gamma$. It acts on the step after the one it is read at, as in torch.
        lambd: $\lambda$, the decay of the parameters.
        alpha: $\alpha$, the power with which the rate decays.

    It owns the step size: the sign is flipped here.

    Raises:
        ValueError: no params.

    Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; Bottou, "Stochastic
        Gradient Descent Tricks", 2012, <https://leon.bottou.org/publications/pdf/tricks-2012.pdf>; `torch.optim.ASGD`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_asgd(0.1, lambd=0.5)
        >>> params = {"w": torch.tensor([1.0])}
        >>> updates, state = tx.update({"w": torch.tensor([2.0])}, tx.init(params), params)
        >>> updates, state.eta
        ({'w': tensor([-0.2500])}, tensor(0.0964, dtype=torch.float64))
    """

    learning_rate: Hyper
    lambd: Hyper = 1e-4
    alpha: Hyper = 0.75

    def init(self, params: Tree) -> ScaleByAsgdState:
        count = counter(params)
        return ScaleByAsgdState(
            count, torch.zeros_like(count, dtype=wide(count.device)) + at(count, self.learning_rate)
        )

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        rate, lambd, alpha = (at(state.count, h) for h in (self.learning_rate, self.lambd, self.alpha))
        count = state.count + 1
        updates = elementwise(descend, updates, need_params(self, params), eta=state.eta, lambd=lambd)
        eta = rate / (1 + lambd * rate * count.to(state.eta.dtype)) ** alpha
        return updates, ScaleByAsgdState(count, eta)


class ParamsAverageState(NamedTuple):
    """The state of `params_average`."""

    count: Tensor  # () int64, steps taken
    weight: Tensor  # () float64, of the next parameters in the mean
    average: Tree  # like params, their mean


@record
class params_average(GradientTransformation):
    r"""Keep the mean of the parameters from some step on, and pass the updates on. It needs params, and stands last.

    $$a_t = a_{t-1} + \frac{p_t - a_{t-1}}{\max(1,\; t - 1 - t_0)}, \qquad p_t = p_{t-1} + u_t$$

    The mean is `average` of the state: evaluate the model with it. Until the mean begins, it is $p_t$.

    Args:
        start: $t_0$, the number of steps before the mean begins.

    Raises:
        ValueError: no params.

    Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; `torch.optim.ASGD`,
        whose `ax` this is.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(1.0), optfx.params_average(start=0))
        >>> params = {"w": torch.tensor([1.0])}
        >>> _, state = tx.update({"w": torch.tensor([4.0])}, tx.init(params), params)
        >>> optfx.tree.get(state, "average")
        {'w': tensor([-3.])}
    """

    start: Hyper = 0.0

    def init(self, params: Tree) -> ParamsAverageState:
        count = counter(params)
        return ParamsAverageState(count, torch.ones_like(count, dtype=wide(count.device)), elementwise(copied, params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        new = apply_updates(need_params(self, params), updates)
        average = elementwise(toward, state.average, new, weight=state.weight)
        count = state.count + 1
        weight = 1 / (count.to(state.weight.dtype) - at(state.count, self.start)).clamp(min=1.0)
        return updates, ParamsAverageState(count, weight, average)
