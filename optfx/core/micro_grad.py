"""The gradient of a mean over a batch that does not fit into memory, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.tree import Tree


def add_share(total: Tensor, g: Tensor, share: float) -> Tensor:
    return total + share * g


def micro_grad(
    func: Callable[..., Tensor],
    chunks: int,
    argnums: int | tuple[int, ...] = 0,
    batch_argnums: int | tuple[int, ...] = 1,
) -> Callable[..., tuple[Any, Tensor]]:
    r"""Like `torch.func.grad_and_value`, with the memory of a part of the batch: the mean over chunks of it.

    $$\nabla f = \sum_k \frac{n_k}{n}\, \nabla f(p, B_k)$$

    For a loss that is a mean over the batch this is the same as all at once. A chunk is let go before the next one
    begins; half-precision gradients are summed in float32, and rounded once.

    Args:
        func: function that returns a () tensor, the mean over a batch.
        chunks: how many parts to make of the batch, as equal as can be.
        argnums: which arguments to differentiate with respect to, as for `torch.func.grad_and_value`.
        batch_argnums: which arguments are the batch: trees of tensors that have it as their first dimension.

    Returns:
        A function of the same arguments, `-> (gradients, value)`.

    Raises:
        ValueError: fewer than one chunk; tensors of the batch with different first dimensions, or fewer rows than
            chunks.

    Reference: optax, `microbatching.micro_grad` (which sums gradients of each example).

    Example:
        >>> import torch, optfx
        >>> def loss(params, x, y):
        ...     return ((x @ params["w"] - y) ** 2).mean()
        >>> params, x, y = {"w": torch.ones(2)}, torch.eye(2).repeat(4, 1), torch.zeros(8)
        >>> optfx.micro_grad(loss, chunks=4, batch_argnums=(1, 2))(params, x, y)
        ({'w': tensor([1., 1.])}, tensor(1.))
    """
    if chunks < 1:
        raise ValueError(f"micro_grad: {chunks} chunks, expected at least 1")
    of_batch = (batch_argnums,) if isinstance(batch_argnums, int) else batch_argnums
    of_chunk = torch.func.grad_and_value(func, argnums)

    def grad_and_value(*args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
        rows = _rows([args[k] for k in of_batch], chunks)
        total: Any = None
        found: Any = None
        for k in range(chunks):
            start, stop = k * rows // chunks, (k + 1) * rows // chunks
            part = [_cut(x, start, stop) if i in of_batch else x for i, x in enumerate(args)]
            found = of_chunk(*part, **kwargs)
            if total is None:
                total = tree.map(_zeros, found)
            total = tree.elementwise(add_share, total, found, share=(stop - start) / rows)
        return tree.cast_like(total, found)

    return grad_and_value


def _rows(batch: list[Tree], chunks: int) -> int:
    """The size of the batch."""
    sizes = {x.shape[0] if x.ndim else 0 for x in tree.leaves(batch)}
    if len(sizes) != 1:
        raise ValueError(f"micro_grad: the tensors of the batch have the first dimensions {sorted(sizes)}")
    (rows,) = sizes
    if rows < chunks:
        raise ValueError(f"micro_grad: {chunks} chunks of a batch of {rows}")
    return rows


def _cut(x: Tree, start: int, stop: int) -> Tree:
    return tree.map(lambda t: t[start:stop], x)


def _zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
