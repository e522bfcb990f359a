"""Straight-line functions: near the true value everywhere, and the same bits wherever an element stands."""

import ctypes
import math

import pytest
import torch

from optfx.compiler.kernels.cpp import Compilers
from optfx.compiler.kernels.cpp.build import pointers
from optfx.compiler.kernels.cpp.expressions import HEAD

FUNCTIONS = ["exp", "expm1", "log", "log1p", "tanh", "erf", "atan2", "pow"]
TYPES = {torch.float32: "float", torch.float64: "double"}
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, -2.0, 1e-42, -1e-42, 1e-310, 88.7, 88.8, -87.5, -104.0]
SPECIAL += [709.7, 709.8, -708.5, -745.2, -746.0]


def arguments(name, x):
    """An element, and for a function of two another one, on both sides of zero."""
    return (x, 1 - x / 4) if name in ("atan2", "pow") else (x,)


def exact(name, x):
    return getattr(torch, name)(*(a.double() for a in arguments(name, x)))


def loop(name, T):
    given = f"x[i], {T}(1) - x[i] / {T}(4)" if name in ("atan2", "pow") else "x[i]"
    return f"""{{ const {T}* x = (const {T}*)P[0]; {T}* y = ({T}*)P[1];
    #pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = op::{name}({given}); break; }}"""


@pytest.fixture(scope="module")
def call():
    cases = [loop(name, T) for T in TYPES.values() for name in FUNCTIONS]
    text = "\n".join(f"case {k}: {case}" for k, case in enumerate(cases))
    source = (
        f'{HEAD}\nextern "C" void run(int64_t which, void* const* P, int64_t n) {{ switch (which) {{ {text} }} }}\n'
    )
    compilers = Compilers()
    library = compilers.library(source, "-O1", ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
    compilers.finish()

    def call(name, x):
        y = torch.empty_like(x)
        library.run(FUNCTIONS.index(name) + len(FUNCTIONS) * list(TYPES).index(x.dtype), pointers([x, y]), len(x))
        return y

    return call


def numbers(dtype):
    g = torch.Generator().manual_seed(0)
    whole, bits = (torch.int32, 32) if dtype == torch.float32 else (torch.int64, 64)
    n = 100_000
    any_bits = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, (n,), generator=g).to(whole).view(dtype)
    near = [torch.randn(n, generator=g, dtype=dtype) * scale for scale in (1e-3, 1.0, 30.0)]
    return torch.cat([any_bits, *near, torch.tensor(SPECIAL, dtype=dtype)])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_near_the_true_value(call, name, dtype):
    x = numbers(dtype)
    got, want = call(name, x), exact(name, x).to(dtype)
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got.isinf(), want.isinf())
    real = ~want.isnan()
    assert torch.equal(got.signbit()[real], want.signbit()[real])
    finite = want.isfinite()
    apart = (got.double() - exact(name, x))[finite].abs()
    units = (want.nextafter(torch.tensor(math.inf, dtype=dtype)).double() - want.double())[finite].abs()
    units = units.clamp(max=torch.finfo(dtype).max)
    limit = 3 if dtype == torch.float32 else 4  # what it is compared with has an error of its own
    assert (apart <= limit * units).all(), x[finite][(apart / units).argmax()]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_wherever_an_element_stands(call, name, dtype):
    x = numbers(dtype)[-200:]
    want = call(name, x)
    for start, n in ((1, 1), (1, 30), (3, 7), (7, 100), (64, 17)):
        got = call(name, x[start : start + n])
        assert torch.equal(got.nan_to_num(7.0), want[start : start + n].nan_to_num(7.0))


CONVERSIONS = """
extern "C" void run(int64_t to, void* const* P, int64_t n) {{
  const uint16_t* h = (const uint16_t*)P[0]; uint16_t* g = (uint16_t*)P[1];
  const float* x = (const float*)P[0]; float* y = (float*)P[1];
  for (int64_t i = 0; i < n; ++i) if (to) g[i] = to_{0}(x[i]); else y[i] = load_{0}(h[i]);
}}"""


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_converted_as_torch_does(name, dtype):
    compilers = Compilers()
    library = compilers.library(HEAD + CONVERSIONS.format(name), "-O3", ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
    compilers.finish()
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    wide = torch.empty(len(halves))
    library.run(0, pointers([halves, wide]), len(halves))
    assert same(wide, halves.float())
    bits = [
        halves.float().view(torch.int32) + k for k in (-(2**15), -(2**12), -1, 0, 1, 2**12, 2**15)
    ]  # ties, and near
    wide = torch.cat([torch.cat(bits).view(torch.float32), numbers(torch.float32)])
    narrow = torch.empty(len(wide), dtype=dtype)
    library.run(1, pointers([wide, narrow]), len(wide))
    assert same(narrow, wide.to(dtype))


def same(x, y):
    """Bit for bit, but for the bits of a NaN."""
    whole = torch.int32 if x.dtype == torch.float32 else torch.int16
    return bool(((x.view(whole) == y.view(whole)) | (x.isnan() & y.isnan())).all())
