"""One optimizer, or many as one: then every tensor has a leading dimension over the members.

A step is read for one member. What is read stands for all: kernels go from member to member in memory, and what runs as
it is runs under `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from optfx import tree
from optfx.core import GradientTransformation
from optfx.tree import Tree


class Alone:
    """One optimizer, whose tensors are as they are."""

    count = 1

    def check(self, what: str, t: Tree) -> None:
        """Raise ValueError unless each tensor of a tree has the dimension over the members, naming its path."""

    def one(self, x: Any) -> Any:
        """The first member of a tensor; anything else as it is."""
        return x

    def every(self, x: Tensor) -> Tensor:
        """A tensor that all members share, as each has it."""
        return x

    def shape(self, of_one: torch.Size) -> torch.Size:
        """The shape of a tensor that has this one for a member."""
        return of_one

    def apart(self, x: Tensor) -> int:
        """How many bytes lie between two members."""
        return 0

    def init(self, tx: GradientTransformation, params: Tree) -> Tree:
        return tx.init(params)

    def run(self, f: Callable[..., Any], *args: Any) -> Any:
        """A function of lists of one member's tensors, for all of them."""
        return f(*args)


class Members(Alone):
    """n optimizers, read as one.

    Args:
        n: how many.
    """

    def __init__(self, n: int):
        if n < 1:
            raise ValueError(f"fuse: members is at least 1, got {n}")
        self.count = n

    def check(self, what: str, t: Tree) -> None:
        for path, x in zip(tree.paths(t), tree.leaves(t), strict=True):
            if isinstance(x, Tensor) and (not x.ndim or x.shape[0] != self.count):
                raise ValueError(f"fuse: {what} at {path!r} is {tuple(x.shape)}, expected {self.count} members first")

    def one(self, x: Any) -> Any:
        return x[0] if isinstance(x, Tensor) and x.ndim else x

    def every(self, x: Tensor) -> Tensor:
        return x.expand(self.count, *x.shape)

    def shape(self, of_one: torch.Size) -> torch.Size:
        return torch.Size((self.count, *of_one))

    def apart(self, x: Tensor) -> int:
        return x.stride(0) * x.element_size()

    def init(self, tx: GradientTransformation, params: Tree) -> Tree:
        state = vmap(lambda tx, params: tx.init(params))(tx, params)
        return tree.map(lambda x: x.clone(memory_format=torch.contiguous_format), state)

    def run(self, f: Callable[..., Any], *args: Any) -> Any:
        flat, structure = tree.flatten(args)
        mapped = [k for k, x in enumerate(flat) if isinstance(x, Tensor)]

        def of_one(*xs: Tensor) -> Any:
            given = [*flat]
            for k, x in zip(mapped, xs, strict=True):
                given[k] = x
            return f(*tree.unflatten(structure, given))

        return vmap(of_one)(*(flat[k] for k in mapped)) if mapped else f(*args)
