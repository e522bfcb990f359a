"""ADOPT."""

from __future__ import annotations

import torch

from optfx.combinators import chain
from optfx.core import Hyper
from optfx.hints import hinted
from optfx.transforms import scale_by_adopt, scale_by_learning_rate


@hinted
def adopt(
    learning_rate: Hyper,
    b1: Hyper = 0.9,
    b2: Hyper = 0.9999,
    eps: Hyper = 1e-6,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Hyper | None = None,
    nu_dtype: torch.dtype | None = None,
) -> chain:
    r"""ADOPT: Adam that divides by the mean of squares until the step before, and converges with any $\beta_2$.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1) \operatorname{clip}\!\left(\frac{g_t}{\max(\sqrt{v_{t-1}}, \varepsilon)},\,
    \pm t^{1/4}\right), \qquad p_t = p_{t-1} - \eta_t\, m_t$$

    with $v_t$ as in `scale_by_adopt`, which begins with the first gradient. The first step moves nothing.

    Args:
        learning_rate: $\eta$.
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, the least to divide by.
        mu_dtype: the dtype of $m$; None for that of the parameters.
        nesterov: look ahead.
        use_clipping: False leaves out the clipping.
        clip_value_fn: a number, or a schedule of the steps taken, in place of $t^{1/4}$; None for that.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    For decoupled weight decay put `add_decayed_weights` between `scale_by_adopt` and `scale_by_learning_rate`.

    Reference: Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any β2 with the Optimal Rate", 2024,
        <https://arxiv.org/abs/2411.02853>; optax, `contrib.adopt`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.adopt(0.1, b1=0.0)
        >>> params = {"w": torch.ones(2)}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, state, params)
        ...     params = optfx.apply_updates(params, updates)
        >>> params
        {'w': tensor([0.9000, 1.1000])}
    """
    options = {"nesterov": nesterov, "use_clipping": use_clipping, "nu_dtype": nu_dtype}
    return chain(
        scale_by_adopt(b1, b2, eps, mu_dtype, clip_value_fn=clip_value_fn, **options),
        scale_by_learning_rate(learning_rate),
    )
