"""What `viewed` shows a transform in the place of a leaf: other shapes of it, or parts of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optfx import tree


class View:
    """Leaves as a transform is to see them. A subclass has `parts`, and `whole`, which undoes it."""

    def parts(self, x: Tensor) -> list[Tensor]:
        """What is seen of a leaf."""
        raise NotImplementedError

    def whole(self, parts: list[Tensor], like: Tensor) -> Tensor:
        """The leaf again, with the shape of `like`."""
        return parts[0].reshape(like.shape)


@tree.record
class as_matrix(View):
    """A kernel (out, in, ...) as a matrix (out, in k).

    Example:
        >>> import torch
        >>> from optfx.combinators import views
        >>> views.as_matrix().parts(torch.zeros(8, 3, 5, 5))[0].shape
        torch.Size([8, 75])
    """

    def parts(self, x: Tensor) -> list[Tensor]:
        return [x.reshape(x.shape[0], math.prod(x.shape[1:]))]


@tree.record
class heads(View):
    """The rows of a matrix, or of a bias, in equal blocks that become a batch: (n h, in) as (n, h, in).

    Args:
        n: how many blocks: of heads, or of pairs of heads.

    Example:
        >>> import torch
        >>> from optfx.combinators import views
        >>> views.heads(4).parts(torch.zeros(32, 20))[0].shape
        torch.Size([4, 8, 20])
    """

    n: int

    def parts(self, x: Tensor) -> list[Tensor]:
        return [x.reshape(self.n, x.shape[0] // self.n, *x.shape[1:])]


@tree.record
class merged(View):
    """Neighboring dimensions as one, from the left, as long as their product is small.

    Args:
        size: the largest product.

    Example:
        >>> import torch
        >>> from optfx.combinators import views
        >>> views.merged(100).parts(torch.zeros(8, 3, 5, 5))[0].shape
        torch.Size([24, 25])
    """

    size: int

    def parts(self, x: Tensor) -> list[Tensor]:
        shape: list[int] = []
        for n in x.shape:
            if shape and shape[-1] * n <= self.size:
                shape[-1] *= n
            else:
                shape.append(n)
        return [x.reshape(shape)]


@tree.record
class split(View):
    """Equal parts along a dimension, each a leaf of its own: queries, keys and values, say.

    Args:
        n: how many.
        dim: along which dimension.

    Example:
        >>> import torch
        >>> from optfx.combinators import views
        >>> [part.shape for part in views.split(3).parts(torch.zeros(24, 8))]
        [torch.Size([8, 8]), torch.Size([8, 8]), torch.Size([8, 8])]
    """

    n: int
    dim: int = 0

    def parts(self, x: Tensor) -> list[Tensor]:
        if x.shape[self.dim] % self.n:
            raise ValueError(f"split: {x.shape[self.dim]} is not a multiple of {self.n}, in the shape {tuple(x.shape)}")
        return [part.contiguous() for part in x.split(x.shape[self.dim] // self.n, self.dim)]

    def whole(self, parts: list[Tensor], like: Tensor) -> Tensor:
        return torch.cat(parts, self.dim)


@tree.record
class blocks(View):
    """Blocks of a matrix, each a leaf of its own, row by row of blocks.

    Args:
        size: how many rows and columns a block has at most.

    Example:
        >>> import torch
        >>> from optfx.combinators import views
        >>> [tuple(part.shape) for part in views.blocks(4).parts(torch.zeros(8, 6))]
        [(4, 4), (4, 2), (4, 4), (4, 2)]
    """

    size: int

    def parts(self, x: Tensor) -> list[Tensor]:
        return [part.contiguous() for rows in x.split(self.size, -2) for part in rows.split(self.size, -1)]

    def whole(self, parts: list[Tensor], like: Tensor) -> Tensor:
        n = math.ceil(like.shape[-1] / self.size)
        return torch.cat([torch.cat(parts[i : i + n], -1) for i in range(0, len(parts), n)], -2)
