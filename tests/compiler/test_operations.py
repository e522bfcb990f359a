"""The C++ of each operation gives what torch gives, for special numbers too."""

import pytest
import torch

import optfx
from optfx import tree
from optfx.compiler.kernels import inductor
from tests.compiler.harness import outputs

nan, inf = float("nan"), float("inf")
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.5, 1e-30, -1e30, 1e-42, inf, -inf, nan, 2.0, -3.0, 7.25]

EXACT = {
    "add": lambda x, y, w: x + y,
    "add alpha": lambda x, y, w: torch.add(x, y, alpha=2),
    "sub": lambda x, y, w: x - y,
    "rsub": lambda x, y, w: 1.5 - x,
    "mul": lambda x, y, w: x * y,
    "div": lambda x, y, w: x / y,
    "neg": lambda x, y, w: -x,
    "reciprocal": lambda x, y, w: x.reciprocal(),
    "abs": lambda x, y, w: x.abs(),
    "square": lambda x, y, w: x.square(),
    "power of two": lambda x, y, w: x**2,
    "sign": lambda x, y, w: x.sign(),
    "floor": lambda x, y, w: x.floor(),
    "ceil": lambda x, y, w: x.ceil(),
    "trunc": lambda x, y, w: x.trunc(),
    "round": lambda x, y, w: x.round(),
    "maximum": lambda x, y, w: torch.maximum(x, y),
    "minimum": lambda x, y, w: torch.minimum(x, y),
    "clamp": lambda x, y, w: x.clamp(-1.0, 2.0),
    "clamp by scalars": lambda x, y, w: x.clamp(-w, w),
    "clamp min": lambda x, y, w: x.clamp_min(0.5),
    "clamp max": lambda x, y, w: x.clamp(max=0.5),
    "where": lambda x, y, w: torch.where(x > y, x, 2 * y),
    "where scalar": lambda x, y, w: torch.where(x <= 0.5, 0.0, x),
    "where condition": lambda x, y, w: torch.where(w > 0.5, x, y),
    "comparisons": lambda x, y, w: (x < y) + 2.0 * (x <= y) + 4.0 * (x == y) + 8.0 * (x != y) + 16.0 * (x >= y),
    "logic": lambda x, y, w: ((x > 0) & ~(y > 0) | (x < y) ^ (y > 1)).to(x.dtype),
    "logical": lambda x, y, w: torch.logical_and(x, y).to(x.dtype) + torch.logical_or(x, y) + torch.logical_not(x),
    "isnan": lambda x, y, w: x.isnan().to(x.dtype),
    "isinf": lambda x, y, w: x.isinf().to(x.dtype),
    "isfinite": lambda x, y, w: x.isfinite().to(x.dtype),
    "lerp": lambda x, y, w: torch.lerp(x, y, w),
    "lerp far": lambda x, y, w: torch.lerp(x, y, 1 - w),
    "lerp number": lambda x, y, w: torch.lerp(x, y, 0.75),
    "addcmul": lambda x, y, w: torch.addcmul(x, x, y),
    "addcdiv": lambda x, y, w: torch.addcdiv(x, x, y, value=0.5),
    "sub alpha": lambda x, y, w: torch.sub(x, y, alpha=2),
    "rsub alpha": lambda x, y, w: torch.rsub(x, y, alpha=2),
    "cube": lambda x, y, w: x**3,
    "zeros_like": lambda x, y, w: torch.zeros_like(x) + w,
    "full_like": lambda x, y, w: torch.full_like(x, 3.0) * y,
    "integer": lambda x, y, w: torch.where(x.isfinite(), x, 0.0).clamp(-100.0, 100.0).to(torch.int64).to(x.dtype),
}
CLOSE = {
    "exp2": lambda x, y, w: x.exp2(),
    "sqrt": lambda x, y, w: x.sqrt(),  # torch's is not the nearest in float64
    "square root by pow": lambda x, y, w: x.abs() ** 0.5,
    "rsqrt": lambda x, y, w: x.rsqrt(),
    "exp": lambda x, y, w: x.exp(),
    "expm1": lambda x, y, w: x.expm1(),
    "log": lambda x, y, w: x.log(),
    "log1p": lambda x, y, w: x.log1p(),
    "log2": lambda x, y, w: x.log2(),
    "sin": lambda x, y, w: torch.where(x.abs() < 10, x, 1.0).sin(),
    "cos": lambda x, y, w: torch.where(x.abs() < 10, x, 1.0).cos(),
    "tanh": lambda x, y, w: x.tanh(),
    "atan2": lambda x, y, w: torch.atan2(x, y),
    "pow": lambda x, y, w: x.abs() ** y,
    "pow number": lambda x, y, w: x**5,
    "remainder": lambda x, y, w: torch.where(x.abs() < 100, x, 1.0) % torch.where(y.abs() > 0.1, y, 1.0),
}


def all_of_them(table, x, y, w):
    return tuple(f(x, y, w) for f in table.values())


def exact(x, y, *rest, w):
    return all_of_them(EXACT, x, y, w)


def close(x, y, *rest, w):
    return all_of_them(CLOSE, x, y, w)


@pytest.fixture(autouse=True)
def no_inductor(monkeypatch):
    def refused(*_):
        raise AssertionError("Inductor was asked")

    monkeypatch.setattr(inductor, "compiled", refused)


def pairs(dtype):
    """Each special number with each."""
    values = torch.tensor(SPECIAL, dtype=torch.float64)
    return (t.reshape(-1).to(dtype) for t in torch.meshgrid(values, values, indexing="ij"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("f", "table"), [(exact, EXACT), (close, CLOSE)], ids=["exact", "close"])
def test_operations(f, table, dtype):
    x, y = pairs(dtype)
    fused, eager = outputs(f, list(table), {"p": x}, {"p": y}, w=torch.tensor(0.25, dtype=torch.float64))
    for name in table:
        got, want = fused[name]["p"], eager[name]["p"]
        if f is exact:
            same = (got == want) | (got.isnan() & want.isnan())
            assert same.all(), (name, x[~same], y[~same], got[~same], want[~same])
        else:
            torch.testing.assert_close(got, want, rtol=4 * torch.finfo(dtype).eps, atol=0, equal_nan=True, msg=name)


def test_reductions_agree_and_do_not_depend_on_threads():
    g = {"a": torch.randn(100_000), "b": torch.randn(3), "c": torch.randn(()), "e": torch.zeros(0)}
    half = tree.cast(g, torch.bfloat16)

    def measure(updates, params):
        numbers = [
            tree.norm(updates),
            tree.norm(updates, 1),
            tree.norm(updates, float("inf")),
            tree.sum(updates),
            tree.vdot(updates, params),
            tree.norm(updates, squared=True),
            torch.where(tree.all_finite(updates), 1.0, 0.0),
        ]
        if numbers[0].shape == () and "e" not in updates:
            numbers += [tree.max(updates), tree.min(updates)]
        total = sum((k + 1) * x.double() for k, x in enumerate(numbers))
        return tree.scale(total, tree.where(torch.tensor(True), params, params))

    for grads in (g, {k: v for k, v in g.items() if k != "e"}, half):
        p = tree.ones_like(grads)
        tx = optfx.stateless(measure)
        want = optfx.apply_updates(p, tx.update(grads, tx.init(p), p)[0])
        results = []
        threads = torch.get_num_threads()
        for n in (1, 2):
            torch.set_num_threads(n)
            try:
                opt = optfx.fuse(tx)
                q, state = opt.init(p)
                results.append(tree.map(torch.clone, opt.step(grads, state, q)[0]))
            finally:
                torch.set_num_threads(threads)
        for x, y, z in zip(*(tree.leaves(t) for t in (*results, want)), strict=True):
            assert torch.equal(x, y)
            torch.testing.assert_close(x, z, rtol=1e-5 if z.dtype == torch.float32 else 2e-2, atol=1e-5)


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("f", [tree.max, tree.min, tree.norm, tree.sum, tree.all_finite], ids=lambda f: f.__name__)
def test_reductions_of_numbers_that_are_none(bad, f):
    g = {"a": torch.tensor([1.0, bad, -2.0]), "b": torch.tensor([0.5])}

    def keep(updates, state, params=None):
        return updates, {"x": f(updates).to(state["x"])}

    opt = optfx.fuse(optfx.core.from_functions(lambda params: {"x": torch.zeros((), dtype=torch.float64)}, keep))
    p, state = opt.init(tree.zeros_like(g))
    _, state = opt.step(g, state, p)
    torch.testing.assert_close(state["x"], f(g).double(), equal_nan=True)
