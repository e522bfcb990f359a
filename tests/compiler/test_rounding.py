"""Kernels round as eager code does, bit for bit. A sign after a mean would show it: it makes the last bit the first."""

import math

import pytest
import torch

import optfx
from optfx import tree
from tests.compiler.harness import distance, eager, fused, outputs, params

LENGTHS = (1_000_003, 37, 7, 1)  # no multiples of what a vector register holds
ROUNDED_ONCE = {
    "mean": lambda x, y, w: torch.lerp(x, y, w),
    "mean, weight above a half": lambda x, y, w: torch.lerp(x, y, 1 - w),
    "mean, weight of a number": lambda x, y, w: torch.lerp(x, y, 0.3),
    "mean, weight of each element": lambda x, y, w: torch.lerp(x, y, y - y.floor()),
    "beyond the mean": lambda x, y, w: torch.lerp(x, y, 3 * y),
    "addcmul": lambda x, y, w: torch.addcmul(x, y, x),
    "addcmul with a value": lambda x, y, w: torch.addcmul(x, y, x, value=0.3),
    "addcmul of a scalar": lambda x, y, w: torch.addcmul(x, y, w),
    "addcmul of a scalar with a value": lambda x, y, w: torch.addcmul(x, w, y, value=0.7),
    "addcdiv": lambda x, y, w: torch.addcdiv(x, x, y),
    "addcdiv with a value": lambda x, y, w: torch.addcdiv(x, x, y, value=0.3),
}
ROUNDED_EACH = {
    "a product and a sum": lambda x, y, w: x * y + x,
    "a scaled difference": lambda x, y, w: x - w * y,
    "quotient": lambda x, y, w: x / y,
    "reciprocal": lambda x, y, w: x.reciprocal(),
    "square": lambda x, y, w: x**2,
    "inverse": lambda x, y, w: x**-1,
}
# eager code rounds these otherwise where its arguments are half precision, and then not all elements alike
LIFTED = {
    "cube": lambda x, y, w: x**3,
    "add": lambda x, y, w: torch.add(x, y, alpha=0.3),
    "sub": lambda x, y, w: torch.sub(x, y, alpha=0.3),
    "rsub": lambda x, y, w: torch.rsub(x, y, alpha=0.3),
}
NARROW = ROUNDED_ONCE | ROUNDED_EACH
LIFTED |= NARROW


def lifted(x, y, *rest, w):
    return tuple(f(x, y, w) for f in LIFTED.values())


def bfloat16(x, y, *rest, w):
    return narrowed(torch.bfloat16, x, y, w)


def float16(x, y, *rest, w):
    return narrowed(torch.float16, x, y, w)


def narrowed(dtype, x, y, w):
    return tuple(f(x.to(dtype), y.to(dtype), w.to(dtype)).to(x.dtype) for f in NARROW.values())


@pytest.mark.parametrize(
    ("f", "table", "dtype"),
    [
        (lifted, LIFTED, torch.float32),
        (lifted, LIFTED, torch.float64),
        (lifted, LIFTED, torch.bfloat16),
        (lifted, LIFTED, torch.float16),
        (bfloat16, NARROW, torch.float32),
        (float16, NARROW, torch.float32),
    ],
)
def test_bits(f, table, dtype):
    x, y = ([torch.randn(n, dtype=torch.float64).to(dtype) for n in LENGTHS] for _ in range(2))
    got, expected = outputs(f, list(table), x, y, w=torch.tensor(0.1, dtype=torch.float64))
    for name in table:
        for a, b in zip(got[name], expected[name], strict=True):
            same = (a == b) | (a.isnan() & b.isnan())
            assert same.all(), (name, len(a), int((~same).sum()))


def lion(g, m, near, far):
    return -torch.lerp(m, g, near).sign(), torch.lerp(m, g, far)


def signs():
    def update(updates, mu, params=None):
        return tree.elementwise(lion, updates, mu, outs=2, near=1 - 0.9, far=1 - 0.99)

    return optfx.chain(optfx.core.from_functions(tree.zeros_like, update), optfx.scale(0.01))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_signs_of_means(dtype):
    p = params(dtype)
    assert distance(fused(signs(), p, steps=6)[0], eager(signs(), p, steps=6)) == 0


def every(dtype):
    """All numbers of a dtype of sixteen bits, with all that are no numbers."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_number_of_sixteen_bits_is_rounded_as_in_eager_code(dtype):
    x = every(dtype)
    names = ["product", "sum", "quotient", "root", "larger", "smaller", "not below zero", "kept"]

    def all_of_them(x, y, *rest, w):
        plain = x * y, x + y, x / y, x.abs().sqrt(), x.clamp_min(0.1), x.clamp_max(-0.1), x.clamp_min(0.0)
        return *plain, torch.where(y > 0, x, x)

    for seed in range(4):  # each beside others
        other = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
        got, expected = outputs(all_of_them, names, [x], [other], w=torch.tensor(math.nan, dtype=torch.float64))
        for name in names:
            (a,), (b,) = got[name], expected[name]
            assert torch.equal(a.isnan(), b.isnan()), name
            assert torch.equal(a.nan_to_num().view(torch.int16), b.nan_to_num().view(torch.int16)), name


def test_a_nan_of_a_number_stays_one():
    """Also one whose bits are all set, to which nothing may be added."""
    w = torch.tensor(-1, dtype=torch.int64).view(torch.float64)
    x = [every(torch.bfloat16)]
    got, _ = outputs(lambda x, y, *rest, w: (x * w, w * y), ["product", "other"], x, x, w=w)
    assert got["product"][0].isnan().all()
