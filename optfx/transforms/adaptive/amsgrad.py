"""AMSGrad's preconditioner: Adam's, with the largest mean of squares so far."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.tree import Tree


class ScaleByAmsgradState(NamedTuple):
    """The state of `scale_by_amsgrad`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its square
    nu_max: Tree  # like params, the largest of these so far


def amsgrad(
    g: Tensor, m: Tensor, v: Tensor, v_max: Tensor, b1, b2, eps, eps_root, c1, before, after
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    v = tree.mean(v, g * g, b2)
    v_max = torch.maximum(v_max, v / before)
    return (m / c1) / (tree.safe_sqrt(v_max / after + eps_root) + eps), m, v, v_max


@tree.record
class scale_by_amsgrad(GradientTransformation):
    r"""Adam with the largest mean of squares so far, so that the step size never grows.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$u_t = \frac{\hat m_t}{\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon}, \qquad
    \hat m_t = \frac{m_t}{1 - \beta_1^t}$$

    There are three forms, which differ in where the mean of squares is corrected for having begun at zero:

    | `bias_correction_nu` | $\hat v_t$ | used by |
    |---|---|---|
    | `True` | $\max_{s \le t} v_s / (1 - \beta_2^s)$ | optax |
    | `"after_max"` | $(\max_{s \le t} v_s) / (1 - \beta_2^t)$ | `torch.optim.Adam(amsgrad=True)` |
    | `False` | $\max_{s \le t} v_s$ | the paper (with `bias_correction_mu=False`) |

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        bias_correction_mu: False for $\hat m_t = m_t$.
        bias_correction_nu: where the mean of squares is corrected, see the table.
        nu_dtype: the dtype of the mean of squares and of its maximum; None for that of the parameters.

    Raises:
        ValueError: another value of `bias_correction_nu`.

    Reference: Reddi et al., "On the Convergence of Adam and Beyond", 2018, <https://openreview.net/forum?id=ryQu7f-RZ>;
        optax, `scale_by_amsgrad`; `torch.optim.Adam`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_amsgrad(bias_correction_nu="after_max")
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> updates
        {'w': tensor([ 1.0000, -1.0000])}
    """

    b1: Beta = 0.9
    b2: Beta = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: torch.dtype | None = None
    bias_correction_mu: bool = True
    bias_correction_nu: bool | Literal["after_max"] = True
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bias_correction_nu not in (True, False, "after_max"):
            raise ValueError(
                f"scale_by_amsgrad: bias_correction_nu is {self.bias_correction_nu!r}, "
                "expected True, False or 'after_max'"
            )

    def begin(self, params: Tree) -> ScaleByAmsgradState:
        nu, nu_max = tree.zeros_like(params, self.nu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByAmsgradState(core.counter(params), tree.zeros_like(params, self.mu_dtype), nu, nu_max)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        c2 = core.bias_correction(now["b2"], count)
        updates, *moments = tree.elementwise(
            amsgrad,
            updates,
            state.mu,
            state.nu,
            state.nu_max,
            outs=4,
            c1=core.bias_correction(now["b1"], count) if self.bias_correction_mu else 1.0,
            before=c2 if self.bias_correction_nu is True else 1.0,
            after=c2 if self.bias_correction_nu == "after_max" else 1.0,
            **now,
        )
        return updates, ScaleByAmsgradState(count, *moments)
