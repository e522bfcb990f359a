"""Products that are known to be symmetric: half computed, half mirrored, and whole where derivatives are asked for."""

import pytest
import torch
from torch.autograd import forward_ad

from optfx.transforms.matrix.symmetric import LARGE, can_write, gram

DTYPES = torch.float32, torch.float64


def matrix(rows, cols, dtype=torch.float64):
    return torch.randn(rows, cols, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [LARGE - 1, LARGE, 1025, 1300])
def test_the_product_and_its_mirror_image(n, dtype):
    for x in (matrix(n, 70, dtype), matrix(70, n, dtype).adjoint(), matrix(2 * n, 70, dtype)[::2]):
        found = gram(x)
        torch.testing.assert_close(found, x @ x.mT)
        assert torch.equal(found, found.mT)
        assert found.is_contiguous()


def test_a_matrix_that_is_not_finite():
    x = matrix(LARGE, 3)
    x[5, 1], x[7, 2] = torch.inf, torch.nan
    torch.testing.assert_close(gram(x), x @ x.mT, equal_nan=True)


def test_derivatives_and_transforms():
    x, t = matrix(LARGE, 4), matrix(4, LARGE).mT
    assert can_write(x)
    torch.testing.assert_close(torch.func.vmap(gram)(torch.stack([x, t])), torch.stack([x @ x.mT, t @ t.mT]))
    want = x @ t.mT + t @ x.mT
    torch.testing.assert_close(torch.func.jvp(gram, (x,), (t,))[1], want)
    with forward_ad.dual_level():
        torch.testing.assert_close(forward_ad.unpack_dual(gram(forward_ad.make_dual(x, t))).tangent, want)
    torch.testing.assert_close(torch.func.grad(lambda x: (gram(x) * want).sum())(x), 2 * want @ x)
    leaf = x.clone().requires_grad_()
    (gram(leaf) * want).sum().backward()
    torch.testing.assert_close(leaf.grad, 2 * want @ x)
    with torch.no_grad():
        assert can_write(leaf)
        torch.testing.assert_close(gram(leaf), x @ x.mT)


def test_compiled_as_one_graph():
    x = matrix(LARGE, 4)
    torch.testing.assert_close(torch.compile(gram, backend="aot_eager", fullgraph=True)(x), x @ x.mT)
