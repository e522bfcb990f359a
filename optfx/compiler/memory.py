"""The tensors that steps write to, wherever they are: memory may move between two steps.

Of a leaf that is sharded, kernels see the part of this process, and the caller the `DTensor`.
"""

from __future__ import annotations

import itertools
import operator
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optfx import tree
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.lazy import Form, Lazy
from optfx.core.transform import check_updates
from optfx.tree import Tree, flatten, paths, unflatten
from optfx.tree.nodes import leaves_in
from optfx.tree.record import is_wrapped
from optfx.tree.sharded import any_sharded, check_meshes, from_local, is_sharded, laid, local_of, settled, spread_of
from optfx.tree.words import LeafError, misfit


class Memory:
    """Params and state of a compiled step.

    Args:
        params: tree of parameters.
        state: tree of tensors.
        live: whether the tensors of `params` are trained themselves; otherwise copies are.
        copy: whether the state is copied.
        module: the module whose parameters `params` are, by name: it may replace them by others.
        before: the memory of the optimizer until now, if it had any.

    Attributes:
        own: the tensors that kernels write to, params first; all contiguous. Each stays one object, wherever its memory
            goes.
        forms: of the leaves that these are, or are parts of.
        params: what the caller sees: tensors that share memory with live ones.
        state: likewise.

    Raises:
        ValueError: live parameters that share memory, naming the paths.
    """

    def __init__(
        self, params: Tree, state: Tree, live: bool, copy: bool, module: nn.Module | None, before: Memory | None
    ):
        self._left: list[Any] = [] if before is None else before.left()
        given, self.structure = flatten(params)
        self._module, self._trained = module, [] if module is None else sorted(params)  # as leaves
        self._find_places()
        kept, self.of_state = flatten(state)
        self.names = [*paths(params), *(f"state {p}" for p in paths(state))]
        self.live: list[Tensor] = [*given] if live else []
        self._sharded = {type(x) for x in given if is_sharded(x)}
        self._refuse_shared()
        self.n = len(given)
        self._leaves = _unshared([*(_own(x, not live) for x in given), *(_own(x, copy) for x in kept)])
        self.forms = [*map(Form.of, self._leaves)]
        self.own = [*map(local_of, self._leaves)]
        self.apart = self._not_contiguous()  # which kernels see copies of
        self._show()

    def _find_places(self) -> None:
        """Where the module keeps its parameters, and the modules in it."""
        parts = {} if self._module is None else dict(self._module.named_modules(remove_duplicate=False))
        self._links = [(x._modules, name, part) for x in parts.values() for name, part in x._modules.items()]
        paths = (name.rpartition(".") for name in self._trained)
        self._kept_in = [(parts[path]._parameters if path in parts else {}, leaf) for path, _, leaf in paths]

    def left(self) -> list[Any]:
        """References to what the caller has seen, now and before."""
        return [ref for ref in (*self._left, *map(weakref.ref, self.shown)) if ref() is not None]

    def _parts(self) -> list[Tensor]:
        """The parts of live tensors that are here."""
        return [*map(local_of, self.live)] if self._sharded else self.live

    def _not_contiguous(self) -> list[int]:
        return [i for i, x in enumerate(self._parts()) if not x.is_contiguous()]

    def _show(self) -> None:
        self.shown = [*(x.detach() for x in self.live), *self._leaves[len(self.live) :]]
        self.params = unflatten(self.structure, self.shown[: self.n])
        self.state = unflatten(self.of_state, self.shown[self.n :])

    def replace(self, own: list[Tensor]) -> None:
        """Take other tensors in the place of those that kernels write to. Live parameters are given their memory."""
        for i, x in enumerate(self._parts()):
            if i not in self.apart and x.data_ptr() != own[i].data_ptr():
                x.data = own[i]
        before = zip(self._leaves, own, self.forms, strict=True)
        self._leaves = [x if local_of(x) is y else from_local(y, form.spread, form.shape) for x, y, form in before]
        self.own, self.forms = own, [*map(Form.of, self._leaves)]
        self._show()

    def where(self, others: Sequence[Tensor]) -> list[int]:
        """The addresses of all tensors, and of others.

        Raises:
            ValueError: a module without one of its parameters.
        """
        if self._module is not None:
            if any(kept.get(name) is not part for kept, name, part in self._links):
                self._find_places()
            live = [kept.get(name) for kept, name in self._kept_in]
            if not all(map(operator.is_, live, self.live)):
                if any(x is None for x in live):
                    path = self.names[[x is None for x in live].index(True)]
                    raise ValueError(f"fuse: the module has no parameter at {path!r} any more: call init again")
                self.live = [x for x in live if x is not None]
        return list(map(Tensor.data_ptr, (*self._parts(), *self.own[len(self.live) :], *others)))

    def follow(self, packed: set[int], others: Sequence[Tensor], forms: Sequence[Form]) -> None:
        """Make sure that kernels write where the tensors are now.

        Args:
            packed: which of `own` lie in buffers, and stay there.
            others: numbers that the step reads.
            forms: of those numbers, in the step before.

        Raises:
            ValueError: a tensor that has another form than in the step before, or none, naming it.
        """
        names = [*self.names, *("a number of the optimizer" for _ in others)]
        tensors, parts = [*self.live, *self._leaves[len(self.live) :], *others], self._parts()
        for name, x, before in zip(names, tensors, [*self.forms, *forms], strict=True):
            if Form.of(x) != before:
                raise ValueError(
                    f"fuse: the tensor at {name!r} is {Form.of(x)} now, and was {before} when the step was compiled: "
                    "call init again"
                )
        for name, x in zip(names, [*parts, *self.own[len(parts) :], *others], strict=True):
            if x.numel() and not x.data_ptr():
                raise ValueError(
                    f"fuse: the tensor at {name!r} has no memory: its storage was freed, and not filled again"
                )
        self._refuse_shared()
        self.apart = self._not_contiguous()
        for i, x in enumerate(parts):
            own = self.own[i]
            if i in packed and i not in self.apart and x.data_ptr() != own.data_ptr():
                own.copy_(x)
                x.data = own
            elif i not in packed:
                own.data = x.detach().contiguous()
            local_of(self.shown[i]).data = x.detach()
        for x in self.own[self.n :]:
            if not x.is_contiguous():
                x.data = x.contiguous()

    def read(self) -> None:
        """Copy what kernels see copies of, before a step."""
        for i in self.apart:
            self.own[i].copy_(local_of(self.live[i]))

    def write(self) -> None:
        """And after it."""
        for i in self.apart:
            local_of(self.live[i]).copy_(self.own[i])

    def copy_in(self, params: Tree, state: Tree) -> None:
        """Copy tensors that are not ours into those that are."""
        p, s = leaves_in(self.structure, params), leaves_in(self.of_state, state)
        if p is not None and s is not None and all(map(operator.is_, (*p, *s), self.shown)):
            return
        check("params", self.params, params)
        check("the state", self.state, state)
        given = [*flatten(params)[0], *flatten(state)[0]]
        ours = {local_of(x).untyped_storage().data_ptr() for x in self.shown}
        left = {id(x) for ref in self._left if (x := ref()) is not None}
        if any(id(x) in left and local_of(x).untyped_storage().data_ptr() not in ours for x in given):
            raise ValueError(
                "fuse: these params or this state are of an earlier init. An optimizer has the tensors of its last "
                "init, and these would be copied into them: make another fuse(tx) for each model"
            )
        changed = [
            (local_of(old), local_of(laid(new, form.spread)))
            for old, new, form in zip(self.shown, given, self.forms, strict=True)
            if old is not new
        ]
        fresh = [(old, new.clone() if new.untyped_storage().data_ptr() in ours else new) for old, new in changed]
        for old, new in fresh:
            old.copy_(new)

    def of_gradients(self, grads: Tree) -> list[Any] | None:
        """The parts of gradients that are here, each spread as its parameter is; None if one does not fit it."""
        xs = leaves_in(self.structure, grads)
        if xs is None or not (self._sharded or any_sharded(xs)):
            return xs
        found = []
        for x, (shape, _, _, spread) in zip(xs, self.forms, strict=False):
            if type(x) in self._sharded and spread is not None and x.shape == shape:
                mesh = x.device_mesh
                if mesh is not spread.mesh and mesh != spread.mesh:
                    return None
                x = x if x.placements == spread.placements else laid(x, spread)
                part = x._local_tensor  # as quick as can be: it is done in each step
                found.append(part if type(part) is Tensor else local_of(x))
            elif spread is None and not (is_sharded(x) and x.ndim):
                found.append(local_of(settled(x)))
            else:
                return None
        return found

    def check_gradients(self, grads: Tree) -> None:
        """Raise on gradients that do not fit the parameters, naming the path."""
        check_updates("fuse", self.params, grads)
        check("the gradient", self.params, grads)

    def seen(self, grads: list[Tensor]) -> list[Tensor]:
        """Gradients, params and state as a recording sees them: of what is sharded, the form."""
        forms = [*(form._replace(dtype=x.dtype) for x, form in zip(grads, self.forms, strict=False)), *self.forms]
        return [
            x if form.spread is None else Lazy(Input(i), 0, form)
            for i, (x, form) in enumerate(zip((*grads, *self.own), forms, strict=True))
        ]

    def _refuse_shared(self) -> None:
        """Refuse live parameters whose elements share memory, with each other or among themselves."""
        ends: list[tuple[int, int, int]] = []
        parts = self._parts()
        for i, x in enumerate(parts):
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
            if begin < end and parts[i].untyped_storage()._cdata == parts[j].untyped_storage()._cdata:
                first, second = (self.names[k] for k in sorted((i, j)))
                raise ValueError(
                    f"fuse: the parameters at {first!r} and {second!r} share memory, so one would be "
                    "written over the other: train one of them, or clone one"
                )


def check_params(params: Tree, live: bool, sharded: bool) -> None:
    """Raise on parameters that cannot be trained in place.

    Args:
        params: tree of them.
        live: whether they are trained themselves; otherwise copies are.
        sharded: whether they may be sharded.
    """
    for path, x in zip(paths(params), flatten(params)[0], strict=True):
        known = type(x) in (Tensor, nn.Parameter) or (sharded and is_sharded(x))
        if isinstance(x, Tensor) and (is_wrapped(x) or not known):
            kind = "inside a function transform" if is_wrapped(x) else f"a {type(x).__name__}"
            raise TypeError(f"fuse: the parameter at {path!r} is {kind}, expected a plain tensor")
        if not live and isinstance(x, nn.Parameter):
            raise ValueError(
                f"fuse: the parameter at {path!r} is an nn.Parameter, and a copy of it would be trained: give the "
                "module itself, which is trained in place; or tensors, optfx.params(module)"
            )
        if live and settled(x) is not x:
            raise ValueError(f"fuse: the parameter at {path!r} is a pending sum (Partial): redistribute it")


def as_new(like: Tree, state: Tree) -> Tree:
    """A state that was given, spread as a new one is.

    Raises:
        TypeError, ValueError: one that does not fit, naming the path.
    """
    check("the state", like, state)
    return tree.map(lambda x, own: laid(own, spread_of(x)), like, state)


def check(what: str, expected: Tree, given: Tree) -> None:
    """Raise unless a tree looks like the expected one."""
    xs, structure = flatten(expected)
    if words := misfit(expected, xs, given, leaves_in(structure, given)):
        raise ValueError(f"fuse: {what}: the tree {words}")
    for path, x, y in zip(paths(expected), xs, flatten(given)[0], strict=True):
        try:
            check_meshes([x, y])
        except LeafError as error:
            raise TypeError(f"fuse: {what} at {path!r}: {error}") from None


def _own(x: Tensor, copy: bool) -> Tensor:
    x = settled(x.detach())
    if not is_sharded(x):
        return x.clone(memory_format=torch.contiguous_format) if copy else x.contiguous()
    x = x.clone() if copy else x
    local = local_of(x)
    return x if local.is_contiguous() else from_local(local.contiguous(), spread_of(x), x.shape)


def _unshared(leaves: list[Tensor]) -> list[Tensor]:
    """Leaves none of which is another, as `z` is in `State(mu=z, nu=z)`: both are written to."""
    found, places = [], set()
    for x in leaves:
        at = local_of(x).data_ptr()
        found.append(x.clone() if at and at in places else x)
        places.add(local_of(found[-1]).data_ptr())
    return found
