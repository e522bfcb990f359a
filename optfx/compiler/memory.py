"""The tensors that steps write to, wherever they are: memory may move between two steps."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optfx.compiler.record.lazy import Form
from optfx.tree import Tree, flatten, paths, unflatten
from optfx.tree.nodes import leaves_in
from optfx.tree.words import misfit


class Memory:
    """Params and state of a compiled step.

    Args:
        params: tree of parameters.
        state: tree of tensors.
        live: whether the tensors of `params` are trained themselves; otherwise copies are.
        copy: whether the state is copied.
        module: the module whose parameters `params` are, by name: it may replace them by others.

    Attributes:
        own: the tensors that kernels write to, params first; all contiguous. Each stays one object, wherever its memory
            goes.
        params: what the caller sees: tensors that share memory with live ones.
        state: likewise.

    Raises:
        ValueError: live parameters that share memory, naming the paths.
    """

    def __init__(self, params: Tree, state: Tree, live: bool, copy: bool, module: nn.Module | None):
        given, self.structure = flatten(params)
        self._kept_in = [] if module is None else [_place(module, name) for name in sorted(params)]  # as leaves
        kept, self.of_state = flatten(state)
        self.names, self.live = [*paths(params), *(f"state {p}" for p in paths(state))], given if live else []
        self._refuse_shared()
        self.n = len(given)
        self.own = [*(_own(x, not live) for x in given), *(_own(x, copy) for x in kept)]
        self.apart = [i for i, x in enumerate(self.live) if not x.is_contiguous()]  # which kernels see copies of
        self._show()

    def _show(self) -> None:
        self.shown = [*(x.detach() for x in self.live), *self.own[len(self.live) :]]
        self.params = unflatten(self.structure, self.shown[: self.n])
        self.state = unflatten(self.of_state, self.shown[self.n :])

    def replace(self, own: list[Tensor]) -> None:
        """Take other tensors in the place of those that kernels write to. Live parameters are given their memory."""
        for i, x in enumerate(self.live):
            if i not in self.apart and x.data_ptr() != own[i].data_ptr():
                x.data = own[i]
        self.own = own
        self._show()

    def where(self, others: Sequence[Tensor]) -> list[int]:
        """The addresses of all tensors, and of others.

        Raises:
            ValueError: a module without one of its parameters.
        """
        if self._kept_in:
            live = [kept.get(name) for kept, name in self._kept_in]
            if not all(map(operator.is_, live, self.live)):
                if any(x is None for x in live):
                    path = self.names[[x is None for x in live].index(True)]
                    raise ValueError(f"fuse: the module has no parameter at {path!r} any more: call init again")
                self.live = [x for x in live if x is not None]
        return list(map(Tensor.data_ptr, (*self.live, *self.own[len(self.live) :], *others)))

    def follow(self, packed: set[int], others: Sequence[Tensor], forms: Sequence[Form]) -> None:
        """Make sure that kernels write where the tensors are now.

        Args:
            packed: which of `own` lie in buffers, and stay there.
            others: numbers that the step reads.
            forms: of `own`, then of those numbers, in the step before.

        Raises:
            ValueError: a tensor that has another form than in the step before, or none, naming it.
        """
        names = [*self.names, *("a number of the optimizer" for _ in others)]
        tensors = [*self.live, *self.own[len(self.live) :], *others]
        for name, x, before in zip(names, tensors, forms, strict=True):
            if Form.of(x) != before:
                raise ValueError(
                    f"fuse: the tensor at {name!r} is {Form.of(x)} now, and was {before} when the step was compiled: "
                    "call init again"
                )
            if x.numel() and not x.data_ptr():
                raise ValueError(
                    f"fuse: the tensor at {name!r} has no memory: its storage was freed, and not filled again"
                )
        self._refuse_shared()
        self.apart = [i for i, x in enumerate(self.live) if not x.is_contiguous()]
        for i, x in enumerate(self.live):
            own = self.own[i]
            if i in packed and i not in self.apart and x.data_ptr() != own.data_ptr():
                own.copy_(x)
                x.data = own
            elif i not in packed:
                own.data = x.detach().contiguous()
            self.shown[i].data = x.detach()
        for x in self.own[self.n :]:
            if not x.is_contiguous():
                x.data = x.contiguous()

    def read(self) -> None:
        """Copy what kernels see copies of, before a step."""
        for i in self.apart:
            self.own[i].copy_(self.live[i])

    def write(self) -> None:
        """And after it."""
        for i in self.apart:
            self.live[i].copy_(self.own[i])

    def copy_in(self, params: Tree, state: Tree) -> None:
        """Copy tensors that are not ours into those that are."""
        p, s = leaves_in(self.structure, params), leaves_in(self.of_state, state)
        if p is not None and s is not None and all(map(operator.is_, (*p, *s), self.shown)):
            return
        check("params", self.params, params)
        check("the state", self.state, state)
        given = [*flatten(params)[0], *flatten(state)[0]]
        changed = [(old, new) for old, new in zip(self.shown, given, strict=True) if old is not new]
        ours = {x.untyped_storage().data_ptr() for x in self.shown}
        fresh = [(old, new.clone() if new.untyped_storage().data_ptr() in ours else new) for old, new in changed]
        for old, new in fresh:
            old.copy_(new)

    def _refuse_shared(self) -> None:
        """Refuse live parameters whose elements share memory, with each other or among themselves."""
        ends: list[tuple[int, int, int]] = []
        for i, x in enumerate(self.live):
            if x.numel() and x.data_ptr():
                sizes = [(n, s) for n, s in zip(x.shape, x.stride(), strict=True) if n > 1]
                length = 1 + sum((n - 1) * s for n, s in sizes)
                if length < x.numel():
                    raise ValueError(
                        f"fuse: elements of the parameter at {self.names[i]!r} share memory (it is expanded): clone it"
                    )
                ends.append((x.data_ptr(), x.data_ptr() + length * x.element_size(), i))
        ends.sort()
        for (_, end, i), (begin, _, j) in itertools.pairwise(ends):
            if begin < end and self.live[i].untyped_storage()._cdata == self.live[j].untyped_storage()._cdata:
                first, second = (self.names[k] for k in sorted((i, j)))
                raise ValueError(
                    f"fuse: the parameters at {first!r} and {second!r} share memory, so one would be "
                    "written over the other: train one of them, or clone one"
                )


def _place(module: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """Where a module keeps a parameter."""
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path)._parameters, leaf


def check(what: str, expected: Tree, given: Tree) -> None:
    """Raise unless a tree looks like the expected one."""
    xs, structure = flatten(expected)
    if words := misfit(expected, xs, given, leaves_in(structure, given)):
        raise ValueError(f"fuse: {what}: the tree {words}")


def _own(x: Tensor, copy: bool) -> Tensor:
    x = x.detach()
    return x.clone(memory_format=torch.contiguous_format) if copy else x.contiguous()
