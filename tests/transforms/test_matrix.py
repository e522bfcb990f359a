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


# ---- norms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norms_are_those_asked_for(shape):
    g, matrix = randn(*shape), shape[-2:]
    torch.testing.assert_close(once(optfx.equilibrate_rows(), g).norm(dim=-1), torch.ones(shape[:-1], dtype=F64))
    sizes = once(optfx.renormalize(), g).norm(dim=(-2, -1))
    torch.testing.assert_close(sizes, torch.full_like(sizes, min(matrix) ** 0.5))
    u = once(optfx.scale_by_row_rms(), g)
    torch.testing.assert_close(u.norm(dim=(-2, -1)), g.norm(dim=(-2, -1)))
    rows = u.norm(dim=-1)  # of the first step, when every row is as long as its own mean
    torch.testing.assert_close(rows, rows.mean(dim=-1, keepdim=True).expand_as(rows))


def test_rows_that_were_small_are_scaled_up_more():
    tx, g = optfx.scale_by_row_rms(0.5), torch.ones(2, 3, dtype=F64)
    state = tx.init({"w": g})
    for _ in range(3):
        _, state = tx.update({"w": g * torch.tensor([[1.0], [0.1]], dtype=F64)}, state)
    rows = tx.update({"w": g}, state)[0]["w"].norm(dim=1)
    assert rows[1] > rows[0]


def test_polargrad_is_as_long_as_the_singular_values_together():
    g = randn(3, 5)
    values = torch.linalg.svdvals(once(optfx.polargrad("svd"), g))
    torch.testing.assert_close(values, torch.linalg.svdvals(g).sum().expand(3))


def test_namo_takes_small_steps_where_gradients_are_noise():
    tx, g = optfx.scale_by_namo(0.9, 0.99, method="svd"), randn(3, 5)
    agreeing, noisy = (tx.init({"w": g}) for _ in range(2))
    for i in range(100):
        same, agreeing = tx.update({"w": g}, agreeing)
        other, noisy = tx.update({"w": randn(3, 5, seed=i)}, noisy)
    torch.testing.assert_close(torch.linalg.matrix_norm(same["w"], 2), torch.tensor(1.0, dtype=F64))
    assert torch.linalg.matrix_norm(other["w"], 2) < 0.5


@pytest.mark.parametrize(("norm", "shape"), [("spectral", (6, 3)), ("spectral", (4, 3, 2, 2)), ("sign", (6, 3))])
def test_a_step_of_scion_has_norm_one(norm, shape):
    u = once(optfx.lmo(norm, method="svd"), randn(*shape))
    if norm == "sign":  # of inputs, the largest of one output
        assert (u.abs() * shape[1] == 1).all()
    else:
        out, into, *window = shape
        flat = u.reshape(out, -1) * (into / out) ** 0.5 * float(np.prod(window))
        torch.testing.assert_close(torch.linalg.svdvals(flat), torch.ones(min(flat.shape), dtype=F64))
    assert once(optfx.lmo("rms"), randn(7)).square().mean().item() == pytest.approx(1)


# ---- of low rank, of some rows ------------------------------------------------------------------------


def test_dion_comes_to_the_largest_singular_vectors():
    left, _, right = torch.linalg.svd(randn(6, 4), full_matrices=False)
    g = left @ torch.diag(torch.tensor([9.0, 3.0, 0.1, 0.01], dtype=F64)) @ right
    tx = optfx.scale_by_dion(0.0, rank_fraction=0.5)
    state = tx.init({"w": g})
    for _ in range(20):
        updates, state = tx.update({"w": g}, state)
        state = state._replace(mu=tree.zeros_like(state.mu))
    torch.testing.assert_close(updates["w"], left[:, :2] @ right[:2])


def test_what_dion_leaves_out_waits_in_the_momentum():
    g = randn(6, 4)
    for tx in (optfx.scale_by_dion(0.0), optfx.scale_by_dion2(0.0, method="svd"), optfx.scale_by_dion3(0.0)):
        updates, state = tx.update({"w": g}, tx.init({"w": g}))
        assert torch.linalg.matrix_rank(updates["w"]) in (1, 2)
        taken = g - state.mu["w"]
        assert taken.norm() > 0
        torch.testing.assert_close((taken * state.mu["w"]).sum(), torch.zeros((), dtype=F64), atol=1e-12, rtol=0)
    full, _ = (tx := optfx.scale_by_dion2(fraction=1.0, method="svd")).update({"w": g}, tx.init({"w": g}))
    torch.testing.assert_close(full["w"], once(optfx.orthogonalize("svd"), g))


def test_dion2_takes_the_shorter_side_and_dion3_rows():
    g = randn(6, 4)
    assert (once(optfx.scale_by_dion2(fraction=0.25), g) != 0).any(dim=0).sum() == 1
    assert (once(optfx.scale_by_dion3(fraction=0.5), g) != 0).any(dim=1).sum() == 3


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_that_is_none_is_refused(share):
    for make in (lambda s: optfx.scale_by_dion(rank_fraction=s), lambda s: optfx.scale_by_dion2(fraction=s)):
        with pytest.raises(ValueError, match="expected above 0 and at most 1"):
            make(share)


def test_a_norm_that_is_none_is_refused():
    with pytest.raises(ValueError, match="lmo: the norm is 'nuclear'"):
        optfx.lmo("nuclear")


def test_scion_constrained_stays_within_the_radius():
    tx = optfx.scion(0.1, radius=2.0, constrained=True, method="svd")
    p = {"w": torch.zeros(4, 4, dtype=F64)}
    state = tx.init(p)
    for i in range(60):
        updates, state = tx.update({"w": randn(4, 4, seed=i)}, state, p)
        p = optfx.apply_updates(p, updates)
        assert torch.linalg.matrix_norm(p["w"], 2) <= 2.0
