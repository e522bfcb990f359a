"""Muon: orthogonalized momentum. Rows are outputs, as in torch; dimensions before the last two are a batch."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.transforms.matrix.newton_schulz import SIMPLE, Table, newton_schulz
from optfx.tree import Tree


class ScaleByMuonState(NamedTuple):
    """The state of `scale_by_muon`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient


def ahead(g: Tensor, m: Tensor, beta, c1, c1_next, nesterov: bool) -> tuple[Tensor, Tensor]:
    m = tree.mean(m, g, beta)
    if nesterov:
        mean = tree.mean(m, g, beta) if c1 is None else beta * m / c1_next + (1 - beta) * g / c1
    else:
        mean = m if c1 is None else m / c1
    return mean, m


@tree.record
class scale_by_muon(GradientTransformation):
    r"""Replace each matrix by a nearly orthogonal one, made from a running mean of its gradients.

    $$M_t = \beta M_{t-1} + (1 - \beta)\, G_t, \qquad U_t = \operatorname{NS}(\hat M_t), \qquad
    \hat M_t = \frac{\beta M_t}{1 - \beta^{t+1}} + \frac{(1 - \beta)\, G_t}{1 - \beta^t}$$

    or $\hat M_t = M_t / (1 - \beta^t)$ without Nesterov's lookahead. $\operatorname{NS}$ begins with
    $X = \hat M_t / (\lVert \hat M_t \rVert + \varepsilon)$ and takes steps
    $X \leftarrow a X + (b A + c A^2) X$, $A = X X^*$, which bring all singular values near 1.

    Args:
        ns_coeffs: $(a, b, c)$, or a triple for each step, of which the last `ns_steps` are used. Tables in use are in
            `optfx.transforms.matrix.newton_schulz`.
        ns_steps: the number of steps of NS.
        beta: $\beta$, how much of the mean is kept at each step.
        eps: $\varepsilon$.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nesterov: look ahead.
        bias_correction: False leaves $M_t$ and $G_t$ uncorrected (torch).
        eps_is_floor: divide by $\max(\lVert \hat M_t \rVert, \varepsilon)$ (torch).
        ns_dtype: the dtype to compute the steps in, `torch.bfloat16` in torch; None for that of the leaf, which complex
            leaves keep.

    A leaf with more than two dimensions is a batch of matrices, in the last two. Leaves with fewer need another
    optimizer: see `muon`, or `masked`. `orthogonalize` alone has any momentum before it.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path; too few triples of coefficients.

    Reference: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
        <https://kellerjordan.github.io/posts/muon/>; optax, `contrib.scale_by_muon`; `torch.optim.Muon`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_muon(ns_steps=10)
        >>> state = tx.init({"w": torch.zeros(2, 2)})
        >>> updates, state = tx.update({"w": torch.tensor([[4.0, 0.0], [0.0, -3.0]])}, state)
        >>> updates["w"].abs().round(decimals=0)
        tensor([[1., 0.],
                [0., 1.]])
    """

    ns_coeffs: tuple[float, float, float] | Table = SIMPLE[0]
    ns_steps: int = 5
    beta: Beta = 0.95
    eps: NonNegative = 1e-8
    mu_dtype: torch.dtype | None = None
    nesterov: bool = dataclasses.field(default=True, kw_only=True)
    bias_correction: bool = dataclasses.field(default=True, kw_only=True)
    eps_is_floor: bool = dataclasses.field(default=False, kw_only=True)
    ns_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def _table(self) -> Any:
        if not isinstance(self.ns_coeffs[0], tuple):
            return (self.ns_coeffs,) * self.ns_steps
        if len(self.ns_coeffs) < self.ns_steps:
            raise ValueError(f"scale_by_muon: {len(self.ns_coeffs)} triples of coefficients for {self.ns_steps} steps")
        return self.ns_coeffs[len(self.ns_coeffs) - self.ns_steps :]

    def begin(self, params: Tree) -> ScaleByMuonState:
        self._table()
        tree.check_matrices("scale_by_muon", params)
        return ScaleByMuonState(core.counter(params), tree.zeros_like(params, self.mu_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        c1, c1_next = (core.bias_correction(now["beta"], t) for t in (count, count + 1))
        mean, mu = tree.elementwise(
            ahead,
            updates,
            state.mu,
            outs=2,
            beta=now["beta"],
            c1=c1 if self.bias_correction else None,
            c1_next=c1_next if self.bias_correction else None,
            nesterov=self.nesterov,
        )
        updates = tree.matrixwise(
            newton_schulz,
            mean,
            eps=now["eps"],
            table=self._table(),
            eps_is_floor=self.eps_is_floor,
            dtype=self.ns_dtype,
        )
        return updates, ScaleByMuonState(count, mu)
