"""The steps of averaged SGD, as `torch.optim.ASGD` takes them: gradient descent at a decaying rate."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, Hyper, NonNegative
from optfx.tree import Tree


class ScaleByAsgdState(NamedTuple):
    """The state of `scale_by_asgd`."""

    count: Tensor  # () int64, steps taken
    eta: Tensor  # () float64, the rate of the next step


def descend(g: Tensor, p: Tensor, eta, lambd) -> Tensor:
    return -eta * (g + lambd * p)


@tree.record
class scale_by_asgd(GradientTransformation):
    r"""Gradient descent with a rate that decays as the theory of averaging requires. Needs params.

    $$u_t = -\eta_t\, (g_t + \lambda\, p_{t-1}), \qquad
    \eta_1 = \gamma_1, \quad \eta_{t+1} = \frac{\gamma_t}{(1 + \lambda\, \gamma_t\, t)^\alpha}$$

    Args:
        learning_rate: $\gamma$. The value read at one step takes effect at the next, as in torch.
        lambd: $\lambda$, the decay of the parameters.
        alpha: $\alpha$, the power of the decay of the rate.

    It owns the step size, so it flips the sign itself.

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

    needs_params, final = True, True
    learning_rate: NonNegative
    lambd: NonNegative = 1e-4
    alpha: Hyper = 0.75

    def begin(self, params: Tree) -> ScaleByAsgdState:
        count = core.counter(params)
        return ScaleByAsgdState(count, self.at(count)["learning_rate"].clone())

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        rate, lambd = now["learning_rate"], now["lambd"]
        updates = tree.elementwise(descend, updates, params, eta=state.eta, lambd=lambd)
        eta = rate / (1 + lambd * rate * count) ** now["alpha"]
        return updates, ScaleByAsgdState(count, eta)
