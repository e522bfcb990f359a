"""Newton-Schulz iterations: singular values near 1 by products of matrices alone, with the tables in use."""

from __future__ import annotations

import torch
from torch import Tensor

from optfx.transforms.matrix.symmetric import gram

Table = tuple[tuple[float, float, float], ...]
"""The coefficients of each step, which takes singular values s to a s + b s^3 + c s^5."""

SIMPLE: Table = 5 * ((3.4445, -4.7750, 2.0315),)
"""Jordan et al., 2024, <https://kellerjordan.github.io/posts/muon/>: steep at 0, so five steps reach [0.7, 1.2]."""

QUINTIC: Table = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Cesista et al., 2025, <https://leloykun.github.io/ponder/muon-opt-coeffs>: another triple for each step."""

_OPTIMAL: Table = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
_SAFETY = 1.01  # what the singular values are divided by before each step but the last, for rounding

POLAR_EXPRESS: Table = (*((a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5) for a, b, c in _OPTIMAL), (1.875, -1.25, 0.375))
"""Amsel et al., 2025, <https://arxiv.org/abs/2505.16932>: the best step for what the one before has left. The first
five or six are used in training, `POLAR_EXPRESS[:5]`."""

CANS: Table = (
    (8.4703, -25.1081, 18.6293),
    (4.1828, -3.1087, 0.5806),
    (3.9619, -2.9541, 0.5630),
    (3.2866, -2.4647, 0.5074),
    (2.2737, -1.6447, 0.4162),
)
"""Grishina et al., 2025, <https://arxiv.org/abs/2506.10935>: Chebyshev's best polynomials by Remez's algorithm."""

DEEPSEEK_V4: Table = 8 * SIMPLE[:1] + 2 * ((2.0, -1.5, 0.5),)
"""DeepSeek-AI, 2026, <https://arxiv.org/abs/2606.19348>: eight steep steps, then two that end at 1."""

CUBIC: Table = (
    (3.3656576, -3.3420992, 0.0),
    (2.5744352, -1.4957376, 0.0),
    (2.5368962, -1.4312570, 0.0),
    (2.4418906, -1.2764040, 0.0),
    (2.2230472, -0.9630650, 0.0),
)
"""<https://arxiv.org/abs/2606.00371>: without the fifth power, so that a step is two products and not three."""


def newton_schulz(x: Tensor, eps, table: Table, eps_is_floor: bool, dtype: torch.dtype | None) -> Tensor:
    """Bring the singular values of each matrix near 1."""
    rows, cols = x.shape[-2:]
    y = x if dtype is None or x.is_complex() else x.to(dtype)
    if rows > cols:
        y = y.mH
    norm = torch.linalg.vector_norm(y, dim=(-2, -1), keepdim=True)
    y = y / (norm.clamp(min=eps) if eps_is_floor else norm + eps)
    multiply_add = torch.addmm if x.ndim == 2 else torch.baddbmm  # they round differently in bfloat16
    for a, b, c in table:
        square = gram(y)
        if c:
            y = multiply_add(y, multiply_add(square, square, square, beta=b, alpha=c), y, beta=a)
        else:
            y = multiply_add(y, square, y, beta=a, alpha=b)
    return y.mH if rows > cols else y
