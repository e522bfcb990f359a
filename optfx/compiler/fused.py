"""The optimizer as it runs: in place, by one kernel for all leaves that go through the same."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from optfx import tree
from optfx.core import EXTRA_ARGS, GradientTransformation, as_transform
from optfx.core.transform import check_extra, check_updates
from optfx.tree import Tree, flatten, paths, unflatten
from optfx.tree.nodes import leaves_in
from optfx.tree.record import is_wrapped
from optfx.tree.words import misfit

if TYPE_CHECKING:  # they bring the tracer, which takes longer to import than all of optfx
    from optfx.compiler.plan import Plan, Unit

SMALL = 32768  # elements up to which a leaf is packed with others, where a kernel does one leaf a call


class fuse:
    r"""An optimizer compiled as a whole: each step runs in place, one kernel for all leaves that go through the same.

    `tx.update` and `apply_updates` are read once, on leaves that hold nothing, and what the verbs are asked becomes a
    program. Compiling takes about a second, whatever the number of parameters. A new value of a tensor hyperparameter
    or of a schedule compiles nothing. What cannot be fused runs as a stage of its own, correctly; `explain()` tells
    what and why.

    The numbers are those of `tx` itself to rounding: the same operations in the same order, scalars in float64.

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

    def __init__(self, tx: Any):
        self.tx: GradientTransformation = as_transform(tx)
        self._extra_args = self.tx.extra_args
        self._live: list[Tensor] = []  # the parameters that are not ours, whose memory we write to
        self._plan: Plan | None = None

    def __repr__(self) -> str:
        return f"fuse({self.tx!r})"

    @torch.no_grad()
    def init(self, params: Tree, state: Tree = None, *, copy: bool = True, **extra: Any) -> tuple[Tree, Tree]:
        """Lay out params and state, and compile the step.

        Args:
            params: tree of tensors, which are copied; or an `nn.Module`, whose trainable parameters are taken as
                they are and go on being the module's.
            state: a state of `tx`, from a checkpoint say, which is copied; None for `tx.init(params)`.
            copy: False to train the tensors of `params` and `state` themselves, of which the parameters are given other
                memory where theirs will not do.
            **extra: the extra arguments that steps will be given, where the optimizer declares any that `EXTRA_ARGS`
                does not know; their values do not matter.

        Returns:
            `(params, state)`: the tensors that `step` updates. The state has the structure of `tx.init(params)`, so it
            is saved, read and set like any other.

        Raises:
            TypeError, ValueError: parameters or a state that do not fit `tx`, naming the path.
        """
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
        # what is in the vocabulary can be guessed, for what it is matters and not its value
        guessed = dict.fromkeys(EXTRA_ARGS, _some_function) | {"value": 0.0, "grad": own}
        return self._adopt(own, own, state, self._declared(guessed | extra))

    @torch.no_grad()
    def step(self, grads: Tree, state: Tree, params: Tree, **extra: Any) -> tuple[Tree, Tree]:
        """One step, in place.

        Args:
            grads: tree of gradients like params; their dtypes may differ from those of the params.
            state: from `init` or the last `step`. Other tensors are accepted, and copied into those.
            params: likewise.
            **extra: the extra arguments of `tx.update`: see `EXTRA_ARGS`.

        Returns:
            `(params, state)`: the same tensors, with new values.

        Raises:
            RuntimeError: before `init`.
            ValueError: trees that do not fit, naming the path. Nothing is changed then.
            TypeError: an extra argument that the optimizer does not know.
        """
        if self._plan is None:
            raise RuntimeError("fuse: call init before step")
        if extra:
            check_extra(self.tx, extra)
        extra = self._declared(extra)
        kinds = [_kind(x) for x in _leaves(extra)]
        brought = leaves_in(self._structure, grads)
        if brought is None or list(map(_form, brought)) != self._forms or kinds != self._kinds:
            check_updates("fuse", self.params, grads)
            brought = [x.resolve_conj().contiguous() for x in flatten(grads)[0]]
            if list(map(_form, brought)) != self._forms or kinds != self._kinds:
                self._take_over(state, params)
                params, state = self._adopt(unflatten(self._structure, brought), self.params, self.state, extra)
        self._take_over(state, params)
        inputs = self._plan.reading.inputs
        leaves = list(enumerate(brought))
        for (kind, which), x in zip(inputs.extra, _leaves(extra), strict=True):
            if kind == "leaf":
                leaves.append((which, x.resolve_conj().contiguous()))
            elif kind == "scalar":
                inputs.scalars[which].fill_(x)
        self._plan.run(leaves, extra)
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
        plan = self._plan
        n = plan.reading.inputs.n
        names = [*paths(self.params), *paths(self.params), *(f"state {p}" for p in paths(self.state))]
        lines = [f"{_count(n, 'leaf')}, {_count(len(plan.stages), 'stage')}"]
        for number, stage in enumerate(plan.stages):
            lines.append(f"stage {number}")
            for unit in stage.units:
                lines.append(f"    {_words(unit)}: {_some([names[m.inputs[0]] for m in unit.members])}")
            events: dict[str, int] = {}
            for event, _ in stage.events:
                words = f"{event.what}, as it is, for {event.why}"
                events[words] = events.get(words, 0) + 1
            lines += [f"    {words}: {times} times" for words, times in events.items()]
        return "\n".join(lines)

    # ---- how --------------------------------------------------------------------------------------

    def _declared(self, extra: dict[str, Any]) -> dict[str, Any]:
        return {name: x for name, x in sorted(extra.items()) if name in self._extra_args}

    def _adopt(self, grads: Tree, params: Tree, state: Tree, extra: dict[str, Any]) -> tuple[Tree, Tree]:
        """Read the step for such gradients and extra arguments, and make params and state those that it writes."""
        from optfx.compiler.plan import Plan
        from optfx.compiler.reading import read

        plan = Plan(read(self.tx, grads, state, params, extra), SMALL)
        (_, self._structure), (s, self._of_state) = flatten(params), flatten(state)
        n = plan.reading.inputs.n
        self._own = plan.values[n : 2 * n + len(s)]
        self.params = unflatten(self._structure, self._own[:n])
        self.state = unflatten(self._of_state, self._own[n:])
        self._forms = [_form(x) for x in flatten(grads)[0]]
        self._kinds = [_kind(x) for x in _leaves(extra)]
        self._plan = plan
        for theirs, x in zip(self._live, self._own, strict=False):
            if theirs.data_ptr() != x.data_ptr():
                theirs.data = x
        return self.params, self.state

    def _take_over(self, state: Tree, params: Tree) -> None:
        """Copy in what is not ours."""
        p, s = leaves_in(self._structure, params), leaves_in(self._of_state, state)
        if p is not None and s is not None and all(map(operator.is_, (*p, *s), self._own)):
            return
        _check("params", self.params, params)
        _check("the state", self.state, state)
        given = [*flatten(params)[0], *flatten(state)[0]]
        changed = [(old, new) for old, new in zip(self._own, given, strict=True) if old is not new]
        mine = {x.untyped_storage().data_ptr() for x in self._own}
        fresh = [(old, new.clone() if new.untyped_storage().data_ptr() in mine else new) for old, new in changed]
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


def _kind(x: Any) -> Any:
    if isinstance(x, Tensor) and x.ndim:
        return x.shape, x.dtype
    return "number" if isinstance(x, (Tensor, float, int)) and not isinstance(x, bool) else "given"


def _count(n: int, what: str) -> str:
    return f"{n} {what if n == 1 else {'leaf': 'leaves', 'stage': 'stages', 'call': 'calls'}[what]}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _words(unit: Unit) -> str:
    program = unit.work.program
    names = [getattr(f, "__name__", repr(f)).strip("_") for f, *_ in (*program.calls, *program.parts)]
    calls = "" if unit.calls == 1 else f", {_count(unit.calls, 'call')}"
    return f"{' > '.join(names) or 'copy'} [{unit.kernel.by}{calls}]"
