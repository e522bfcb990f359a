"""Transforms as users write them: fused they give the numbers of eager code, whatever they do with leaves."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import optfx
from optfx import core, tree


def params():
    return {"b": torch.tensor([1.0, 2.0]), "w": torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.25, -1.0]])}


def grads(step, like):
    return tree.map(lambda p: torch.sin(p * (step + 1)) * 2, like)


def close(got, expected):
    for path, x, y in zip(tree.paths(expected), tree.leaves(got), tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype, path
        torch.testing.assert_close(x, y, rtol=2e-6, atol=1e-6, msg=lambda words, path=path: f"{path}: {words}")


def same(tx, p=None, extra=lambda step: {}, steps=4):
    """Take steps in eager code and fused, and compare all numbers."""
    p = params() if p is None else p
    last, s = dict(p), tx.init(p)
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    for step in range(steps):
        g = grads(step, p)
        torch.manual_seed(step)
        updates, s = tx.update(g, s, last, **extra(step))
        last = optfx.apply_updates(last, updates)
        torch.manual_seed(step)
        q, state = opt.step(g, state, q, **extra(step))
        close(q, last)
        close(tree.map(lambda x, y: x.to(y.dtype), state, s), s)
    return opt


def on_leaves(f, *others):
    return optfx.chain(optfx.stateless(lambda u, p: tree.map(f, u, *others)), optfx.scale(-0.1))


# ---- what leaves go through ------------------------------------------------------------------------

ELEMENTWISE = {
    "a product": lambda x: x * 2.0,
    "reflected": lambda x: 0.9 * x + 1 - x / 3,
    "a power": lambda x: x**2 - x**3,
    "a method": lambda x: x.mul(2).add(1, alpha=0.5),
    "functions": lambda x: torch.exp(-x.abs()) * torch.tanh(x) + torch.sigmoid(x).relu(),
    "a choice": lambda x: torch.where(x > 0.5, -x, x.sign()),
    "masks": lambda x: (x * (x > 0) + x.clamp(-0.5, 0.5)) * ~(x < -1),
    "an average": lambda x: torch.lerp(x, torch.ones_like(x), 0.3).addcmul(x, x, value=0.1),
    "a cast": lambda x: x.double() * 1.000001,
    "half": lambda x: x.bfloat16() * 3,
}
NUMBERS = {
    "its norm": lambda x: x / (x.norm() + 1),
    "a norm that keeps its dimensions": lambda x: (
        x / torch.linalg.vector_norm(x, dim=tuple(range(x.ndim)), keepdim=True)
    ),
    "its largest element": lambda x: x / (x.abs().max() + x.amin().abs()),
    "its mean": lambda x: x - x.mean() + x.mean(dtype=x.dtype),
    "its variance by hand": lambda x: (x - x.mean()) * ((x - x.mean()).square().mean() + 1e-3).rsqrt(),
    "how many": lambda x: x * (x > 0).sum() / x.numel() + (x > 2).any() * 0.5 - (x > -9).all().to(x.dtype),
    "a norm of another order": lambda x: (
        x / (1 + torch.linalg.vector_norm(x, 1) + torch.linalg.vector_norm(x, float("inf")))
    ),
    "a number first": lambda x: x.abs().sum() * x - 1 / (1 + x.square().sum()) * x,
    "its size": lambda x: x * (x.shape[0] / x.numel()) ** 0.5,
}
WHOLE = {
    "a matrix product": lambda x: 0.9 * x + (x @ x.T @ x if x.ndim == 2 else x),
    "its order": lambda x: x.flip(0).sort().values,
    "its shape": lambda x: x.reshape(-1).cumsum(0).view(x.shape),
    "a decomposition": lambda x: torch.linalg.svd(x, full_matrices=False)[0] @ torch.eye(2, 3) if x.ndim == 2 else x,
    "in place": lambda x: x.clone().mul_(2).clamp_(-1, 1),
    "its values": lambda x: x if bool(x.sum() > 0) else -x,
    "an index": lambda x: x[torch.argmax(x.abs().flatten()) % x.shape[0]] + x,
    "a selection": lambda x: x + x[x > 0].sum(),
    "random numbers": lambda x: x + torch.randn_like(x) * torch.rand(()) + torch.randn(2)[0],
    "a row of numbers": lambda x: x * torch.tensor([1.0, 2.0, 3.0])[: x.shape[-1]],
}


@pytest.mark.parametrize("f", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_elementwise_code_is_fused(f):
    assert "as it is" not in same(on_leaves(f)).explain()


@pytest.mark.parametrize("f", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_code_that_makes_numbers_of_a_leaf_is_fused(f, dtype):
    """Whether a verb shows it whole leaves or nobody does."""
    p = tree.cast(params(), dtype)
    for verb in (tree.map, tree.leafwise, tree.elementwise):
        by_verb = optfx.stateless(lambda updates, params, verb=verb: verb(f, updates))
        assert "as it is" not in same(optfx.chain(by_verb, optfx.scale(-0.1)), p).explain()


@pytest.mark.parametrize("f", WHOLE.values(), ids=WHOLE)
def test_other_code_runs_as_it_is(f):
    assert "as it is" in same(on_leaves(f)).explain()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("f", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_other_dtypes_are_rounded_as_eager_code_does(f, dtype):
    tx = optfx.stateless(lambda u, p: tree.map(f, u))
    p = tree.cast(params(), dtype)
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    q, _ = opt.step(grads(0, p), state, q)
    updates, _ = tx.update(grads(0, p), tx.init(p), p)
    expected = optfx.apply_updates(p, updates)
    tol = 1e-12 if dtype == torch.float64 else 0.0 if f in list(ELEMENTWISE.values())[:4] else torch.finfo(dtype).eps
    for x, y in zip(tree.leaves(q), tree.leaves(expected), strict=True):
        torch.testing.assert_close(x, y, rtol=tol, atol=tol)


def test_explain_names_the_line():
    opt = same(on_leaves(lambda x: x.flip(0)))
    line = test_explain_names_the_line.__code__.co_firstlineno + 1
    assert f"flip, as it is, for it sees whole leaves (test_user_code.py:{line})" in opt.explain()


def test_leaf_functions_that_are_not_closed():
    """A verb is given a function that reads a tensor from outside, and one that looks beyond one element."""
    outside = torch.tensor(2.0)
    both = lambda u, p: tree.elementwise(lambda x: x.cumsum(0), tree.elementwise(lambda x: x * outside, u))
    change = lambda step: (outside.fill_(step + 1.0), {})[1]
    same(optfx.chain(optfx.stateless(both), optfx.sgd(0.1)), extra=change)


# ---- tensors from outside --------------------------------------------------------------------------


@pytest.mark.parametrize("written", [True, False], ids=["new values", "constant"])
@pytest.mark.parametrize(
    "use",
    [
        lambda u, number, like: tree.scale(number, u),
        lambda u, number, like: tree.map(lambda x: x * number, u),
        lambda u, number, like: tree.mul(u, like),
        lambda u, number, like: tree.map(lambda x, m: x * m - number * m, u, like),
        lambda u, number, like: tree.scale(1 / (1 + tree.norm(like)), u),
        lambda u, number, like: tree.scale(like["b"].max() + number, u),
        lambda u, number, like: tree.map(lambda x, m: x @ m.T @ x if x.ndim == 2 else x, u, like),
    ],
    ids=["number by verb", "number", "leaves by verb", "leaves", "their norm", "one of them", "as it is"],
)
def test_tensors_from_outside_are_read_at_each_step(use, written):
    number, like = torch.tensor(2.0), params()

    seen = set()

    def extra(step):
        if step not in seen:  # eager and fused are given the same
            seen.add(step)
            if written:
                number.fill_(0.5 + step)
                like["w"].mul_(1.5)
        return {}

    same(optfx.chain(optfx.stateless(lambda u, p: use(u, number, like)), optfx.scale(-0.1)), extra=extra)


def test_numpy_is_read_at_each_step():
    table = np.array([1.0, 2.0, 3.0], dtype="float32")

    def extra(step):
        table[0] = step
        return {}

    same(on_leaves(lambda x: x * torch.from_numpy(table)[: x.shape[-1]]), extra=extra)


def count_as_text(count):
    return float(f"{count}")


READS = {
    "float": float,
    "tolist": lambda count: count.tolist(),
    "numpy": lambda count: float(count.numpy()),
    "asarray": lambda count: float(np.asarray(count)),
    "interp": lambda count: np.interp(count, [0, 5], [0.0, 2.0]),
    "a ufunc": lambda count: np.cos(np.asarray(count)),
    "an index": lambda count: np.linspace(0.0, 1.0, 9)[count],
    "dlpack": lambda count: float(np.from_dlpack(count)),
    "text": count_as_text,
    "a list": lambda count: torch.tensor([count, count])[0],
    "new_tensor": lambda count: count.new_tensor([count, count])[0],
    "allclose": lambda count: 2.0 if torch.allclose(count, torch.tensor(0)) else 1.0,
    "equal": lambda count: 2.0 if torch.equal(count, torch.tensor(0)) else 1.0,
    "nonzero": lambda count: len(count.nonzero()),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_schedule_may_look_at_the_count(read):
    same(optfx.sgd(lambda count: 0.1 / (2 + read(count))))
    same(optfx.inject_hyperparams(optfx.sgd(lambda count: 0.1 / (2 + read(count)))))
    same(optfx.chain(optfx.sgd(optfx.join_schedules([lambda count: 0.1 / (2 + read(count)), lambda count: 0.1], [9]))))


def test_code_may_read_the_memory_of_leaves():
    same(on_leaves(lambda x: x * x.sum().tolist()))
    same(on_leaves(lambda x: x.clone().apply_(lambda y: 2 * y)))
    same(on_leaves(lambda x: torch.from_numpy(np.sign(x.numpy()))))
    opt = same(on_leaves(lambda x: x * (x.data_ptr() != 0)))
    assert "it reads the value of a tensor (test_user_code.py:" in opt.explain()


def in_a_cell():
    n = 0

    def schedule(count):
        nonlocal n
        n += 1
        return 0.1 / n

    return optfx.sgd(schedule)


def in_a_dict():
    last = {}

    def update(updates, state, params=None):
        new = {k: x + 0.5 * last.get(k, 0.0) for k, x in updates.items()}
        last.update(updates)
        return new, state

    return optfx.chain(core.from_functions(lambda p: (), update), optfx.sgd(0.1))


class InAttributes:
    def __init__(self):
        self.n = 0

    def __call__(self, count):
        self.n += 1
        return 0.1 / self.n

    def init(self, params):
        return ()

    def update(self, updates, state, params=None):
        return tree.scale(self(0), updates), state


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (in_a_cell, "n"),
        (lambda: optfx.sgd(optfx.join_schedules([in_a_cell().steps[0].learning_rate] * 2, [3])), "n"),
        (in_a_dict, "last"),
        (lambda: optfx.sgd(InAttributes()), "n"),
        (lambda: optfx.chain(InAttributes(), optfx.sgd(0.1)), "n"),
    ],
)
def test_what_changes_outside_of_the_state_is_told_about(make, name):
    with pytest.warns(UserWarning, match=f"changes '{name}', which is no part of its state"):
        optfx.fuse(make()).init(params())


def test_parameters_from_outside_are_those_before_the_step():
    """A closure holds the very module that is trained."""
    module = nn.Linear(2, 1)
    tx = optfx.stateless(lambda u, p: {k: x + dict(module.named_parameters())[k].detach() for k, x in u.items()})
    opt = optfx.fuse(optfx.chain(tx, optfx.sgd(0.1)))
    p, state = opt.init(module)
    before = tree.copy(p)
    g = tree.ones_like(p)
    p, state = opt.step(g, state, p)
    close(p, tree.map(lambda x: x - 0.1 * (1 + x), before))


# ---- extra arguments --------------------------------------------------------------------------------


class Phase(enum.Enum):
    WARM = 1
    MAIN = 2


@tree.record
class phased(core.GradientTransformation):
    takes = ("frozen", "kind", "phase", "size", "mask", "fn", "pair")

    def begin(self, params):
        return ()

    def step(
        self, updates, state, params, *, frozen=False, kind="x", phase=None, size=1, mask=None, fn=None, pair=None
    ):
        if frozen:
            return tree.zeros_like(updates), state
        if kind == "y":
            updates = tree.scale(3.0, updates)
        if phase is Phase.MAIN:
            updates = tree.scale(0.5, updates)
        if mask is not None:
            updates = tree.mul(updates, mask)
        if fn is not None:
            updates = tree.map(fn, updates)
        if pair is not None:
            updates = tree.map(lambda x: pair[0](x) * pair[1], updates)
        return tree.scale(-0.1 * size, updates), state


EXTRAS = {
    "bool": lambda step: {"frozen": step % 2 == 1},
    "str": lambda step: {"kind": "xyx"[step % 3]},
    "enum": lambda step: {"phase": [Phase.WARM, Phase.MAIN][step % 2]},
    "int": lambda step: {"size": step},
    "float": lambda step: {"size": 0.5 * step},
    "tree": lambda step: {"mask": tree.scale(step, params())},
    "none": lambda step: {"mask": None if step % 2 else params()},
    "missing": lambda step: {} if step % 2 else {"kind": "y", "size": 2.0},
    "function": lambda step: {"fn": lambda x: x * step},
    "functions": lambda step: {"pair": (lambda x: x * step, 2.0)},
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_extra_arguments_of_any_kind(extra):
    same(optfx.chain(phased(), optfx.identity()), extra=extra, steps=5)


def test_values_of_numbers_compile_nothing_and_readings_are_kept(monkeypatch):
    opt = optfx.fuse(phased())
    p, state = opt.init(params())
    g = params()
    for kind in "xyxyxy":
        p, state = opt.step(g, state, p, kind=kind, size=len(kind))
    assert len(opt._plans) == 3  # what init guessed, x, y
    plans = list(opt._plans.values())
    for size in (1.0, 2.0, 5):
        p, state = opt.step(g, state, p, kind="x", size=size)
    assert list(opt._plans.values()) == plans


@tree.record
class needs_phase(core.GradientTransformation):
    needs = ("epoch",)

    def begin(self, params):
        return ()

    def step(self, updates, state, params, *, epoch):
        return tree.scale(-0.1 / (1 + epoch), updates), state


def test_an_argument_that_init_is_not_told_about():
    same(needs_phase(), extra=lambda step: {"epoch": step})
    opt = optfx.fuse(needs_phase())
    p, state = opt.init(params())
    with pytest.raises(ValueError, match="needs_phase needs the extra argument epoch"):
        opt.step(params(), state, p)


# ---- states and wrappers ----------------------------------------------------------------------------


class State(NamedTuple):
    kept: Any
    inner: Any = ()


@tree.record
class averaging(core.GradientTransformation):
    """A reduction and something that runs as it is, in one transform."""

    def begin(self, params):
        return State(torch.zeros(()))

    def step(self, updates, state, params):
        n = state.kept + tree.norm(updates)
        updates = tree.map(torch.clone, updates)
        return tree.scale(1 / n, updates), State(n)


def test_a_reduction_in_what_runs_as_it_is():
    """The numbers by hand: the norm is 2 sqrt(3) each time, so n is 3.46, 6.93, 10.39."""
    tx, p = optfx.chain(averaging(), optfx.scale(-1.0)), {"w": torch.ones(3)}
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    for _ in range(3):
        q, state = opt.step({"w": torch.full((3,), 2.0)}, state, q)
    torch.testing.assert_close(q["w"], torch.full((3,), -0.0585), rtol=0, atol=1e-4)
    torch.testing.assert_close(state[0].kept, torch.tensor(10.392), rtol=0, atol=1e-3)
    same(tx)


@tree.record
class drifting(core.GradientTransformation):
    """Its state begins as float32 and goes on as float64."""

    def begin(self, params):
        return State(torch.zeros(()), tree.zeros_like(params))

    def step(self, updates, state, params):
        kept = state.kept + torch.tensor(0.1, dtype=torch.float64)
        return tree.scale(kept, updates), State(kept, tree.map(lambda m, u: m + u.double(), state.inner, updates))


def test_a_state_that_becomes_wider():
    same(drifting())


@tree.record
class previous(core.GradientTransformation):
    """Keeps the params, and gives back what it was given."""

    def begin(self, params):
        return State(tree.zeros_like(params))

    def step(self, updates, state, params):
        return tree.map(lambda u, old: -0.1 * u + 0.01 * old.flip(0), updates, state.kept), State(params)


def test_results_of_another_dtype_by_what_runs_as_it_is():
    """Which their dtypes are is seen in the first step, one transform after the other."""
    narrow = optfx.stateless(lambda u, p: tree.map(lambda x: x.double() if bool(x.sum() > -1e9) else x, u))
    again = optfx.stateless(lambda u, p: tree.map(lambda x: x * 1.5 if bool(x.sum() > -1e9) else x, u))
    same(optfx.chain(narrow, again, drifting(), again))


def test_results_that_share_memory_with_what_was_given():
    same(previous())
    same(optfx.chain(optfx.stateless(lambda u, p: tree.map(lambda x: x.view(x.shape), u)), previous()))


@tree.record
class wrapped(core.Wrapper):
    """A wrapper as the guide has it, with a state of several dtypes: every second step, of the sum."""

    holds = "inner"
    inner: Any
    kind: str = "accumulate"

    def begin(self, params):
        flags = torch.tensor([True, False]), torch.zeros((), dtype=torch.int32)
        return State((tree.zeros_like(params), flags, tree.map(lambda p: p > 0, params)), self.inner.begin(params))

    def step(self, updates, state, params, **extra):
        total, (flags, count), positive = state.kept
        if self.kind == "skip":
            norm = tree.norm(updates)
            new, inner = self.inner.run(updates, state.inner, params, extra)
            ok = norm < 2.5
            new = tree.map(lambda x: torch.where(ok, x, torch.zeros_like(x)), new)
            inner = tree.map(lambda x, y: torch.where(ok, x, y), inner, state.inner)
        elif self.kind == "lookahead":
            new, inner = self.inner.run(updates, state.inner, params, extra)
            total = tree.map(lambda slow, p, u: slow + 0.5 * (p + u - slow), total, params, new)
            new = tree.map(lambda slow, p, u: torch.where(count % 2 == 1, slow - p, u), total, params, new)
        elif self.kind == "rows":
            new, inner = self.inner.run(updates, state.inner, params, extra)
            new = tree.map(lambda x, keep: torch.where(keep, x, 0.0), new, positive)
        elif self.kind == "branch":
            if int(count) % 2:
                return tree.zeros_like(updates), state._replace(kept=(total, (~flags, count + 1), positive))
            new, inner = self.inner.run(updates, state.inner, params, extra)
        else:
            total = tree.map(lambda t, u: t * 0.9 + u, total, updates)
            ready = (count + 1) % 2 == 0
            new, inner = self.inner.run(total, state.inner, params, extra)
            new = tree.map(lambda x: x * ready, new)
            inner = tree.map(lambda x, y: torch.where(ready, x, y), inner, state.inner)
        return new, State((total, (~flags, count + 1), positive), inner)


INNER = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(0.1))


@pytest.mark.parametrize("kind", ["accumulate", "skip", "lookahead", "rows", "branch"])
def test_wrappers(kind):
    opt = same(wrapped(INNER, kind), steps=5)
    same(wrapped(wrapped(INNER, kind)), steps=5)
    same(optfx.chain(optfx.scale(2.0), wrapped(optfx.masked(INNER, {"b": False, "w": True}), kind)), steps=5)
    assert ("adam" in opt.explain().replace("adamw", "")) == (kind != "branch")  # the inner chain is fused still


def test_what_is_found_out_late_belongs_to_no_earlier_number():
    """A leaf function turns out to read a tensor from outside, where reductions have been counted before."""
    outside = torch.tensor(0.7)
    first = optfx.stateless(lambda u, p: tree.elementwise(lambda x: x * outside, u))
    biggest = optfx.stateless(lambda u, p: tree.map(lambda x: x * x.abs().max(), u))
    same(optfx.chain(first, biggest, optfx.clip_by_global_norm(1.0), optfx.sgd(0.1)))


def test_a_complex_number_made_of_a_leaf():
    p = {"w": torch.tensor([1.0 + 2.0j, -1.0j]), "b": torch.ones(2)}
    f = lambda x: x * torch.tensor(0.25).double() + x.sum() * 0.1
    opt = same(on_leaves(f), p)
    assert "it makes a complex number of a leaf" in opt.explain()


def test_a_number_among_the_params_is_read_before_it_is_written():
    """Where scalar work gives a parameter without dimensions its new value, and a kernel keeps the old one."""
    late = optfx.stateless(lambda u, p: tree.map(lambda x: x.reshape(-1).cumsum(0).view(x.shape), u))
    same(optfx.chain(late, previous_of_all()), {"w": torch.tensor(2.0)})


@tree.record
class previous_of_all(core.GradientTransformation):
    """Moves against the last params, which it keeps."""

    needs_params = True

    def begin(self, params):
        return State(tree.zeros_like(params))

    def step(self, updates, state, params):
        return tree.map(lambda u, p, old: u + 0.1 * p - old, updates, params, state.kept), State(params)
