r"""Averages of the parameters that lead: Schedule-Free, and Generalized Primal Averaging.

Three points take part: $z$ moves by steps, $x$ is an average of $z$, and the gradient is taken between them, at

$$y = (1 - \beta)\, z + \beta\, x$$

The params are $y$, the state keeps $z$, and $x$ follows from both. With the step $s$ and the share $c$ of the new $z$
in the average, $z \leftarrow z + s$ and $x \leftarrow (1 - c)\, x + c\, z$, so that with $\kappa = \beta (1 - c)$

$$y \leftarrow y + \left(1 - \frac{\kappa}{\beta_-}\right) (z - y) + (1 - \kappa)\, s$$

where $z$ is the old one, and $\beta_-$ the $\beta$ of the step before. Nothing is lost there when steps are small.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.combinators.chain import flips, in_order
from optfx.core import Decay, GradientTransformation, Hyper, NonNegative
from optfx.tree import Tree


def between(s: Tensor, z: Tensor, y: Tensor, scale, kappa, before) -> tuple[Tensor, Tensor]:
    s = scale * s
    return (1 - kappa / before) * (z - y) + (1 - kappa) * s, z + s


def averaged(y: Tensor, z: Tensor, beta) -> Tensor:
    return z + (y - z) / beta


def refuse_zero(tx: Any, name: str) -> None:
    """Refuse a share of the average of 0, at which the params say nothing of the average.

    Raises:
        ValueError: naming the field.
    """
    value = getattr(tx, name)
    if isinstance(value, (int, float)) and value == 0:
        raise ValueError(f"{type(tx).__name__}.{name} is {value!r}, expected more than 0")


class ScheduleFreeState(NamedTuple):
    """The state of `schedule_free`."""

    count: Tensor  # () int64, steps taken
    weight_sum: Tensor  # () float64, the weights of all z so far
    max_lr: Tensor  # () float64, the largest rate so far
    share: Tensor  # () float64, that of the average in the params
    z: Tree  # like params, where the steps lead
    inner: Tree  # the state of the transform inside


@tree.record
class schedule_free(core.Wrapper):
    r"""Average the parameters instead of lowering the learning rate: Schedule-Free, around any rule. It needs params.

    $$z_t = z_{t-1} - \eta_t\, u_t, \qquad x_t = (1 - c_t)\, x_{t-1} + c_t\, z_t, \qquad
    y_t = (1 - \beta)\, z_t + \beta\, x_t$$

    $$\eta_t = w_t\, \eta, \qquad c_t = \frac{t^r\, \hat\eta_t^{\,p}}{\sum_{s \le t} s^r\, \hat\eta_s^{\,p}}, \qquad
    \hat\eta_t = \max_{s \le t} \eta_s$$

    The params are $y$, where the gradient is taken, and $u$ is what `inner` makes of it, without a rate and a momentum.
    Evaluate the model at the average $x$, which is what `eval_params` gives.

    Args:
        inner: the rule, such as `chain(scale_by_rms(...), add_decayed_weights(0.1))`; it has no learning rate.
        learning_rate: $\eta$. It need not fall.
        b1: $\beta$, more than 0: the share of the average in the point of the gradient. It takes the place of momentum.
        weight_lr_power: $p$: steps of a small rate, as in warmup, count less in the average.
        state_dtype: the dtype of $z$; None for that of the parameters.
        r: the power of the step by which later ones count more in the average.
        warmup: $w$, by which the rate is multiplied, usually a schedule that rises to 1.

    Raises:
        ValueError: no params; `inner` has a learning rate of its own; `b1` is 0.

    Reference: Defazio et al., "The Road Less Scheduled", 2024, <https://arxiv.org/abs/2405.15682>; the package
        `schedulefree`; optax, `contrib.schedule_free` (whose transform has the rate too, and reads a schedule a step
        late).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.schedule_free(optfx.identity(), learning_rate=1.0, b1=0.5)
        >>> params = {"w": torch.tensor([8.0])}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     updates, state = tx.update({"w": torch.tensor([4.0])}, state, params)
        ...     params = optfx.apply_updates(params, updates)
        >>> state.z, tx.eval_params(state, params), params
        ({'w': tensor([0.])}, {'w': tensor([2.])}, {'w': tensor([1.])})
    """

    needs_params, final = True, True
    inner: GradientTransformation
    learning_rate: NonNegative
    b1: Decay = 0.9
    weight_lr_power: Hyper = 2.0
    state_dtype: torch.dtype | None = None
    r: Hyper = dataclasses.field(default=0.0, kw_only=True)
    warmup: NonNegative = dataclasses.field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_zero(self, "b1")
        if flips(self.inner) or any(part.final for part in in_order(self.inner)):
            raise ValueError(
                f"schedule_free: {self.inner!r} has a learning rate of its own; give the rule without it, and the rate "
                "as learning_rate"
            )

    def begin(self, params: Tree) -> ScheduleFreeState:
        count = core.counter(params)
        zero = torch.zeros_like(count, dtype=tree.scalar_dtype(count.device))
        z = tree.cast(tree.copy(params), self.state_dtype)
        return ScheduleFreeState(
            count, zero, zero.clone(), zero + self.at(count)["b1"].kept, z, self.inner.begin(params)
        )

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        rate, b1 = now["learning_rate"] * now["warmup"], now["b1"].kept
        max_lr = torch.maximum(state.max_lr, rate)
        weight = count.to(rate.dtype) ** now["r"] * max_lr ** now["weight_lr_power"]
        total = state.weight_sum + weight
        c = torch.where(total > 0, weight / torch.where(total > 0, total, 1.0), 0.0)  # before the rate has risen from 0
        updates, inner = self.inner.run(updates, state.inner, params, extra)
        numbers = {"scale": -rate, "kappa": b1 * (1 - c), "before": state.share}
        updates, z = tree.elementwise(between, updates, state.z, params, outs=2, **numbers)
        return updates, ScheduleFreeState(count, total, max_lr, b1.clone(), z, inner)

    def eval_params(self, state: Any, params: Tree) -> Tree:
        return tree.elementwise(averaged, params, state.z, beta=state.share)


class GpaState(NamedTuple):
    """The state of `gpa`."""

    count: Tensor  # () int64, steps taken
    share: Tensor  # () float64, that of the average in the params
    z: Tree  # like params, where the steps lead
    inner: Tree  # the state of the optimizer inside


@tree.record
class gpa(core.Wrapper):
    r"""Generalized Primal Averaging: steps lead one way, and a running mean of it is trained. It needs params.

    $$z_t = z_{t-1} + s_t, \qquad x_t = \mu_x\, x_{t-1} + (1 - \mu_x)\, z_t, \qquad
    y_t = (1 - \mu_y)\, z_t + \mu_y\, x_t$$

    The params are $y$, where the gradient is taken, and $s$ is the step of `inner` there. Evaluate the model at the
    mean $x$, which is what `eval_params` gives. Around `sgd(eta / (1 - mu))`, `mu_x=mu` and `mu_y=1` make heavy-ball
    momentum of it, and `mu_y=mu` Nesterov's.

    Args:
        inner: an optimizer, with its learning rate.
        mu_x: $\mu_x$, how much of the mean is kept at each step.
        mu_y: $\mu_y$, more than 0: the share of the mean in the point of the gradient.
        state_dtype: the dtype of $z$; None for that of the parameters.

    Raises:
        ValueError: no params; `mu_y` is 0.

    Reference: Defazio et al., "Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs", 2025,
        <https://arxiv.org/abs/2512.17131>; the authors' package `gpa`, whose `eval_interp_coeff` is $\mu_x$ and
        `train_interp_coeff` $\mu_y$.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.gpa(optfx.sgd(1.0), mu_x=0.5, mu_y=0.5)
        >>> params = {"w": torch.tensor([8.0])}
        >>> updates, state = tx.update({"w": torch.tensor([4.0])}, tx.init(params), params)
        >>> params = optfx.apply_updates(params, updates)
        >>> state.z, tx.eval_params(state, params), params
        ({'w': tensor([4.])}, {'w': tensor([6.])}, {'w': tensor([5.])})
    """

    needs_params, final = True, True
    inner: GradientTransformation
    mu_x: Decay = 0.9967
    mu_y: Decay = 0.7
    state_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_zero(self, "mu_y")

    def begin(self, params: Tree) -> GpaState:
        count = core.counter(params)
        z = tree.cast(tree.copy(params), self.state_dtype)
        return GpaState(count, self.at(count)["mu_y"].kept.clone(), z, self.inner.begin(params))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        now = self.at(state.count)
        mu_x, mu_y = now["mu_x"].kept, now["mu_y"].kept
        updates, inner = self.inner.run(updates, state.inner, params, extra)
        numbers = {"scale": 1.0, "kappa": mu_y * mu_x, "before": state.share}
        updates, z = tree.elementwise(between, updates, state.z, params, outs=2, **numbers)
        return updates, GpaState(state.count + 1, mu_y.clone(), z, inner)

    def eval_params(self, state: Any, params: Tree) -> Tree:
        return tree.elementwise(averaged, params, state.z, beta=state.share)
