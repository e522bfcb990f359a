"""What preconditioners of matrices are for: they see no coordinates, whiten, and keep little."""

import itertools

import pytest
import torch

import optfx
from optfx import tree

F64 = torch.float64


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def train(tx, gs):
    """The updates of each step, and the last state."""
    state, out = tx.init({"w": torch.zeros_like(gs[0])}), []
    for g in gs:
        updates, state = tx.update({"w": g}, state)
        out.append(updates["w"])
    return out, state


TURNING = {
    "scale_by_soap": optfx.scale_by_soap(frequency=2),
    "scale_by_kl_soap": optfx.scale_by_kl_soap(frequency=2),
    "scale_by_shampoo": optfx.scale_by_shampoo(frequency=2),
    "scale_by_shampoo, one side": optfx.scale_by_shampoo(0.9, sides="left"),
    "scale_by_kl_shampoo": optfx.scale_by_kl_shampoo(frequency=2),
    "scale_by_splus": optfx.scale_by_splus(frequency=2),
    "scale_by_sinksoap": optfx.scale_by_sinksoap(frequency=2),
    "scale_by_galore": optfx.scale_by_galore(4, 100, base_optimizer=optfx.identity()),
}


@pytest.mark.parametrize("name", TURNING)
def test_it_turns_as_the_gradients_turn(name):
    u, v = (torch.linalg.qr(draw(4, 4, seed=seed))[0] for seed in (1, 2))
    gs = [draw(4, 4, seed=10 + t) for t in range(7)]
    out, _ = train(TURNING[name], gs)
    turned, _ = train(TURNING[name], [u @ g @ v.T for g in gs])
    if name == "scale_by_splus":  # which starts in the basis that it is given
        out, turned = out[1:], turned[1:]
    for a, b in zip(out, turned, strict=True):
        torch.testing.assert_close(b, u @ a @ v.T, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "tx",
    [
        optfx.scale_by_soap(frequency=2),
        optfx.scale_by_kl_soap(frequency=2),
        optfx.scale_by_shampoo(),
        optfx.scale_by_kl_shampoo(frequency=2),
        optfx.scale_by_splus(frequency=2),
        optfx.scale_by_sinksoap(frequency=2),
        optfx.scale_by_kron(),
        optfx.scale_by_galore(2),
        optfx.scale_by_apollo(2),
    ],
    ids=lambda tx: type(tx).__name__,
)
def test_low_rank_is_finite_and_a_nan_is_seen(tx):
    out, state = train(tx, [draw(6, 1, seed=t) @ torch.ones(1, 4, dtype=F64) for t in range(5)])
    assert all(x.isfinite().all() for x in out)
    for _ in range(2):
        updates, state = tx.update({"w": torch.full((6, 4), torch.nan, dtype=F64)}, state)
    assert updates["w"].isnan().any()


def test_bases_are_kept_between_times():
    tx, p = optfx.scale_by_soap(frequency=3), {"w": torch.zeros(4, 4, dtype=F64)}
    state, renewed = tx.init(p), []
    for t in range(7):
        _, new = tx.update({"w": draw(4, 4, seed=t)}, state)
        renewed.append(new.left_basis["w"] is not state.left_basis["w"])
        state = new
    assert renewed == [False, True, False, False, True, False, False]
    basis = state.left_basis["w"]
    torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=F64))


def test_bases_of_half_precision_are_in_float32():
    state = optfx.scale_by_soap().init({"w": torch.zeros(3, 2, dtype=torch.bfloat16)})
    assert state.left["w"].dtype == state.left_basis["w"].dtype == torch.float32
    assert state.mu["w"].dtype == torch.bfloat16


def test_without_bases_soap_is_adam_from_the_second_step():
    gs = [draw(3, 2, seed=t) for t in range(4)]
    out, state = train(optfx.scale_by_soap(0.9, 0.8, 0.0, max_dim=1), gs)
    expected, _ = train(optfx.scale_by_adam(0.9, 0.8, 0.0), gs[1:])
    assert state.left["w"].shape == state.right_basis["w"].shape == (0, 0)
    assert not out[0].any()
    for a, b in zip(out[1:], expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_first_step_of_one_sided_shampoo_is_orthogonal():
    (u,), _ = train(optfx.scale_by_shampoo(eps=0.0, sides="left"), [draw(3, 5)])
    torch.testing.assert_close(u @ u.T, torch.eye(3, dtype=F64))


def test_kron_whitens():
    left, right = torch.diag(torch.tensor([10.0, 1.0, 0.1], dtype=F64)), torch.diag(torch.tensor([5.0, 0.2], dtype=F64))
    gs = [left @ draw(3, 2, seed=t) @ right for t in range(400)]
    out, _ = train(optfx.scale_by_kron(update_probability=1.0), gs)
    before, after = (torch.stack(xs[-200:]).square().mean(0).sqrt() for xs in (gs, out))
    assert before.max() / before.min() > 1000
    assert after.max() / after.min() < 4


def test_galore_moves_in_few_directions_and_remembers_few():
    out, state = train(optfx.scale_by_galore(2), [draw(6, 9, seed=t) for t in range(4)])
    assert torch.linalg.matrix_rank(torch.cat(out, 1)) == 2
    assert state.inner.mu["w"].shape == state.inner.nu["w"].shape == (2, 9)


def test_apollo_scales_channels_and_does_not_leap():
    gs = [draw(6, 9, seed=t) * 10**t for t in range(4)]
    out, state = train(optfx.scale_by_apollo(2, base_optimizer=optfx.identity()), gs)
    for g, u in zip(gs, out, strict=True):
        torch.testing.assert_close(u / g, (u / g)[:1].expand(6, 9))
    norms = [float(u.norm()) for u in out]
    assert all(b <= 1.01 * a * (1 + 1e-6) for a, b in itertools.pairwise(norms))
    assert tree.size(state.inner) == 0


@pytest.mark.parametrize(
    "make", [optfx.scale_by_soap, optfx.scale_by_shampoo, optfx.scale_by_kl_soap, optfx.scale_by_kron], ids=str
)
def test_what_is_no_real_matrix_is_refused_by_path(make):
    with pytest.raises(ValueError, match=r"the parameter at 'b' of shape \(3,\) is not a matrix"):
        make().init({"b": torch.zeros(3)})
    with pytest.raises(ValueError, match="the parameter at 'w' is complex, expected a real matrix"):
        make().init({"w": torch.zeros(3, 3, dtype=torch.complex64)})


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match="sides is 'top', expected one of both, left, right"):
        optfx.scale_by_shampoo(sides="top")
    with pytest.raises(ValueError, match="per is 'row', expected 'channel' or 'tensor'"):
        optfx.scale_by_apollo(per="row")
