"""An optimizer as a compiled step: in place, by one kernel for all leaves that go through the same."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from optfx import tree
from optfx.compiler.record.inputs import AsLeaf, AsScalar, Input, kind_of
from optfx.core import EXTRA_ARGS, GradientTransformation, as_transform
from optfx.core.transform import check_extra, check_updates
from optfx.tree import Tree, flatten, paths, unflatten
from optfx.tree.nodes import leaves_in
from optfx.tree.record import is_wrapped
from optfx.tree.words import misfit

if TYPE_CHECKING:  # they bring the tracer, which takes longer to import than all of optfx
    from optfx.compiler.kernels.workshop import Workshop
    from optfx.compiler.plan.plan import Plan

SMALL = 32768  # elements up to which a leaf is packed with others, where a kernel does one leaf a call


class fuse:
    r"""An optimizer compiled as a whole. A step runs in place, with one kernel for all leaves that go through the same.

    `tx.update` and `apply_updates` run once on leaves without values, and what they ask of the verbs becomes a program.
    Compiling takes about a second, whatever the number of parameters. A new value of a tensor hyperparameter or of a
    schedule compiles nothing. What cannot be fused runs as a stage of its own, and `explain()` says what and why.

    The numbers are those of `tx` to rounding: the same operations in the same order, with scalars in float64. Sums,
    products, quotients, means by `lerp` and casts of leaves are rounded as in eager code, bit for bit. Elsewhere the
    last bits may differ: in square roots, exponentials and the like, in sums over leaves, and where a leaf is divided
    by a scalar, which becomes a product with its reciprocal.

    Args:
        tx: a transform, usually a whole optimizer, or a foreign `init`/`update` pair.

    Reference: TorchInductor's and XLA's fusion of pointwise operations; `torch.optim`'s `fused=True` kernels.

    Example:
        >>> import torch, optfx
        >>> opt = optfx.fuse(optfx.adamw(0.1))
        >>> params, state = opt.init({"w": torch.tensor([1.0, -2.0])})
        >>> params, state = opt.step({"w": torch.tensor([0.5, -0.5])}, state, params)
        >>> params
        {'w': tensor([ 0.9000, -1.9000])}
    """

    _workshop: Workshop

    def __init__(self, tx: Any):
        self.tx: GradientTransformation = as_transform(tx)
        self._extra_args = self.tx.extra_args
        self._live: list[Tensor] = []  # parameters of the caller, which are given the memory that steps write to
        self._plan: Plan | None = None

    def __repr__(self) -> str:
        return f"fuse({self.tx!r})"

    @torch.no_grad()
    def init(self, params: Tree, state: Tree = None, *, copy: bool = True, **extra: Any) -> tuple[Tree, Tree]:
        """Lay out params and state, and compile the step.

        Args:
            params: tree of tensors, which are copied; or an `nn.Module`, whose trainable parameters are trained
                themselves.
            state: a state of `tx`, from a checkpoint say, which is copied; None for `tx.init(params)`.
            copy: False to train the tensors of `params` and `state` themselves. Parameters may be given new memory.
            **extra: the extra arguments that steps will be given, if the optimizer declares any that are not in
                `EXTRA_ARGS`. Their values do not matter.

        Returns:
            `(params, state)`: the tensors that `step` updates. The state has the structure of `tx.init(params)`, so it
            is saved, read and set like any other.

        Raises:
            TypeError, ValueError: parameters or a state that do not fit `tx`. The message names the path.
        """
        from optfx.compiler.kernels.workshop import Workshop

        live = not copy or isinstance(params, nn.Module)
        if isinstance(params, nn.Module):
            params = {name: p for name, p in params.named_parameters() if p.requires_grad}
        for path, x in zip(paths(params), flatten(params)[0], strict=True):
            if isinstance(x, Tensor) and (is_wrapped(x) or type(x) not in (Tensor, nn.Parameter)):
                kind = "inside a function transform" if is_wrapped(x) else f"a {type(x).__name__}"
                raise TypeError(f"fuse: the parameter at {path!r} is {kind}, expected a plain tensor")
        like = self.tx.init(params)
        for path, x in zip(paths(like), flatten(like)[0], strict=True):
            if not isinstance(x, Tensor):
                raise TypeError(f"fuse: the state at {path!r} is a {type(x).__name__}, expected a tensor")
        if state is not None:
            _check("the state", like, state)
        self._live = flatten(params)[0] if live else []
        own = tree.map(lambda x: _own(x, not live), params)
        state = tree.map(lambda x: _own(x, copy), like if state is None else state)
        # only the kind of an argument matters here, and that of the common ones is known
        guessed = dict.fromkeys(EXTRA_ARGS, _some_function) | {"value": 0.0, "grad": own}
        self._workshop = Workshop()
        return self._compile(own, own, state, self._declared(guessed | extra))

    @torch.no_grad()
    def step(self, grads: Tree, state: Tree, params: Tree, **extra: Any) -> tuple[Tree, Tree]:
        """One step, in place.

        Args:
            grads: tree of gradients like params. Their dtypes may differ from those of the params.
            state: from `init` or the last `step`. Other tensors are copied into those.
            params: likewise.
            **extra: the extra arguments of `tx.update`: see `EXTRA_ARGS`.

        Returns:
            `(params, state)`: the same tensors, with new values.

        Raises:
            RuntimeError: before `init`.
            ValueError: trees that do not fit. The message names the path, and nothing has changed.
            TypeError: an extra argument that the optimizer does not know.
        """
        if self._plan is None:
            raise RuntimeError("fuse: call init before step")
        if extra:
            check_extra(self.tx, extra)
        extra = self._declared(extra)
        kinds = [kind_of(x) for x in _leaves(extra)]
        leaves = leaves_in(self._structure, grads)
        if leaves is None or list(map(_form, leaves)) != self._forms or kinds != self._kinds:
            check_updates("fuse", self.params, grads)
            leaves = [x.resolve_conj().contiguous() for x in flatten(grads)[0]]
            if list(map(_form, leaves)) != self._forms or kinds != self._kinds:
                self._copy_foreign(state, params)
                params, state = self._compile(unflatten(self._structure, leaves), self.params, self.state, extra)
        self._copy_foreign(state, params)
        inputs = self._plan.recording.inputs
        rebound = [(Input(i), x) for i, x in enumerate(leaves)]
        for what, x in zip(inputs.extra, _leaves(extra), strict=True):
            if isinstance(what, AsLeaf):
                rebound.append((what.input, x.resolve_conj().contiguous()))
            elif isinstance(what, AsScalar):
                inputs.scalars[what.index].fill_(x)
        self._plan.run(rebound, extra)
        return self.params, self.state

    def explain(self) -> str:
        """The stages of a step: what runs in each, on which leaves, and why something was not fused.

        Example:
            >>> import torch, optfx
            >>> opt = optfx.fuse(optfx.chain(optfx.clip_by_global_norm(1.0), optfx.centralize(), optfx.sgd(0.1)))
            >>> params, state = opt.init({"w": torch.ones(2, 2), "b": torch.ones(2)})
            >>> print(opt.explain())
            2 leaves, 3 stages
            stage 0
                norm [C++]: b, w
            stage 1
                mul [C++]: b, w
                center, as it is, for it sees whole leaves: 2 times
            stage 2
                mul > add [C++]: b, w
        """
        if self._plan is None:
            raise RuntimeError("fuse: call init before explain")
        from optfx.compiler.explain import explanation

        return explanation(self._plan, self.params, self.state)

    # ---- how --------------------------------------------------------------------------------------

    def _declared(self, extra: dict[str, Any]) -> dict[str, Any]:
        return {name: x for name, x in sorted(extra.items()) if name in self._extra_args}

    def _compile(self, grads: Tree, params: Tree, state: Tree, extra: dict[str, Any]) -> tuple[Tree, Tree]:
        """Compile the step for such gradients and extra arguments. Returns the params and the state that it writes."""
        from optfx.compiler.plan.plan import Plan
        from optfx.compiler.record.recording import record

        try:
            plan = Plan(record(self.tx, grads, state, params, extra), self._workshop, SMALL)
        finally:
            self._workshop.finish()
        (_, self._structure), (s, self._of_state) = flatten(params), flatten(state)
        n = plan.recording.inputs.n
        self._own = plan.values[n : 2 * n + len(s)]
        self.params = unflatten(self._structure, self._own[:n])
        self.state = unflatten(self._of_state, self._own[n:])
        self._forms = [_form(x) for x in flatten(grads)[0]]
        self._kinds = [kind_of(x) for x in _leaves(extra)]
        self._plan = plan
        for of_caller, x in zip(self._live, self._own, strict=False):
            if of_caller.data_ptr() != x.data_ptr():
                of_caller.data = x
        return self.params, self.state

    def _copy_foreign(self, state: Tree, params: Tree) -> None:
        """Copy tensors that are not the step's own into those that are."""
        p, s = leaves_in(self._structure, params), leaves_in(self._of_state, state)
        if p is not None and s is not None and all(map(operator.is_, (*p, *s), self._own)):
            return
        _check("params", self.params, params)
        _check("the state", self.state, state)
        given = [*flatten(params)[0], *flatten(state)[0]]
        changed = [(old, new) for old, new in zip(self._own, given, strict=True) if old is not new]
        own = {x.untyped_storage().data_ptr() for x in self._own}
        fresh = [(old, new.clone() if new.untyped_storage().data_ptr() in own else new) for old, new in changed]
        for old, new in fresh:
            old.copy_(new)


def _own(x: Tensor, copy: bool) -> Tensor:
    x = x.detach()
    return x.clone(memory_format=torch.contiguous_format) if copy else x.contiguous()


def _some_function(*args: Any) -> Any:
    raise AssertionError


def _check(what: str, expected: Tree, given: Tree) -> None:
    xs, structure = flatten(expected)
    if words := misfit(expected, xs, given, leaves_in(structure, given)):
        raise ValueError(f"fuse: {what}: the tree {words}")


def _form(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return None
    return x.shape, x.dtype, x.device, x.is_contiguous() and not x.is_conj()


def _leaves(extra: dict[str, Any]) -> list[Any]:
    return [x for name in extra for x in flatten(extra[name])[0]]
