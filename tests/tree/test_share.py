"""`Share` and `mean`: 1 - b is made in float64, and everyone who runs a leaf function sees the pair."""

from typing import NamedTuple

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import optfx
from optfx import core, tree
from optfx.tree import Share, share
from optfx.tree.verbs import Scalars

F64 = torch.float64
KINDS = {
    "float": lambda b: b,
    "float64": lambda b: torch.tensor(b, dtype=F64),
    "float32": lambda b: torch.tensor(b),
}


def average(m, x, b):
    return tree.mean(m, x, b)


def written_out(m, x, b, n):
    return b * m + (1 - b) * x + x * b * (1 - b**n)


def tree_of(dtype=torch.float32):
    return {"w": torch.randn(3, 2, dtype=dtype), "v": [torch.randn((), dtype=dtype)]}


# ---- arithmetic ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_arithmetic_is_that_of_the_two_numbers(kind):
    b, x = KINDS[kind](0.9), torch.randn(3, dtype=F64)
    exact = b.double() if kind == "float32" else b
    for mine, theirs in (
        (Share(b) * x, exact * x),
        (x * Share(b), exact * x),
        (1 - Share(b), 1 - exact),
        (1.0 - Share(b), 1 - exact),
        (Share(b) ** 2, exact**2),
        (Share(b) ** torch.tensor(3), exact ** torch.tensor(3.0, dtype=F64)),
        (2.0 * Share(b), 2.0 * exact),
    ):
        assert torch.equal(torch.as_tensor(mine, dtype=F64), torch.as_tensor(theirs, dtype=F64))
    assert Share(1).kept == 1.0
    assert type(Share(1).kept) is float
    assert repr(Share(0.9)) == "Share(0.9)"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda b, x: 2 - b,
        lambda b, x: b - 1,
        lambda b, x: b + x,
        lambda b, x: x + b,
        lambda b, x: x - b,
        lambda b, x: b - x,
        lambda b, x: x / b,
        lambda b, x: x**b,
        lambda b, x: -b,
        lambda b, x: torch.lerp(x, x, b),
        lambda b, x: True - b,
    ],
)
def test_nothing_else_is_defined(wrong):
    with pytest.raises(TypeError):
        wrong(Share(0.9), torch.ones(2))


# ---- mean ----------------------------------------------------------------------------------------


def test_a_narrow_tensor_is_refused_and_everything_exact_is_not():
    m, x = torch.ones(2), torch.zeros(2)
    for b in (0.999, Share(0.999), torch.tensor(0.999, dtype=F64), Share(torch.tensor(0.999, dtype=F64))):
        assert torch.equal(tree.mean(m, x, b), torch.lerp(m, x, 1 - 0.999))
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(TypeError, match=rf"inexact for b in {dtype}.*Decay.*Share\(b\)"):
            tree.mean(m, x, torch.tensor(0.999, dtype=dtype))
    with pytest.raises(TypeError, match="inexact"):
        tree.elementwise(average, {"w": m}, {"w": x}, b=torch.tensor(0.999, dtype=F64))
    z = torch.randn(2, dtype=torch.complex64)
    assert torch.equal(tree.mean(z, 2 * z, Share(torch.tensor(0.5))), torch.lerp(z, 2 * z, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_one_minus_b_is_rounded_once(kind):
    """The weight of the new value is that of float64, rounded: off by 1e-5 where it is made of a rounded b."""
    b = KINDS[kind](0.999)
    new = tree.elementwise(average, {"w": torch.zeros(1)}, {"w": torch.ones(1)}, b=Share(b))["w"]
    exact = 1 - torch.as_tensor(b, dtype=F64)
    assert new == exact.float()
    careless = 1 - torch.tensor(0.999)
    assert kind == "float32" or abs(careless - exact) > 1e-5 * exact


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("verb", [tree.elementwise, tree.leafwise])
def test_verbs_bring_both_parts_to_the_leaf(verb, dtype):
    m, x = tree_of(dtype), tree_of(dtype)
    seen = []

    def spy(m, x, b, flag):
        seen.append((b, flag, m.dtype))
        return tree.mean(m, x, b)

    out = verb(spy, m, x, b=Share(torch.tensor(0.9, dtype=F64)), flag="structure")
    for b, flag, inside in seen:
        assert isinstance(b, Share)
        assert b.kept.dtype == b.new.dtype == inside.to_real()
        assert flag == "structure"
    assert all(t.dtype == dtype for t in tree.leaves(out))


def spread(x, b):
    return (1 - b) * x.sum()


def test_a_reduction_takes_a_share():
    total = tree.reduce(spread, share_sum, {"a": torch.ones(3), "b": torch.ones(2)}, empty=0.0, b=Share(0.75))
    assert total == 1.25


def share_sum(parts, b):
    assert isinstance(b, Share)
    return parts.sum()


def test_a_batch_of_shares_outside_vmap_is_named():
    with pytest.raises(ValueError, match=r"average: the scalar 'b' has the shape \(2,\)"):
        tree.elementwise(average, {"w": torch.ones(2)}, {"w": torch.ones(2)}, b=Share(torch.ones(2)))


# ---- a recorder sees plain scalars ------------------------------------------------------------------


def test_scalars_are_plain_and_make_shares_again():
    b, eps = torch.tensor(0.9, dtype=F64), torch.tensor(1e-8)
    scalars = Scalars(average, {"b": Share(b), "eps": eps, "flag": None})
    assert list(scalars.values) == ["b", "1 - b", "eps", "flag"]
    assert not any(isinstance(v, Share) for v in scalars.values.values())
    others = {**scalars.values, "b": torch.tensor(0.5, dtype=F64), "1 - b": torch.tensor(0.125, dtype=F64)}
    again = Scalars(average, others).kind_of([torch.ones(1)]).scalars
    assert list(again) == ["b", "eps", "flag"]
    assert (again["b"].kept, again["b"].new) == (0.5, 0.125)
    assert again["b"].kept.dtype == torch.float32
    assert share.unflat(share.flat({"x": 1})) == {"x": 1}


# ---- function transforms and compilers ----------------------------------------------------------------


def step(m, x, n, b):
    return tree.elementwise(written_out, m, x, b=Share(b), n=n), tree.elementwise(average, m, x, b=Share(b))


def close(a, b):
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vmap_over_b_equals_a_loop(dtype):
    m, x, n, bs = tree_of(dtype), tree_of(dtype), torch.tensor(3), torch.tensor([0.9, 0.5, 0.999])
    batch = torch.func.vmap(step, (None, None, None, 0))(m, x, n, bs)
    for i, b in enumerate(bs):
        close(tree.map(lambda t, i=i: t[i], batch), step(m, x, n, b))
        assert all(t.dtype == dtype for t in tree.leaves(batch))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled(kind, backend, fresh_dynamo):
    m, x, n, b = tree_of(), tree_of(torch.float32), torch.tensor(3), KINDS[kind](0.9)
    close(torch.compile(step, fullgraph=True, backend=backend)(m, x, n, b), step(m, x, n, b))


def test_compiled_under_vmap(fresh_dynamo):
    m, x, n, bs = tree_of(), tree_of(), torch.tensor(3), torch.tensor([0.9, 0.5])
    batched = torch.func.vmap(step, (None, None, None, 0))
    close(torch.compile(batched, fullgraph=True, backend="aot_eager")(m, x, n, bs), batched(m, x, n, bs))


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_traced_by_make_fx(kind):
    m, x, n, b = tree_of(), tree_of(), torch.tensor(3), KINDS[kind](0.9)
    graph = make_fx(lambda b: step(m, x, n, b))(b)
    close(graph(b / 2), step(m, x, n, b / 2))


def test_derivatives_flow_to_b():
    m, x = {"w": torch.zeros(2, dtype=F64)}, {"w": torch.ones(2, dtype=F64)}
    loss = lambda b: tree.sum(tree.elementwise(average, m, x, b=Share(b)))
    assert torch.func.grad(loss)(torch.tensor(0.9, dtype=F64)) == -2


# ---- fuse ------------------------------------------------------------------------------------------


class MeansState(NamedTuple):
    count: torch.Tensor  # () int64
    mu: tree.Tree  # like params, a running mean
    nu: tree.Tree  # like params, a running mean of squares


def means(g, m, v, b1, b2, c1, c2):
    m = tree.mean(m, g, b1)
    v = b2 * v + (1 - b2) * g * g
    return (m / c1) / (tree.safe_sqrt(v / c2) + 1e-8), m, v


@tree.record
class scale_by_means(core.GradientTransformation):
    b1: core.Decay = 0.9
    b2: core.Decay = 0.999

    def begin(self, params):
        return MeansState(core.counter(params), tree.zeros_like(params), tree.zeros_like(params))

    def step(self, updates, state, params):
        now, count = self.at(state.count), state.count + 1
        scalars = now | {"c1": 1 - now["b1"] ** count, "c2": 1 - now["b2"] ** count}
        updates, mu, nu = tree.elementwise(means, updates, state.mu, state.nu, outs=3, **scalars)
        return updates, MeansState(count, mu, nu)


@pytest.mark.parametrize(
    "tx",
    [
        scale_by_means(),
        scale_by_means(torch.tensor(0.8), torch.tensor(0.99, dtype=F64)),
        scale_by_means(optfx.linear_schedule(0.5, 0.9, 3)),
        scale_by_means(b1=0.0),
    ],
    ids=["floats", "tensors", "schedule", "zero"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_fused_kernel_equals_eager(tx, dtype):
    tx = optfx.chain(tx, optfx.scale_by_learning_rate(0.1))
    params = {"w": torch.randn(30, 20, dtype=dtype), "b": [torch.randn(7, dtype=dtype)]}
    opt = optfx.fuse(tx)
    p, state = opt.init(params)
    q, other = params, tx.init(params)
    for _ in range(4):
        grads = tree.map(torch.sin, q)
        p, state = opt.step(grads, state, p)
        updates, other = tx.update(grads, other, q)
        q = optfx.apply_updates(q, updates)
    assert opt.explain().splitlines() == ["2 leaves, 1 stage", "stage 0", "    means > mul > add [C++]: b.0, w"]
    for a, b in zip(tree.leaves((p, state)), tree.leaves((q, other)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12 if dtype == F64 else 2e-6, atol=1e-12 if dtype == F64 else 2e-6)


def upside_down(x, y, b):
    return average(x.flip(0), y.flip(0), b).flip(0)


@pytest.mark.parametrize("f", [average, upside_down])
def test_a_fused_leafwise_function_takes_a_share(f):
    def update(updates, state, params=None):
        return tree.leafwise(f, updates, tree.scale(2.0, updates), b=Share(state["b"])), state

    tx = core.from_functions(lambda params: {"b": torch.tensor(0.25, dtype=F64)}, update)
    params = {"w": torch.ones(2, 2)}
    opt = optfx.fuse(tx)
    p, state = opt.init(params)
    p, _ = opt.step(params, state, p)
    assert ("as it is" in opt.explain()) == (f is upside_down)
    assert torch.equal(p["w"], torch.full((2, 2), 2.75))
