"""An optimizer as a compiled step: in place, by one kernel for all leaves that go through the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from optfx import hints, tree
from optfx.compiler.given import form_of, kinds_of, leaves_of, needed, plain, some_function
from optfx.compiler.members import Alone, Members
from optfx.compiler.memory import Memory, as_new, check_params
from optfx.compiler.record.findings import Changed, Drifted, Known, NotClosed, Resting
from optfx.compiler.record.inputs import AsLeaf, AsScalar, Input
from optfx.compiler.record.lazy import Form
from optfx.core import EXTRA_ARGS, GradientTransformation, as_transform
from optfx.core.transform import check_extra
from optfx.tree import Tree, flatten, paths, unflatten

if TYPE_CHECKING:  # they bring the tracer, which takes longer to import than all of optfx
    from optfx.compiler.kernels.cpp.calls import Call
    from optfx.compiler.kernels.workshop import Workshop
    from optfx.compiler.plan.plan import Plan
    from optfx.compiler.record.recording import Recording

SMALL = 32768  # elements up to which a leaf is packed with others, where a kernel does one leaf a call


class fuse:
    r"""An optimizer compiled as a whole. A step runs in place, with one kernel for all leaves that go through the same.

    `tx.update` and `apply_updates` run once on leaves without values, and what they ask of the verbs becomes a program.
    Compiling takes about a second, whatever the number of parameters. A new value of a tensor hyperparameter or of a
    schedule compiles nothing. What cannot be fused runs as a stage of its own, and `explain()` says what and why. Of
    sharded leaves (`DTensor`s) each process works on its part, and waits for the others once a stage that needs numbers
    of whole leaves.

    The numbers are those of `tx` to rounding: the same operations in the same order, with scalars in float64. Sums,
    products, quotients, means by `lerp` and casts of leaves are rounded as in eager code, bit for bit. Elsewhere the
    last bits may differ: in square roots, exponentials and the like, in sums over leaves, and where a leaf is divided
    by a scalar, which becomes a product with its reciprocal. A copy of a `fuse` has no parameters before an `init`.

    Args:
        tx: a transform, usually a whole optimizer, or a foreign `init`/`update` pair.
        members: how many optimizers `tx` is at once, or None for one. Then each of its tensors has a leading dimension
            over the members, as `vmap` and `sweep.stack` give them, unless all share a () tensor. So has each leaf of
            params, gradients and state, and an extra argument that is a tensor with dimensions. The optimizer is read
            once, for one of them, and the number of members compiles nothing new. What cannot be fused runs under
            `vmap`.

    Raises:
        ValueError: a tensor of `tx` without the dimension over the members, naming its path.

    Reference: TorchInductor's and XLA's fusion of pointwise operations; `torch.optim`'s `fused=True` kernels.

    Example:
        >>> import torch, optfx
        >>> opt = optfx.fuse(optfx.adamw(0.1))
        >>> params, state = opt.init({"w": torch.tensor([1.0, -2.0])})
        >>> params, state = opt.step({"w": torch.tensor([0.5, -0.5])}, state, params)
        >>> params
        {'w': tensor([ 0.9000, -1.9000])}
    """

    _memory: Memory
    _workshop: Workshop

    def __init__(self, tx: Any, members: int | None = None):
        self.tx: GradientTransformation = as_transform(tx)
        self._members = Alone() if members is None else Members(members)
        if members is not None:
            self.tx = tree.map(lambda x: x if x.ndim else self._members.every(x), self.tx)
        self._members.check("the optimizer", self.tx)
        self._extra_args = self.tx.extra_args
        self._recordings: list[tuple[Any, Recording]] = []  # what each is of, and it: for `of_others`
        self._plans: dict[Any, Plan] = {}  # by what gradients and extra arguments look like
        self._plan: Plan | None = None  # that of the last step

    def __repr__(self) -> str:
        return f"fuse({self.tx!r})"

    def __reduce__(self) -> Any:  # for copies and pickles: the transform, and none of the parameters
        return fuse, (self.tx, None if type(self._members) is Alone else self._members.count)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(hints.for_method(name, "fuse"))

    @torch.no_grad()
    def init(self, params: Tree, state: Tree = None, *, copy: bool = True, **extra: Any) -> tuple[Tree, Tree]:
        """Lay out params and state, and compile the step.

        Args:
            params: tree of tensors, which are copied; or an `nn.Module`, whose trainable parameters are trained
                themselves, wherever their memory is at each step.
            state: a state of `tx`, from a checkpoint say, which is copied; None for `tx.init(params)`.
            copy: False to train the tensors of `params` and `state` themselves. Parameters may be given new memory.
            **extra: the extra arguments that steps will be given, if the optimizer declares any that are not in
                `EXTRA_ARGS`. Without them the first step compiles. The values of numbers and leaves do not matter.

        Returns:
            `(params, state)`: the tensors that `step` updates. The state has the structure of `tx.init(params)`, so it
            is saved, read and set like any other.

        Raises:
            TypeError, ValueError: parameters or a state that do not fit `tx`; live parameters that share memory, or an
                `nn.Parameter` that would be copied. The message names the path.
        """
        from optfx.compiler.kernels.workshop import Workshop

        live, module = not copy or isinstance(params, nn.Module), None
        if isinstance(params, nn.Module):
            module = params
            params = {name: p for name, p in params.named_parameters() if p.requires_grad}
        check_params(params, live, sharded=not isinstance(self._members, Members))
        self._members.check("the parameter", params)
        like = self._members.init(self.tx, params)
        for path, x in zip(paths(like), flatten(like)[0], strict=True):
            if not isinstance(x, Tensor):
                raise TypeError(f"fuse: the state at {path!r} is a {type(x).__name__}, expected a tensor")
        if state is not None:
            like = as_new(like, state)
        self._memory = Memory(params, like, live, copy, module, getattr(self, "_memory", None))
        self._workshop, self._plans, self._plan = Workshop(self._members), {}, None
        # only the kind of an argument matters here, and that of the common ones is known
        guessed = dict.fromkeys(EXTRA_ARGS, some_function) | {"value": 0.0, "grad": self.params}
        extra = self._declared(guessed | extra)
        if needed(self.tx) <= extra.keys():  # else the first step tells
            self._compile([plain(x) for x in flatten(self.params)[0]], extra)
        return self.params, self.state

    @torch.no_grad()
    def step(
        self, grads: Tree, state: Tree, params: Tree, *, resting: Resting | None = None, **extra: Any
    ) -> tuple[Tree, Tree]:
        """One step, in place.

        Args:
            grads: tree of gradients like params. Their dtypes may differ from those of the params.
            state: from `init` or the last `step`. Other tensors are copied into those.
            params: likewise.
            resting: parameters that stay as they are, whatever their gradients; for optimizers that treat every element
                alone.
            **extra: the extra arguments of `tx.update`: see `EXTRA_ARGS`.

        Returns:
            `(params, state)`: the same tensors, with new values.

        Raises:
            RuntimeError: before `init`.
            ValueError: trees that do not fit. The message names the path, and nothing has changed.
            TypeError: an unknown extra argument; a plain gradient of a sharded parameter, or one on another mesh.
            Together: parameters cannot rest in this optimizer.
        """
        if not hasattr(self, "_memory"):
            raise RuntimeError("fuse: call init before step")
        if extra:
            check_extra(self.tx, extra)
        extra = self._declared(extra)
        leaves = self._memory.of_gradients(grads)
        plan = None if leaves is None else self._plan_for(leaves, extra)
        if leaves is None or plan is None:
            self._memory.check_gradients(grads)
            leaves = [plain(x) for x in leaves or ()]
            plan = self._plan_for(leaves, extra) or self._compile(leaves, extra)
        plan.leave_out(resting.params if resting is not None else frozenset())
        while True:
            try:
                self._run(plan, leaves, state, params, extra, resting.state if resting is not None else ())
                return self.params, self.state
            except Changed as change:
                if change.place is None or plan.known.results.get(change.place) == change.forms:
                    raise
                plan.known.results[change.place] = change.forms
                plan = self._compile(leaves, extra, plan.known)

    @torch.no_grad()
    def calls(self, grads: Tree, **extra: Any) -> list[Call] | None:
        """The calls of C functions that a step with these very tensors is, until memory moves or `step` is called.

        None where a step is more: where Python takes part in it, or something is copied first.
        """
        from optfx.compiler.kernels.cpp.aten import copy

        memory, extra = self._memory, self._declared(extra)
        leaves = flatten(grads)[0]
        plan = self._plan_for(leaves, extra)
        if plan is None or memory.apart or any(plain(x) is not x for x in leaves):
            return None
        self._follow(plan)
        rebound, first = [(Input(i), x) for i, x in enumerate(leaves)], []
        for what, x in zip(plan.recording.inputs.extra, leaves_of(extra), strict=True):
            if type(what) is AsLeaf:
                rebound.append((what.input, x))
            elif type(what) is AsScalar and isinstance(x, Tensor):
                first.append(copy(plan.scalars[what.index], x))
            else:
                return None
        rest = plan.calls(rebound)
        return None if rest is None else [*first, *rest]

    @property
    def params(self) -> Tree:
        """The parameters, as the last step left them."""
        return self._memory.params

    @property
    def state(self) -> Tree:
        """The state, as the last step left it."""
        return self._memory.state

    def explain(self) -> str:
        """The stages of a step: what runs in each, on which leaves, and why something was not fused.

        Example:
            >>> import torch, optfx
            >>> opt = optfx.fuse(optfx.muon(0.1))
            >>> params, state = opt.init({"w": torch.ones(2, 2), "v": torch.ones(2, 3)})
            >>> print(opt.explain())
            2 leaves, 2 stages
            stage 0
                ahead [C++]: v, w
                newton_schulz, as it is, for it multiplies matrices: 2 times
            stage 1
                mul > decay > mul > add > ahead [C++]: v, w
        """
        if self._plan is None:
            raise RuntimeError("fuse: call init before explain, and step where a step needs extra arguments")
        from optfx.compiler.explain import explanation

        return explanation(self._plan, self.params, self.state)

    def of_others(self, tx: Any, members: int) -> fuse:
        """The same optimizer for so many other members, with numbers of their own in `tx`; it is not read again."""
        other = fuse(tx, members)
        other._recordings = self._recordings
        return other

    # ---- how --------------------------------------------------------------------------------------

    def _declared(self, extra: dict[str, Any]) -> dict[str, Any]:
        return {name: x for name, x in sorted(extra.items()) if name in self._extra_args}

    def _plan_for(self, grads: list[Any], extra: dict[str, Any]) -> Plan | None:
        """The plan that was made for such gradients and extra arguments."""
        forms, kinds = [form_of(x) for x in grads], kinds_of(extra, self._members)
        if self._plan is None or forms != self._plan.forms or kinds != self._plan.kinds:
            self._plan = self._plans.get((*forms, *kinds))
        return self._plan

    def _compile(self, grads: list[Tensor], extra: dict[str, Any], again: Known | None = None) -> Plan:
        """Compile the step for such gradients and extra arguments."""
        from optfx.compiler.plan.plan import Plan
        from optfx.compiler.plan.whole import whole
        from optfx.compiler.record.recording import record

        known, memory, n = again or Known(), self._memory, self._memory.n
        forms, kinds, members = [form_of(x) for x in grads], kinds_of(extra, self._members), self._members
        while True:
            one = [*map(members.one, memory.seen(grads))]
            gradients, params = unflatten(memory.structure, one[:n]), unflatten(memory.structure, one[n : 2 * n])
            try:
                tx, given = tree.map(members.one, self.tx), {k: tree.map(members.one, x) for k, x in extra.items()}
                state = unflatten(memory.of_state, one[2 * n :])
                of = [flatten(tx)[1], memory.structure, memory.of_state, kinds, *map(form_of, one[:n])]
                of += map(Form.of, one)
                kept = next((x for what, x in self._recordings if what == of and again is None), None)
                recording = kept or record(tx, gradients, state, params, given, known)
                every = whole(recording, [*grads, *memory.own], flatten(self.tx)[0], leaves_of(extra), members)
                plan = Plan(recording, every, self._workshop, SMALL, forms, kinds)
            except NotClosed as found:
                if found.codes <= known.opened:
                    raise
                known.opened |= found.codes
                known.complete = False  # what they look at comes to light now
            except Drifted as found:
                drifted = [x.to(dtype) for x, dtype in zip(memory.own[n:], found.dtypes, strict=True)]
                memory.replace([*memory.own[:n], *drifted])
                self._plans = {}
            else:
                break
            finally:
                self._workshop.finish()
        if kept is None and isinstance(members, Members):  # one alone has no others, and would hold on to old memory
            self._recordings.insert(0, (of, recording))
        if plan.moved:
            memory.replace(plan.values[n : n + len(memory.own)])
            self._plans = {}
        self._plans[(*plan.forms, *plan.kinds)] = self._plan = plan
        return plan

    def _follow(self, plan: Plan) -> None:
        """Make sure that kernels work where the memory is now."""
        memory = self._memory
        if memory.where(plan.numbers) != plan.addresses:
            memory.follow({i - memory.n for i in plan.moved}, plan.numbers, plan.memory)
            plan.look_up(memory.where(plan.numbers))

    def _run(
        self, plan: Plan, grads: list[Tensor], state: Tree, params: Tree, extra: dict[str, Any], resting: Sequence[int]
    ) -> None:
        memory, inputs, given = self._memory, plan.recording.inputs, leaves_of(extra)
        self._follow(plan)
        memory.copy_in(params, state)
        memory.read()
        rebound: list[tuple[Any, Any]] = [*enumerate(grads)]
        for what, x in zip(inputs.extra, given, strict=True):
            kind = type(what)  # not isinstance, which looks at what is given
            if kind is AsLeaf:
                rebound.append((what.input, plain(x)))  # type: ignore[union-attr]
            elif kind is AsScalar:
                place = plan.scalars[what.index]  # type: ignore[union-attr]
                place.copy_(x) if isinstance(x, Tensor) else place.fill_(x)
        kept = [memory.own[memory.n + k] for k in resting]
        values = [x.clone() for x in kept]
        plan.run(rebound, given)
        if kept:
            torch._foreach_copy_(kept, values)  # pyright: ignore[reportPrivateImportUsage]
        memory.write()
