"""Muon."""

from __future__ import annotations

from typing import Any

import torch

from optfx.combinators import chain, partition
from optfx.core import Hyper, select
from optfx.hints import hinted
from optfx.optimizers.adam import adamw
from optfx.transforms import add_decayed_weights, scale_by_learning_rate, scale_by_muon, scale_by_shape

MATRICES = select.label({"muon": select.ndim(2, 2)}, default="adam")


@hinted
def muon(
    learning_rate: Hyper,
    ns_coeffs: Any = (3.4445, -4.7750, 2.0315),
    ns_steps: int = 5,
    beta: Hyper = 0.95,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    weight_decay_mask: Any = None,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
    adam_b1: Hyper = 0.9,
    adam_b2: Hyper = 0.999,
    adam_eps_root: Hyper = 0.0,
    adam_weight_decay: Hyper = 0.0,
    adam_learning_rate: Hyper | None = None,
    consistent_rms: Hyper | None = None,
    bias_correction: bool = True,
    eps_is_floor: bool = False,
    ns_dtype: torch.dtype | None = None,
    labels: Any = MATRICES,
    nu_dtype: torch.dtype | None = None,
) -> partition:
    r"""Muon for matrices, AdamW for everything else.

    $$P_t = P_{t-1} - \eta_t \left(\sqrt{\max(1,\; \text{rows} / \text{columns})}\; U_t + \lambda\, P_{t-1}\right)$$

    with the nearly orthogonal $U_t$ of `scale_by_muon`. A matrix is (outputs, inputs), as in `torch.nn.Linear`.

    Args:
        learning_rate: $\eta$.
        ns_coeffs: the coefficients of the Newton-Schulz steps, or one triple for each.
        ns_steps: how many of those steps.
        beta: how much of the mean of the gradients is kept at each step.
        eps: added to the norm of the mean; also AdamW's epsilon.
        weight_decay: $\lambda$. `torch.optim.Muon` has 0.1.
        weight_decay_mask: which matrices decay, see `add_decayed_weights`; None for all.
        mu_dtype: the dtype of the means; None for that of the parameters.
        nesterov: look ahead, in AdamW too.
        adam_b1: AdamW's `b1`.
        adam_b2: AdamW's `b2`.
        adam_eps_root: AdamW's `eps_root`.
        adam_weight_decay: AdamW's weight decay.
        adam_learning_rate: AdamW's rate; None for Muon's.
        consistent_rms: give updates this root mean square whatever their shape, see `scale_by_shape`; None for the
            formula above.
        bias_correction: False leaves the mean uncorrected (torch).
        eps_is_floor: the norm is at least `eps` instead (torch).
        ns_dtype: the dtype of the Newton-Schulz steps, `torch.bfloat16` in torch; None for that of the parameters.
        labels: which leaves are matrices to orthogonalize (`"muon"`), and which are not (`"adam"`), as in `partition`.
            Embeddings and the last layer are better left to AdamW:
            `select.label({"adam": select.path("embedding.*") | ~select.ndim(2, 2)}, default="muon")`.
        nu_dtype: the dtype of AdamW's mean of squares; None for that of the parameters.

    Reference: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
        <https://kellerjordan.github.io/posts/muon/>; optax, `contrib.muon`; `torch.optim.Muon`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.muon(0.1)
        >>> params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
        >>> optfx.hyperparams(tx, tx.init(params))["muon.3.learning_rate"]
        tensor(0.1000, dtype=torch.float64)
    """
    matrices = chain(
        scale_by_muon(
            ns_coeffs,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            bias_correction=bias_correction,
            eps_is_floor=eps_is_floor,
            ns_dtype=ns_dtype,
        ),
        scale_by_shape(consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    others = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_b1,
        adam_b2,
        eps,
        adam_eps_root,
        mu_dtype,
        adam_weight_decay,
        nesterov=nesterov,
        nu_dtype=nu_dtype,
    )
    return partition({"muon": matrices, "adam": others}, labels)
