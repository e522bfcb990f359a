"""Complex leaves: a real number is a complex one, and what sees whole leaves turns as they turn."""

import pytest
import torch

import optfx
from optfx import tree
from tests.harness import each, params
from tests.registry import ROWS

C128 = torch.complex128


def as_complex(t):
    return tree.map(lambda x: x.to(C128), t)


def train(tx, p, gs, **extra):
    state, out = tx.init(p), []
    for g in gs:
        updates, state = tx.update(g, state, p, **extra)
        p = optfx.apply_updates(p, updates)
        out.append(updates)
    return out


def keeps_real_means(tx):
    """Whether it was asked for means in a real dtype, which cannot hold complex ones."""
    names = ("mu_dtype", "nu_dtype", "accumulator_dtype")
    parts = [part for _, part in each(tx) if not isinstance(part, optfx.scale_by_factored_rms)]  # those are real
    return any(getattr(part, name, None) is not None for part in parts for name in names)


REFUSED = {
    "scale_by_apollo",
    "scale_by_galore",
    "kron",
    "scale_by_kl_shampoo",
    "scale_by_kl_soap",
    "scale_by_kron",
    "scale_by_shampoo",
    "scale_by_sinksoap",
    "scale_by_soap",
    "scale_by_splus",
    "shampoo",
    "soap",
}


OTHERWISE = ("add_noise", "noisy_sgd", "stored")  # noise of its own; codes of real leaves alone


@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in OTHERWISE], ids=lambda row: row.id)
def test_a_complex_leaf_without_an_imaginary_part_is_a_real_one(row):
    p, gs, tx = params(), [params(seed=k + 1) for k in range(3)], row.make(**row.hypers)
    if row.name in REFUSED:
        with pytest.raises(ValueError, match=r"at '[\w.]+' is complex, expected a real matrix"):
            tx.init(as_complex(p))
        return
    if keeps_real_means(tx):
        with pytest.raises(TypeError, match=r"at '[\w.]+': (complex and real leaves meet|.* cannot hold it)"):
            train(tx, as_complex(p), list(map(as_complex, gs)), **row.extra)
        return
    real, found = train(tx, p, gs, **row.extra), train(tx, as_complex(p), list(map(as_complex, gs)), **row.extra)
    for a, b in zip(tree.leaves(real), tree.leaves(found), strict=True):
        assert b.dtype == C128
        torch.testing.assert_close(b.real, a, rtol=1e-10, atol=1e-12)


TURNING = {
    "scale_by_muon": optfx.scale_by_muon(),
    "orthogonalize": optfx.orthogonalize(),
    "orthogonalize, exact": optfx.orthogonalize("svd"),
    "orthogonalize, QR": optfx.orthogonalize("qr"),
    "polargrad": optfx.polargrad(),
    "equilibrate_rows": optfx.equilibrate_rows(),
    "renormalize": optfx.renormalize(),
    "scale_by_row_rms": optfx.scale_by_row_rms(),
    "scale_by_namo": optfx.scale_by_namo(),
    "scale_by_dion": optfx.scale_by_dion(),
    "scale_by_dion2": optfx.scale_by_dion2(),
    "scale_by_dion3": optfx.scale_by_dion3(),
    "lmo": optfx.lmo(),
    "lmo, rms": optfx.lmo("rms"),
    "scale_by_muon, torch's": optfx.scale_by_muon(bias_correction=False, eps_is_floor=True, nesterov=False),
    "scale_by_factored_rms": optfx.scale_by_factored_rms(min_dim_size_to_factor=1),
    "scale_by_factored_rms, torch's": optfx.scale_by_factored_rms(
        "last", min_dim_size_to_factor=1, epsilon=None, epsilon_is_floor=True
    ),
    "scale_by_factored_rms, in full": optfx.scale_by_factored_rms(False),
    "adafactor": optfx.adafactor(0.1, min_dim_size_to_factor=1, momentum=0.9, dtype_momentum=None),
    "adaptive_grad_clip": optfx.adaptive_grad_clip(0.1),
    "clip_by_block_rms": optfx.clip_by_block_rms(0.5),
    "clip_by_global_norm": optfx.clip_by_global_norm(0.5),
    "centralize": optfx.centralize(),
    "scale_by_param_block_norm": optfx.scale_by_param_block_norm(),
    "scale_by_param_block_rms": optfx.scale_by_param_block_rms(),
    "scale_by_trust_ratio": optfx.scale_by_trust_ratio(),
    "scale_by_novograd": optfx.scale_by_novograd(),
    "scale_by_sm3": optfx.scale_by_sm3(),
    "scale_by_confidence": optfx.scale_by_confidence(),
    "came": optfx.came(0.1),
    "normalize": optfx.normalize(),
    "scale_by_shape": optfx.scale_by_shape(),
    "relative_update": optfx.relative_update(),
    "relative_update, floor of units": optfx.relative_update(0.35, None, per_unit=True),
    "mars": optfx.mars(),
    "graft": optfx.graft(optfx.scale_by_factored_rms(False), optfx.identity()),
}


@pytest.mark.parametrize("tx", TURNING.values(), ids=TURNING)
def test_what_sees_absolute_values_turns_with_the_gradients(tx):
    turn = torch.polar(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64))
    p, gs = {"w": torch.randn(4, 3, dtype=C128)}, [{"w": torch.randn(4, 3, dtype=C128)} for _ in range(3)]
    turned = train(tx, p, [tree.map(lambda x: turn * x, g) for g in gs])
    steps = 1 if tx.needs_params or isinstance(tx, optfx.chain) else 3  # params have moved after the first
    for a, b in zip(train(tx, p, gs)[:steps], turned[:steps], strict=True):
        torch.testing.assert_close(b["w"], turn * a["w"])


@pytest.mark.parametrize("options", [{}, {"min_dim_size_to_factor": 1}, {"factored": False}], ids=str)
def test_gradients_of_size_one_make_adafactor_steps_of_size_one(options):
    g = {"w": torch.polar(torch.ones(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64))}
    for updates in train(optfx.scale_by_factored_rms(**options), g, [g] * 3):
        torch.testing.assert_close(updates["w"].abs(), torch.ones(4, 3, dtype=torch.float64))
    state = optfx.scale_by_factored_rms(**options).init(g)
    assert not any(x.is_complex() for x in tree.leaves(state))  # squares of absolute values


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 3, 5)], ids=str)
def test_muon_brings_the_singular_values_of_complex_matrices_near_one(shape):
    g = torch.randn(shape, dtype=C128)
    ((u,),) = (tree.leaves(x) for x in train(optfx.scale_by_muon(ns_steps=10), {"w": g}, [{"w": g}]))
    values = torch.linalg.svdvals(u)
    assert ((values > 0.6) & (values < 1.25)).all()
    left, _, right = torch.linalg.svd(g, full_matrices=False)
    aligned = left.mH @ u @ right.mH  # the same singular vectors
    torch.testing.assert_close(aligned, torch.diag_embed(aligned.diagonal(dim1=-2, dim2=-1)), atol=1e-8, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_copies_of_complex_parameters_stay_complex(dtype):
    p = {"z": torch.randn(3, dtype=torch.complex64), "w": torch.randn(3)}
    wide = torch.complex128 if dtype == torch.float64 else torch.complex64
    tx = optfx.chain(optfx.adam(0.1), optfx.params_ema(0.9, dtype=dtype))
    _, state = tx.update(p, tx.init(p), p)
    assert (state[1].ema["z"].dtype, state[1].ema["w"].dtype) == (wide, dtype)
    assert tx.eval_params(state, p)["z"].dtype == torch.complex64
    tx = optfx.master_weights(optfx.adam(0.1), dtype)
    updates, state = tx.update(p, tx.init(p), p)
    assert {x.dtype for x in tree.leaves(state.master)} <= {wide, dtype}
    torch.testing.assert_close(updates, optfx.adam(0.1).update(p, optfx.adam(0.1).init(p))[0])
    assert tree.cast(p, dtype)["z"].dtype == wide


def test_a_real_leaf_cannot_hold_a_complex_result():
    with pytest.raises(TypeError, match=r"at 'w': a result of torch.complex64 for a leaf of torch.float32"):
        tree.add({"w": torch.ones(2)}, {"w": torch.ones(2, dtype=torch.complex64)})
