"""What transforms for matrices are for."""

import numpy as np
import pytest
import torch

import optfx
from optfx import tree
from optfx.transforms.matrix import newton_schulz
from optfx.transforms.matrix.orthogonalize import orthogonal

F64 = torch.float64
SHAPES = [(3, 5), (5, 3), (4, 4), (2, 3, 5)]


def randn(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def once(tx, g):
    return tx.update({"w": g}, tx.init({"w": torch.zeros_like(g)}))[0]["w"]


def steps(tx, params, n=3):
    state, out = tx.init(params), []
    for i in range(n):
        grads = {name: randn(*p.shape, seed=i + 1) for name, p in params.items()}
        updates, state = tx.update(grads, state, params)
        out.append(updates)
    return out


# ---- orthogonalize ----------------------------------------------------------------------------------

RANGES = {  # of the singular values after a table, for those between 0.05 and 1 of the norm before
    "SIMPLE": (0.65, 1.25),
    "QUINTIC": (0.75, 1.2),
    "POLAR_EXPRESS": (1 - 1e-6, 1 + 1e-6),
    "CANS": (0.88, 1.12),
    "DEEPSEEK_V4": (1 - 1e-2, 1 + 1e-2),
    "CUBIC": (0.6, 1.3),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_table_brings_singular_values_near_one(name):
    table, (low, high) = getattr(newton_schulz, name), RANGES[name]
    s = torch.linspace(0.05, 1, 300, dtype=F64)
    for a, b, c in table:
        s = a * s + b * s**3 + c * s**5
    assert low < s.min()
    assert s.max() < high
    x = randn(6, 4)
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    aligned = left.mT @ once(optfx.orthogonalize(table), x) @ right.mT
    torch.testing.assert_close(aligned, torch.diag(aligned.diagonal()), atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["svd", "qr"])
def test_exact_methods_are_those_of_numpy(method, shape):
    x = randn(*shape)
    tall = shape[-2] > shape[-1]
    for u, g in zip(
        once(optfx.orthogonalize(method), x).reshape(-1, *shape[-2:]), x.reshape(-1, *shape[-2:]), strict=True
    ):
        if method == "svd":
            left, _, right = np.linalg.svd(g.numpy(), full_matrices=False)
            expected = left @ right
        else:
            q, r = np.linalg.qr(g.numpy() if tall else g.numpy().T)
            expected = q * np.sign(np.diag(r))
            expected = expected if tall else expected.T
        np.testing.assert_allclose(u, expected, atol=1e-12)


@pytest.mark.parametrize("method", ["svd", "qr"])
def test_exact_methods_leave_zero_at_zero(method):
    x = torch.diag(torch.tensor([2.0, 0.0, -3.0], dtype=F64))
    expected = torch.diag(torch.tensor([1.0, 0.0, -1.0], dtype=F64))
    torch.testing.assert_close(once(optfx.orthogonalize(method), x), expected)
    assert not once(optfx.orthogonalize(method), torch.zeros(3, 2)).any()


@pytest.mark.parametrize("method", [newton_schulz.POLAR_EXPRESS, "svd", "qr"], ids=["table", "svd", "qr"])
@pytest.mark.parametrize("x", [torch.zeros(3, 4), torch.eye(4), torch.ones(4, 2)], ids=["zero", "equal", "rank one"])
def test_derivatives_are_finite(method, x):
    x = x.to(F64).requires_grad_()
    y = orthogonal(x, 1e-8, method, False, None)
    (g,) = torch.autograd.grad((y * randn(*x.shape)).sum(), x)
    assert g.isfinite().all()


def test_the_exact_derivative_takes_the_root_for_a_constant():
    x, v = randn(3, 5).requires_grad_(), randn(3, 5, seed=1)
    (g,) = torch.autograd.grad((orthogonal(x, 0.0, "svd", False, None) * v).sum(), x)
    values, vectors = torch.linalg.eigh((x @ x.mT).detach())
    torch.testing.assert_close(g, vectors @ torch.diag(values**-0.5) @ vectors.mT @ v)


def test_equal_shapes_are_one_batch_and_each_its_own():
    params = {name: randn(4, 3, seed=i) for i, name in enumerate("abc")} | {"deep": randn(2, 4, 3, seed=9)}
    tx = optfx.orthogonalize()
    updates, _ = tx.update(params, tx.init(params))
    for name, x in tree.to_dict(params).items():
        torch.testing.assert_close(updates[name], once(tx, x))


@pytest.mark.parametrize("method", [(), "polar", ((1.0, 2.0),)], ids=str)
def test_a_method_that_is_none_is_refused(method):
    with pytest.raises(ValueError, match="orthogonalize: the method is"):
        optfx.orthogonalize(method)


def test_a_vector_is_refused_by_path():
    for tx in (optfx.orthogonalize(), optfx.scale_by_muon()):
        with pytest.raises(ValueError, match=r"'b' of shape \(3,\) is not a matrix"):
            tx.init({"w": torch.zeros(2, 2), "b": torch.zeros(3)})


def test_muon_is_momentum_and_orthogonalize():
    params = {"w": randn(4, 3)}
    parts = optfx.chain(optfx.ema(0.9), optfx.orthogonalize())
    for a, b in zip(steps(parts, params), steps(optfx.scale_by_muon(beta=0.9, nesterov=False), params), strict=True):
        torch.testing.assert_close(a["w"], b["w"])
