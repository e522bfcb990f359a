r"""Running means: how much of the old is kept, and how much of the new is taken.

A mean $m \leftarrow \beta m + (1 - \beta) x$ needs two numbers, $\beta$ and $1 - \beta$. At $\beta = 0.999$ the second
is off by a relative $10^{-5}$ if computed in float32. So both are computed in float64, and only then rounded to the
dtype of a leaf. A `Share` carries the pair.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.tree.words import LeafError


def scalar_dtype(device: torch.device) -> torch.dtype:
    """The dtype for scalars on a device: float64 if the device has it, else float32.

    Args:
        device: a device.

    Example:
        >>> from optfx import tree
        >>> tree.scalar_dtype(torch.device("cpu"))
        torch.float64
    """
    return torch.float32 if device.type == "mps" else torch.float64


class Share:
    r"""The share $\beta$ that a running mean keeps, with $1 - \beta$ computed before either is rounded.

    The verbs take it as a scalar, and convert both parts to the dtype and device of the leaf. In a leaf function,
    `b * x`, `x * b`, `1 - b` and `b ** n` mean what they say, and `mean(m, x, b)` is the mean itself.

    Args:
        kept: $\beta$, a float or a () tensor, which is converted to float64.
        new: $1 - \beta$; None to compute it.

    Attributes:
        kept: $\beta$, a float or a () tensor.
        new: $1 - \beta$, likewise.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> def ema(m, x, b):
        ...     return b * m + (1 - b) * x
        >>> tree.elementwise(ema, {"w": torch.ones(2)}, {"w": torch.zeros(2)}, b=tree.Share(0.75))
        {'w': tensor([0.7500, 0.7500])}
    """

    def __init__(self, kept: float | Tensor, new: float | Tensor | None = None):
        if new is None:
            kept = kept.to(scalar_dtype(kept.device)) if isinstance(kept, Tensor) else float(kept)
            new = 1 - kept
        self.kept, self.new = kept, new

    def __mul__(self, x: Any) -> Any:
        return self.kept * x

    __rmul__ = __mul__

    def __rsub__(self, one: Any) -> Any:
        return self.new if type(one) in (int, float) and one == 1 else NotImplemented

    def __pow__(self, n: Any) -> Any:
        return _power(self.kept, n)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Dynamo asks the tensor first, whichever side it is on. Only products and powers are defined
        if func == torch.Tensor.mul:
            return args[1].kept * args[0]
        if func == torch.Tensor.__rpow__:
            return _power(args[1].kept, args[0])
        return NotImplemented

    def __repr__(self) -> str:
        return f"Share({self.kept!r})"


def _power(kept: Any, n: Any) -> Any:
    if isinstance(n, Tensor) and not n.is_floating_point():  # a float to an integer tensor's power would be float32
        n = n.to(scalar_dtype(n.device))
    return kept**n


def mean(m: Tensor, x: Tensor, b: Share | float | Tensor) -> Tensor:
    r"""A step of a running mean, $b\, m + (1 - b)\, x$, for leaf functions.

    Args:
        m: the mean so far.
        x: the new value, like m.
        b: how much of m is kept: a `Share`, a float, or a () float64 tensor.

    Raises:
        TypeError: b is a tensor of lower precision, so 1 - b would be inexact; x is complex and m is not.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.mean(torch.ones(2), torch.zeros(2), 0.75)
        tensor([0.7500, 0.7500])
    """
    if isinstance(b, Tensor) and b.is_floating_point() and b.dtype != scalar_dtype(b.device):
        raise TypeError(
            f"mean: 1 - b is inexact for b in {b.dtype}; annotate the field as Decay, or give the verb tree.Share(b)"
        )
    if x.is_complex() and not m.is_complex():
        raise LeafError(f"a mean of {x.dtype} in {m.dtype}, which cannot hold it")
    new = b.new if isinstance(b, Share) else 1 - b
    if isinstance(new, Tensor) and new.dtype != m.dtype:
        new = new.to(m.dtype)
    return torch.lerp(m, x, new)


# ---- what the verbs do with it -----------------------------------------------------------------


def flat(scalars: dict[str, Any]) -> dict[str, Any]:
    """Scalars by name, with each `Share` `b` replaced by two plain scalars, `b` and `1 - b`."""
    found: dict[str, Any] = {}
    for name, value in scalars.items():
        if isinstance(value, Share):
            found[name], found[f"1 - {name}"] = value.kept, value.new
        else:
            found[name] = value
    return found


def unflat(scalars: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`, with whatever the values have become."""
    return {
        name: Share(value, scalars[f"1 - {name}"]) if f"1 - {name}" in scalars else value
        for name, value in scalars.items()
        if not name.startswith("1 - ")
    }
