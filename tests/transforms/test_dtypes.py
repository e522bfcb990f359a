"""Memories in another dtype than the parameters: what stalls in bfloat16 does not in float32."""

import inspect

import pytest
import torch

import optfx
from optfx import tree
from optfx.interop import TorchOptimizer

BF16, F32 = torch.bfloat16, torch.float32
ONE = {"w": torch.ones(3, dtype=BF16)}


def train(tx, p=ONE, g=ONE, steps=100):
    state = tx.init(p)
    for _ in range(steps):
        updates, state = tx.update(g, state, p)
        p = optfx.apply_updates(p, updates)
    return p, state


# ---- every memory ------------------------------------------------------------------------------------

MEMORIES = {"compensate", "scale_by_rprop"}  # which keep no mean, and take no dtype
GIVEN = {"mask": True, "f": lambda u, p: u, "key": 0, "measures": {"norm": tree.norm}, "measure": tree.norm}
ONLY_MATRICES = {
    "lmo",
    "orthogonalize",
    "polargrad",
    "scale_by_apollo",
    "scale_by_dion",
    "scale_by_dion2",
    "scale_by_dion3",
    "scale_by_galore",
    "scale_by_kl_shampoo",
    "scale_by_kl_soap",
    "scale_by_kron",
    "scale_by_muon",
    "scale_by_namo",
    "scale_by_row_rms",
    "scale_by_shampoo",
    "scale_by_sinksoap",
    "scale_by_soap",
    "scale_by_splus",
}
COPIES = {"x0"}  # fields of states: parameters as they were


def taking(layer):
    """Each name of a layer that takes dtypes, made with float32 for all of them."""
    needed = {"learning_rate": 0.1, "decay": 0.9, "momentum": 0.9, "rho": 0.9, "min_dim_size_to_factor": 1}
    for name in layer.__all__:
        parameters = inspect.signature(getattr(layer, name)).parameters
        dtypes = [n for n in parameters if "dtype" in n and n != "ns_dtype" and name != "master_weights"]
        if dtypes:
            given = {n: x for n, x in needed.items() if n in parameters} | dict.fromkeys(dtypes, F32)
            yield pytest.param(getattr(layer, name), given, id=name)


@pytest.mark.parametrize(("make", "given"), [*taking(optfx.transforms), *taking(optfx.optimizers)])
def test_all_that_is_kept_takes_the_dtype(make, given):
    p = {"m": torch.ones(4, 2, dtype=BF16)} | ({} if make.__name__ in ONLY_MATRICES else ONE)
    _, state = train(make(**given), p, p, 2)
    for path, x in tree.to_dict(state).items():
        assert x.dtype != BF16 or COPIES & set(path.split(".")), path


def test_every_transform_that_keeps_a_mean_takes_a_dtype():
    for name in optfx.transforms.__all__:
        make = getattr(optfx, name)
        parameters = inspect.signature(make).parameters
        if any("dtype" in n for n in parameters) or name in MEMORIES:
            continue
        needed = {n: 0.5 for n, q in parameters.items() if q.default is q.empty and q.kind != q.VAR_POSITIONAL}
        needed |= {n: x for n, x in GIVEN.items() if n in needed}
        state = make(**needed).init({"m": torch.ones(4, 2, dtype=BF16)})
        assert not any(x.dtype == BF16 for x in tree.leaves(state)), name


# ---- which do not stall -----------------------------------------------------------------------------


def test_a_mean_of_squares_does_not_stall():
    _, narrow = train(optfx.adam(1e-3), steps=2000)
    _, wide = train(optfx.adam(1e-3, nu_dtype=F32), steps=2000)
    assert narrow[0].nu["w"][0] < 0.3
    torch.testing.assert_close(wide[0].nu["w"][0].item(), 1 - 0.999**2000, rtol=1e-4, atol=0)


def test_an_average_does_not_stall():
    p, g = {"w": torch.full((3,), 2.0, dtype=BF16)}, tree.zeros_like(ONE)
    for dtype, expected in ((None, 1.0), (F32, 2 - 0.999**100)):
        tx = optfx.params_ema(0.999, dtype=dtype)
        state = tx.init(ONE)
        for _ in range(100):
            _, state = tx.update(g, state, p)
        torch.testing.assert_close(state.ema["w"][0].item(), expected, rtol=1e-5, atol=0)
        assert tx.eval_params(state, p)["w"].dtype == BF16


# ---- master weights ---------------------------------------------------------------------------------


def fused(tx, p):
    opt = optfx.fuse(tx)
    p, state = opt.init(tree.copy(p))
    for _ in range(100):
        p, state = opt.step(ONE, state, p)
    return p, state


def mapped(tx, p):
    ps, _ = torch.func.vmap(lambda p: train(tx, p))(tree.map(lambda x: torch.stack([x, x]), p))
    return tree.map(lambda x: x[1], ps), None


def of_torch(tx, p, compile):
    (w,) = tree.leaves(tree.copy(p))
    optimizer = TorchOptimizer([w.requires_grad_()], tx, compile=compile)
    for _ in range(100):
        w.grad = torch.ones_like(w)
        optimizer.step()
    return {"w": w.detach()}, None


WAYS = {
    "eager": train,
    "vmap": mapped,
    "fuse": fused,
    "TorchOptimizer": lambda tx, p: of_torch(tx, p, False),
    "TorchOptimizer, compiled": lambda tx, p: of_torch(tx, p, True),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_small_steps_are_lost_without_a_master_and_not_with_one(way):
    assert way(optfx.sgd(1e-4), ONE)[0]["w"].tolist() == [1.0] * 3
    p, state = way(optfx.master_weights(optfx.sgd(1e-4)), ONE)
    assert torch.equal(p["w"], torch.full((3,), 0.99, dtype=F32).to(BF16))
    if state is not None:
        torch.testing.assert_close(state.master["w"], torch.full((3,), 0.99))


def test_a_compiled_step_keeps_the_master(fresh_dynamo):
    tx = optfx.master_weights(optfx.adamw(1e-3))
    step = torch.compile(lambda g, s, p: tx.update(g, s, p), fullgraph=True, backend="aot_eager")
    p, state = ONE, tx.init(ONE)
    for _ in range(20):
        updates, state = step(tree.copy(ONE), state, p)
        p = optfx.apply_updates(p, updates)
    expected = train(tx, steps=20)
    torch.testing.assert_close((p, state), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("grad_dtype", [BF16, F32], ids=str)
def test_a_master_is_trained_as_float32_parameters_are(grad_dtype):
    torch.manual_seed(0)
    narrow = {"w": torch.randn(5, 4).to(BF16), "norm": torch.randn(4), "b": [torch.randn(()).to(BF16)]}
    wide = tree.cast(narrow, F32)
    inner = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(3e-3, weight_decay=0.1), optfx.params_ema(0.9))
    tx = optfx.master_weights(inner)
    state, other = tx.init(narrow), inner.init(wide)
    for _ in range(30):
        g = tree.map(lambda x: torch.randn(x.shape).to(grad_dtype if x.dtype == BF16 else F32), narrow)
        updates, state = tx.update(g, state, narrow)
        narrow = optfx.apply_updates(narrow, updates)
        updates, other = inner.update(tree.cast(g, F32), other, wide)
        wide = optfx.apply_updates(wide, updates)
        torch.testing.assert_close(tree.leaves(state.master), [wide["b"][0], wide["w"]])
    assert tree.paths(state.master) == ["b.0", "w"]  # a leaf in float32 has none
    for a, b in zip(tree.leaves(narrow), tree.leaves(wide), strict=True):
        torch.testing.assert_close(a, b.to(a.dtype), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(state.inner[2].ema, other[2].ema)
    average = tx.eval_params(state, narrow)
    assert [x.dtype for x in tree.leaves(average)] == [BF16, F32, BF16]
    with pytest.raises(ValueError, match="master_weights, which is final"):
        optfx.chain(tx, optfx.scale_by_learning_rate(0.1))
