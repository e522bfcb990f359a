"""The list of deliberate differences from optax: each is shown to be one, and `docs/differences.md` is this list.

A row is (name, what optax does, what optfx does, a function that shows it). The functions return the pair
(what optax gave, what optfx gave) as arrays that must differ, or assert by themselves.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import optfx
from optfx import tree

PAGE = Path(__file__).parents[1] / "docs/differences.md"


class Difference(NamedTuple):
    name: str
    optax: str
    optfx: str
    show: Callable[[], None]


def step_of_optax(tx, g, p=None, **extra):
    g = jax.tree.map(jnp.asarray, g)
    p = g if p is None else jax.tree.map(jnp.asarray, p)
    updates, state = tx.update(g, tx.init(p), p, **extra)
    return jax.tree.map(np.asarray, updates), state


def step_of_optfx(tx, g, p=None, **extra):
    g = tree.map(torch.tensor, g)
    p = g if p is None else tree.map(torch.tensor, p)
    return tx.update(g, tx.init(p), p, **extra)


def nan_there_zero_here(theirs: Any, ours: Any, g: Any) -> None:
    assert np.isnan(step_of_optax(theirs, g)[0]).any()
    assert not step_of_optfx(ours, g)[0].any()


# ---- the rows ---------------------------------------------------------------------------------------


def narrow_parameters():
    bf16, wide = torch.zeros(2, dtype=torch.bfloat16), torch.ones(2)
    tx = optfx.scale_by_adam()
    _, state = tx.update(wide, tx.init(bf16), bf16)
    theirs = optax.scale_by_adam()
    start = theirs.init(jnp.zeros(2, jnp.bfloat16))
    _, their_state = theirs.update(jnp.ones(2, jnp.float32), start)
    assert start.mu.dtype == jnp.bfloat16
    assert their_state.mu.dtype == jnp.float32
    assert state.mu.dtype == state.nu.dtype == torch.bfloat16


def zero_gradients():
    assert np.isnan(np.asarray(step_of_optax(optax.scale_by_adam(), np.zeros(2, np.float16))[0])).all()
    zeros = torch.zeros(2, dtype=torch.float16)
    updates, _ = optfx.scale_by_adam().update(zeros, optfx.scale_by_adam().init(zeros))
    assert torch.equal(updates, zeros)
    nan_there_zero_here(optax.scale_by_adam(eps=0.0), optfx.scale_by_adam(eps=0.0), np.zeros(2))
    nan_there_zero_here(optax.clip_by_global_norm(0.0), optfx.clip_by_global_norm(0.0), np.zeros(2))
    nan_there_zero_here(optax.clip_by_block_rms(0.0), optfx.clip_by_block_rms(0.0), np.zeros(2))


def infinite_squares():
    theirs, ours = optax.scale_by_adam(), optfx.scale_by_adam()
    state, mine, p = theirs.init(jnp.zeros(1, jnp.float32)), ours.init(torch.zeros(1)), torch.zeros(1)
    for g in (1e20, 1.0):
        u, state = theirs.update(jnp.full(1, g, jnp.float32), state)
        v, mine = ours.update(torch.full((1,), g), mine, p)
    assert np.asarray(u) == 0.0
    assert v.isnan().all()


def negative_variance():
    theirs, ours = optax.scale_by_stddev(eps_in_sqrt=False), optfx.scale_by_stddev(eps_in_sqrt=False)
    g = np.linspace(0.1, 3, 50, dtype=np.float32)
    their_state, state = theirs.init(jnp.asarray(g)), ours.init(torch.tensor(g))
    worst, update = 0, jax.jit(theirs.update)
    for _ in range(300):
        expected, their_state = update(jnp.asarray(g), their_state)
        updates, state = ours.update(torch.tensor(g), state)
        worst = max(worst, int(jnp.isnan(expected).sum()))
        assert updates.isfinite().all()
    assert worst


def complex_numbers():
    z = np.array([3 + 4j])
    theirs, ours = (
        step_of_optax(optax.scale_by_adam(), z)[0],
        step_of_optfx(optfx.scale_by_adam(), z)[0],
    )
    np.testing.assert_allclose(theirs, z / 5)
    np.testing.assert_allclose(ours, 1 + 1j)
    assert step_of_optfx(optfx.clip(3.5), z)[0] == 3 + 3.5j
    with pytest.raises(Exception, match="complex"):
        step_of_optax(optax.clip(3.5), z)


def count():
    params, theirs = torch.zeros(1), jnp.zeros(1)
    assert optfx.scale_by_adam().init(params).count.dtype == torch.int64
    assert optax.scale_by_adam().init(theirs).count.dtype == jnp.int32
    for name in ("scale", "clip"):
        assert not jax.tree.leaves(getattr(optax, name)(1.0).init(theirs))
        assert tree.paths(getattr(optfx, name)(1.0).init(params)) == ["count"]
    same = tree.paths(optfx.sgd(0.1).init(params)) == tree.paths(optfx.sgd(lambda count: 0.1).init(params))
    assert same
    assert jax.tree.structure(optax.sgd(0.1).init(theirs)) != jax.tree.structure(optax.sgd(lambda c: 0.1).init(theirs))


def batched_rate():
    theirs, _ = optax.sgd(jnp.ones(3)).update(jnp.ones((2, 3)), optax.sgd(jnp.ones(3)).init(jnp.ones((2, 3))))
    assert theirs.shape == (2, 3)
    tx = optfx.sgd(torch.ones(3))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        tx.update(torch.ones(2, 3), tx.init(torch.ones(2, 3)))


def missing_gradient():
    theirs, _ = optax.trace(0.9).update({"w": None}, optax.trace(0.9).init({"w": jnp.ones(1)}))
    assert theirs == {"w": None}
    tx = optfx.trace(0.9)
    with pytest.raises(ValueError, match="'w'"):
        tx.update({"w": None}, tx.init({"w": torch.ones(1)}))


def unknown_argument():
    g = np.ones(1)
    step_of_optax(optax.with_extra_args_support(optax.adam(0.1)), g, vlaue=1.0)
    with pytest.raises(TypeError, match="unknown argument vlaue"):
        step_of_optfx(optfx.adam(0.1), g, vlaue=1.0)


def masks():
    g, p = {"w": np.ones(2), "b": np.ones(2)}, {"w": np.zeros(2), "b": np.ones(2)}
    theirs = step_of_optax(optax.masked(optax.scale(0.5), lambda t: {k: bool(x[0] == 0) for k, x in t.items()}), g, p)[
        0
    ]
    ours = step_of_optfx(optfx.masked(optfx.scale(0.5), lambda t: {k: bool(x[0] == 0) for k, x in t.items()}), g, p)[0]
    assert {k: float(x[0]) for k, x in theirs.items()} == {"w": 1.0, "b": 1.0}
    assert {k: float(x[0]) for k, x in ours.items()} == {"w": 0.5, "b": 1.0}


def holes():
    seen = []

    def note(updates, params=None):
        seen.append(updates)
        return updates

    step_of_optax(optax.masked(optax.stateless(note), {"w": True, "b": False}), {"w": np.ones(1), "b": np.ones(1)})
    step_of_optfx(optfx.masked(optfx.stateless(note), {"w": True, "b": False}), {"w": np.ones(1), "b": np.ones(1)})
    assert isinstance(seen[0]["b"], optax.MaskedNode)
    assert seen[1]["b"] == tree.Hole()


def injected():
    half = jnp.zeros(1, jnp.bfloat16)
    theirs = optax.inject_hyperparams(optax.adam)(learning_rate=0.1, b2=0.999).init(half)
    assert theirs.hyperparams["b2"].dtype == jnp.bfloat16
    assert theirs.hyperparams["b2"] == 1.0
    state = optfx.inject_hyperparams(optfx.adam(0.1, b2=0.999)).init(torch.zeros(1, dtype=torch.bfloat16))
    assert tree.get(state, "b2").dtype == torch.float64
    assert tree.get(state, "b2") == 0.999


def no_rate():
    assert step_of_optax(optax.scale_by_learning_rate(None), np.ones(1))[0] == 1
    with pytest.raises(TypeError):
        optfx.scale_by_learning_rate()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"learning_rate is None, expected a number"):
        optfx.scale_by_learning_rate(None)  # type: ignore[arg-type]


def units():
    g, p = np.array([[9.0, 1.0], [9.0, 1.0]]), np.ones((2, 2))
    theirs = step_of_optax(optax.adaptive_grad_clip(1.0), g, p)[0]
    ours = step_of_optfx(optfx.adaptive_grad_clip(1.0), g, p)[0]
    np.testing.assert_allclose(theirs, [[1, 1], [1, 1]])
    np.testing.assert_allclose(ours, np.sqrt(2) * g / np.linalg.norm(g[0]))
    assert "axis" in inspect.signature(optax.adaptive_grad_clip).parameters
    with pytest.raises(ValueError, match="Use axis parameter"):
        step_of_optax(optax.adaptive_grad_clip(1.0), np.ones((1, 2, 2, 2, 2, 2)))
    assert step_of_optfx(optfx.adaptive_grad_clip(1.0), np.ones((1, 2, 2, 2, 2, 2)))[0].ndim == 6


def norm_in_state():
    g = np.array([3.0, 4.0])
    assert not jax.tree.leaves(step_of_optax(optax.clip_by_global_norm(1.0), g)[1])
    assert step_of_optfx(optfx.clip_by_global_norm(1.0), g)[1].norm == 5


def noise():
    alone = step_of_optfx(optfx.add_noise(1.0, 0.5, key=0), {"w": np.zeros(3)})[0]
    beside = step_of_optfx(optfx.add_noise(1.0, 0.5, key=0), {"v": np.zeros(3), "w": np.zeros(3)})[0]
    assert torch.equal(alone["w"], beside["w"])
    theirs = [
        step_of_optax(optax.add_noise(1.0, 0.5, key=0), t)[0]["w"]
        for t in ({"w": np.zeros(3)}, {"v": np.zeros(3), "w": np.zeros(3)})
    ]
    assert not np.array_equal(*theirs)
    with pytest.raises(TypeError):
        optfx.add_noise(1.0, 0.5)  # type: ignore[call-arg]


def patience():
    def reductions(tx, init, value):
        state = tx.init(init)
        for k in range(9):
            _, state = tx.update(init, state, value=value)
            if state.scale < 1:
                return k
        return None

    theirs = reductions(optax.contrib.reduce_on_plateau(0.5, patience=3), jnp.ones(1), 1.0)
    ours = reductions(optfx.reduce_on_plateau(0.5, patience=3), torch.ones(1), 1.0)
    assert (theirs, ours) == (3, 4)
    state = optfx.reduce_on_plateau().init(torch.ones(1, dtype=torch.bfloat16))
    assert state.scale.dtype == torch.float64
    assert optax.contrib.reduce_on_plateau().init(jnp.ones(1, jnp.bfloat16)).scale.dtype == jnp.bfloat16


def below_zero():
    def last(tx, init):
        state = tx.init(init)
        for _ in range(8):
            _, state = tx.update(init, state, value=-1.0)
        return float(state.scale)

    assert last(optax.contrib.reduce_on_plateau(0.5, patience=3), jnp.ones(1)) == 1
    assert last(optfx.reduce_on_plateau(0.5, patience=2), torch.ones(1)) == 0.25


def narrow_gradients():
    g, p = np.full(1, 1.01), {"w": jnp.ones(1, jnp.float32)}
    theirs = optax.adam(1e-3).update({"w": jnp.asarray(g, jnp.bfloat16)}, optax.adam(1e-3).init(p), p)[0]["w"]
    assert theirs.dtype == jnp.float32
    narrow, wide = {"w": torch.tensor(g, dtype=torch.bfloat16)}, {"w": torch.ones(1)}
    tx = optfx.adam(1e-3)
    assert tx.update(narrow, tx.init(wide), wide)[0]["w"].dtype == torch.bfloat16
    assert tx.update(tree.cast(narrow, torch.float32), tx.init(wide), wide)[0]["w"].dtype == torch.float32


def complex_dtypes():
    z = jnp.array([1 + 2j])
    with pytest.warns(DeprecationWarning, match="complex to real"):
        assert optax.tree.cast(z, jnp.float32).dtype == jnp.float32
    ours = {"z": torch.tensor([1 + 2j])}
    assert tree.cast(ours, torch.float64)["z"].dtype == torch.complex128
    assert optax.tree.max(z) == 1 + 2j
    with pytest.raises(TypeError, match="complex numbers have no order"):
        tree.max(ours)


def meaningless():
    assert step_of_optax(optax.adam(-0.1), np.ones(1))[0] > 0
    assert np.isnan(step_of_optax(optax.adam(0.1, b1=1.0), np.ones(1))[0])
    for make in (lambda: optfx.adam(-0.1), lambda: optfx.adam(0.1, b1=1.0)):
        with pytest.raises(ValueError, match="expected at least 0"):
            make()


def two_rates():
    assert step_of_optax(optax.chain(optax.adam(0.1), optax.sgd(0.1)), np.ones(1))[0] > 0
    with pytest.raises(ValueError, match="the steps 0 and 1 have a learning rate each"):
        optfx.chain(optfx.adam(0.1), optfx.sgd(0.1))


def labels():
    optax.partition({1: optax.sgd(0.1)}, 1).init({"w": jnp.ones(1)})
    with pytest.raises(TypeError, match="the label at 'w' is 1, expected a str"):
        optfx.partition({1: optfx.sgd(0.1)}, 1).init({"w": torch.ones(1)})  # type: ignore[dict-item]
    theirs = optax.partition({"a": optax.sgd(0.1)}, lambda t: jax.tree.map(lambda _: "a", t))
    assert theirs.update({}, theirs.init({}))[0] == {}
    ours = optfx.partition({"a": optfx.sgd(0.1)}, lambda t: tree.map(lambda _: "a", t))
    with pytest.raises(ValueError, match="partition needs params"):
        ours.update({}, ours.init({}))


def states():
    w, v = {"w": jnp.ones(1)}, {"w": torch.ones(1)}
    assert optax.masked(optax.scale_by_adam(), True).init(w)._fields == ("inner_state",)
    assert optfx.masked(optfx.scale_by_adam(), True).init(v)._fields == ("count", "mu", "nu")
    assert optax.freeze(True).init(w)._fields == ("inner_state",)
    assert optfx.freeze(True).init(v) == ()
    assert optax.partition({"a": optax.sgd(0.1)}, "a").init(w)._fields == ("inner_states",)
    assert list(optfx.partition({"a": optfx.sgd(0.1)}, "a").init(v)) == ["a"]
    theirs = optax.inject_hyperparams(optax.sgd)(0.1).init(w)
    assert theirs._fields == ("count", "hyperparams", "hyperparams_states", "inner_state")
    ours = optfx.inject_hyperparams(optfx.sgd(0.1)).init(v)
    assert (ours._fields, list(theirs.hyperparams), list(ours.hyperparams)) == (
        ("hyperparams", "inner"),
        ["learning_rate"],
        ["0.learning_rate"],
    )
    plateau = set(optfx.reduce_on_plateau().init(v)._fields) ^ set(optax.contrib.reduce_on_plateau().init(w)._fields)
    assert plateau == {"avg_count"}


def several_of_a_name():
    theirs = optax.adam(lambda count: 0.1).init(jnp.ones(1))
    assert [int(x) for _, x in optax.tree.get_all_with_path(optax.tree.set(theirs, count=10), "count")] == [10, 10]
    ours = optfx.adam(0.1).init(torch.ones(1))
    with pytest.raises(KeyError, match="2 nodes are called 'count'"):
        tree.set(ours, count=10)
    assert [int(x) for x in tree.get_all(tree.set_all(ours, count=10), "count").values()] == [10, 10]


def stateful():
    for name in ("inject_stateful_hyperparams", "tree_map_params"):
        assert hasattr(optax, name)
        with pytest.raises(AttributeError, match=f"optfx has no '{name}'"):
            getattr(optfx, name)
    assert not hasattr(tree, "map_params")


def offset():
    p = {"w": np.ones(2)}
    assert np.isnan(step_of_optax(optax.adafactor(1e-3, decay_offset=3), p)[0]["w"]).all()
    tx, q = optfx.adafactor(1e-3, decay_offset=3), tree.map(torch.tensor, p)
    state, seen = tx.init(q), []
    for _ in range(3):
        updates, state = tx.update(tree.map(torch.ones_like, q), state, q)
        q = optfx.apply_updates(q, updates)
        seen.append(float(q["w"][0]))
    np.testing.assert_allclose(seen, [0.999, 0.998001, 0.997002999])


def nesterov():
    optax.sgd(0.1, nesterov=True)
    with pytest.raises(ValueError, match="nesterov without a momentum"):
        optfx.sgd(0.1, nesterov=True)


def one_cycle():
    theirs = optax.cosine_onecycle_schedule(10, 1.0, pct_start=1.0)(9)
    ours = optfx.cosine_onecycle_schedule(10, 1.0, pct_start=1.0)(torch.tensor(9))
    assert float(theirs) < 0.04
    assert ours > 0.9


def joined():
    parts = [optfx.constant_schedule(1.0), optfx.constant_schedule(2.0)]
    assert optax.join_schedules(parts, [])(100) == 1
    with pytest.raises(ValueError, match="2 schedules and 0 boundaries"):
        optfx.join_schedules(parts, [])


def no_rate_of_adadelta():
    assert step_of_optax(optax.adadelta(), np.ones(1), np.ones(1))[0] > 0
    assert step_of_optfx(optfx.adadelta(), np.ones(1), np.ones(1))[0] < 0


def late_rprop():
    assert step_of_optax(optax.rprop(0.1), np.ones(1))[0] == 0
    assert step_of_optfx(optfx.rprop(0.1), np.ones(1))[0] == pytest.approx(-0.1)
    assert step_of_optax(optax.rprop(99.0), np.ones(1))[1][0].step_sizes == 99
    assert step_of_optfx(optfx.rprop(99.0), np.ones(1))[1][0].step_sizes == 50


def low_threshold():
    nan_there, g = optax.scale_by_radam(threshold=2.5), jnp.ones(1)
    state = nan_there.init(g)
    for _ in range(3):
        u, state = nan_there.update(g, state)
    assert np.isnan(u).all()
    ours, h = optfx.scale_by_radam(threshold=2.5), torch.ones(1)
    mine = ours.init(h)
    for _ in range(3):
        v, mine = ours.update(h, mine)
    assert v == pytest.approx(1.0)


def rate_of_decay():
    p = {"w": np.ones((2, 3)), "b": np.ones(3)}
    theirs = optax.scale_by_factored_rms(min_dim_size_to_factor=1).init(jax.tree.map(jnp.asarray, p))
    ours = optfx.scale_by_factored_rms(min_dim_size_to_factor=1).init(tree.map(torch.tensor, p))
    assert theirs.v["w"].shape == theirs.v_row["b"].shape == (1,)
    assert tree.paths(ours.v) == ["b"]
    assert tree.paths(ours.v_row) == ["w"]
    assert (theirs.v_row["w"].shape, ours.v_row["w"].shape) == ((2,), (2, 1))
    assert optax._src.factorized._decay_rate_pow(3).dtype == jnp.float32
    assert "decay_rate_fn" in inspect.signature(optax.scale_by_factored_rms).parameters


def matrices():
    g = np.arange(1.0, 9.0).reshape(4, 2)
    theirs, _ = step_of_optax(optax.contrib.muon(0.1), g)
    ours, _ = step_of_optfx(optfx.muon(0.1), g)
    np.testing.assert_allclose(ours, np.sqrt(4 / 2) * theirs)
    both = step_of_optfx(optfx.scale_by_muon(), np.stack([g, 2 * g]))[0]
    np.testing.assert_allclose(both[1], step_of_optfx(optfx.scale_by_muon(), 2 * g)[0])
    with pytest.raises(ValueError, match="must have shape"):
        step_of_optax(optax.contrib.scale_by_muon(), np.stack([g, g]))


def ahead():
    g, h = np.array([5.0, -0.1]), np.array([4.0, 0.3])
    theirs, ours = optax.scale_by_adan(), optfx.scale_by_adan()
    u, _ = theirs.update(jnp.asarray(h), theirs.update(jnp.asarray(g), theirs.init(jnp.asarray(g)))[1])
    v, _ = ours.update(torch.tensor(h), ours.update(torch.tensor(g), ours.init(torch.tensor(g)))[1])
    means = (0.98 * 0.02 * g + 0.02 * h) / (1 - 0.98**2), 0.08 * (h - g) / (1 - 0.92**2)
    for found, b2 in ((u, 1 - 0.92), (v, 0.92)):
        n = (0.99 * 0.01 * g**2 + 0.01 * (h + b2 * (h - g)) ** 2) / (1 - 0.99**2)
        np.testing.assert_allclose(found, (means[0] + b2 * means[1]) / np.sqrt(n), rtol=1e-6)
    zero, p = np.zeros(1), np.full(1, 4.0)
    np.testing.assert_allclose(step_of_optax(optax.adan(1.0, weight_decay=3.0), zero, p)[0], -12)
    np.testing.assert_allclose(step_of_optfx(optfx.adan(1.0, weight_decay=3.0), zero, p)[0], -3)


def new_mean():
    g = np.ones(1)
    options = {"b1": 0.9, "b2": 0.999, "eps_root": 0.0}
    np.testing.assert_allclose(step_of_optax(optax.contrib.scale_by_acprop(**options), g)[1].nu, 0.001)
    np.testing.assert_allclose(step_of_optfx(optfx.scale_by_acprop(**options), g)[1].nu, 0.001 * 0.9**2)


def limit_of_adopt():
    for name in ("scale_by_adopt", "adopt"):
        theirs = inspect.signature(getattr(optax.contrib, name)).parameters["clip_value_fn"].default
        assert theirs(16.0) == 2.0
        assert inspect.signature(getattr(optfx, name)).parameters["clip_value_fn"].default is None
    tx, p = optfx.scale_by_adopt(b1=0.0, b2=0.5, clip_value_fn=0.25), torch.ones(1)
    state = tx.init(p)
    for _ in range(2):
        updates, state = tx.update(p, state)
    assert updates == 0.25


def no_rate_of_madgrad():
    g, p = np.ones(1), np.zeros(1)
    assert step_of_optax(optax.contrib.madgrad(0.0), g, p)[0] < 0
    assert step_of_optfx(optfx.madgrad(0.0), g, p)[0] == 0


def no_norm():
    nan_there_zero_here(optax.contrib.normalize(), optfx.normalize(), np.zeros(2))


def small_leaves_of_sm3():
    for shape, error in (((), IndexError), ((0, 2), ValueError)):
        with pytest.raises(error):
            step_of_optax(optax.scale_by_sm3(), np.ones(shape))
        assert step_of_optfx(optfx.scale_by_sm3(), np.ones(shape))[0].shape == shape
    with pytest.raises(ValueError, match="complex"):
        optax.scale_by_sm3().init(jnp.ones(1, jnp.complex64))
    ours = step_of_optfx(optfx.scale_by_sm3(0.0, eps=0.0), np.array([3 + 4j]))[0]
    np.testing.assert_allclose(ours, 0.6 + 0.8j)
    theirs = optax.scale_by_sm3().init(jnp.ones((2, 3)))
    assert [x.shape for x in theirs.mu] == [(2,), (3,)]
    assert [x.shape for x in optfx.scale_by_sm3().init(torch.ones(2, 3)).maxima] == [(2, 1), (1, 3)]
    with pytest.raises(TypeError):
        optax.sm3(lambda count: 0.1)
    optfx.sm3(lambda count: 0.1)


def narrow_ademamix():
    theirs = optax.contrib.scale_by_ademamix(mu_dtype=jnp.bfloat16).init(jnp.ones(1))
    ours = optfx.scale_by_ademamix(mu_dtype=torch.bfloat16).init(torch.ones(1))
    assert theirs.nu.dtype == theirs.m1.dtype == jnp.bfloat16
    assert (ours.nu.dtype, ours.m1.dtype) == (torch.float32, torch.bfloat16)
    assert set(theirs._fields) - set(ours._fields) == {"count_m2"}
    assert optax.contrib.scale_by_simplified_ademamix().init(jnp.ones(1))._fields == ("t", "m", "n")


def gathering():
    def seen(tx, make, p, gradients):
        state, found = tx.init(p), []
        for g in gradients:
            updates, state = tx.update(make([g]), state, p)
            found.append(float(updates[0]))
        return found

    gs = [1.0, np.nan, 1.0, 1.0]
    assert np.isnan(seen(optax.MultiSteps(optax.sgd(1.0), 2), jnp.asarray, jnp.zeros(1), gs)[2:]).all()
    assert seen(optfx.accumulate(optfx.sgd(1.0), 2), torch.tensor, torch.zeros(1), gs)[2:] == [0, -1]
    assert np.isnan(seen(optax.apply_every(2), jnp.asarray, jnp.zeros(1), gs)[2:]).all()
    assert seen(optfx.apply_every(2), torch.tensor, torch.zeros(1), gs)[2:] == [0, 2]
    later = lambda count: 1 + (count >= 1)  # optax counts steps, optfx gradients
    assert seen(optax.MultiSteps(optax.sgd(1.0), later), jnp.asarray, jnp.zeros(1), np.ones(4))[:2] == [-1, 0]
    once = lambda count: torch.where(count < 2, 1, 2)
    assert seen(optfx.accumulate(optfx.sgd(1.0), once), torch.tensor, torch.zeros(1), np.ones(4)) == [-1, -1, 0, -1]
    assert not isinstance(optax.MultiSteps(optax.sgd(1.0), 2), optax.GradientTransformation)


def pair_of_params():
    with pytest.raises(AttributeError, match="has no attribute 'fast'"):
        step_of_optax(optax.lookahead(optax.sgd(0.1), 2, 0.5), np.ones(1))
    _, state = step_of_optfx(optfx.lookahead(optfx.sgd(0.1), 2, optfx.sgd(0.5)), np.ones(1))
    assert torch.equal(state.slow, torch.ones(1, dtype=torch.float64))


def rate_given_twice():
    rising = optax.linear_schedule(0.0, 1.0, 4)
    _, theirs = step_of_optax(optax.contrib.schedule_free(optax.sgd(rising), rising), np.ones(1))
    _, ours = step_of_optfx(optfx.schedule_free(optfx.identity(), optfx.linear_schedule(0.0, 1.0, 4)), np.ones(1))
    assert (float(theirs.max_lr), float(ours.max_lr)) == (0.25, 0.0)  # of a step that did not move
    with pytest.raises(ValueError, match="has a learning rate of its own"):
        optfx.schedule_free(optfx.sgd(0.1), 0.1)


def climbing():
    climb = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
    assert np.isnan(step_of_optax(optax.contrib.sam(optax.sgd(0.1), climb), np.zeros(1))[0]).all()
    assert step_of_optfx(optfx.sam(optfx.sgd(0.1), 0.1, sync_period=2), np.zeros(1))[0] == 0


def measured():
    theirs = optax.monitor({"norm": optax.tree.norm})
    _, state = step_of_optax(theirs, np.ones(1))
    assert jax.tree.structure(state) != jax.tree.structure(theirs.init(jnp.ones(1)))
    assert optax.snapshot("norm", optax.tree.norm).init(jnp.ones(1)).measurement["norm"] == 1
    ours = optfx.monitor({"norm": tree.norm})
    _, state = step_of_optfx(ours, np.ones(1))
    assert tree.flatten(state)[1] == tree.flatten(ours.init(torch.ones(1)))[1]
    assert ours.init(torch.ones(1)).measurements["norm"] == 0


def mixed_dtypes():
    p = {"a": np.ones(1, np.float32), "b": np.ones(1)}
    step_of_optax(optax.flatten(optax.sgd(0.1)), p)
    with pytest.raises(TypeError, match=r"the leaf at 'b' is torch\.float64"):
        step_of_optfx(optfx.flatten(optfx.sgd(0.1)), p)


def predicates():
    assert "forward_extra_args" in inspect.signature(optax.conditionally_transform).parameters
    assert isinstance(optax.skip_not_finite({"w": jnp.ones(1)}, 0, None), tuple)
    assert not optfx.skip_not_finite({"w": torch.ones(1)}, torch.tensor(0), None)


def micro():
    x = np.array([1.0, 3.0])
    theirs, _ = optax.microbatching.micro_grad(lambda p, x: jnp.mean(p * x))(jnp.ones(()), jnp.asarray(x))
    ours, _ = optfx.micro_grad(lambda p, x: (p * x).mean(), 2)(torch.ones(()), torch.tensor(x))
    assert (float(theirs), ours.item()) == (4.0, 2.0)


def low_rank():
    g = {"w": np.random.default_rng(0).normal(size=(4, 6))}
    _, theirs = step_of_optax(optax.contrib.scale_by_galore(2, base_optimizer=optax.scale_by_adam()), g)
    ours = optfx.scale_by_galore(2).init(tree.map(torch.tensor, g))
    assert (theirs.base_optimizer_state.mu["w"].shape, ours.inner.mu["w"].shape) == ((4, 2), (2, 6))


DIFFERENCES = [
    Difference(
        "Dtype of the state",
        "follows the gradients: bf16 parameters with float32 gradients make it float32 after a step",
        "never changes after `init`; half precision is computed in float32",
        narrow_parameters,
    ),
    Difference(
        "Half-precision gradients beside float32 parameters",
        "updates are float32 where a transform keeps a mean, else in half precision",
        "updates have the dtypes of the gradients, always; `tree.cast(grads, torch.float32)` before keeps every digit",
        narrow_gradients,
    ),
    Difference(
        "A number that no optimizer can mean, such as a negative rate or a `b1` of 1",
        "accepted: the updates are NaN, or go up the gradient",
        "an error when the transform is made; tensors and schedules are not looked at",
        meaningless,
    ),
    Difference(
        "Two learning rates in one chain",
        "the sign is flipped twice: the updates go up the gradient",
        "an error when the chain is made",
        two_rates,
    ),
    Difference(
        "Zero gradients",
        "NaN in float16 (an epsilon of 1e-8 is 0 there), with `eps=0`, and with a clipping limit of 0",
        "zero updates, with finite derivatives",
        zero_gradients,
    ),
    Difference(
        "Complex parameters",
        "the second moment is that of the absolute value; `clip` refuses them",
        "a complex element counts as two real ones, as in `torch.optim`, wherever elements are treated alike",
        complex_numbers,
    ),
    Difference(
        "Complex leaves in `optax.tree`",
        "`cast` to a real dtype drops the imaginary part; `max` and `min` compare",
        "`cast` keeps them complex, in the precision of the dtype; `max` and `min` refuse them",
        complex_dtypes,
    ),
    Difference(
        "Counts and the form of states",
        "int32; some transforms have a state only if they were given a schedule",
        "int64; every transform with a number counts its steps, so a float, a tensor and a schedule share one form",
        count,
    ),
    Difference(
        "A batch of hyperparameters outside `vmap`",
        "broadcasts: a rate of shape (3,) becomes one rate a column",
        "an error that gives the shape",
        batched_rate,
    ),
    Difference(
        "A `None` gradient where there is a parameter",
        "passed through by some transforms, an error later in others",
        "an error that names the path",
        missing_gradient,
    ),
    Difference(
        "Unknown extra arguments of `update`",
        "dropped in silence",
        "an error that lists the known ones",
        unknown_argument,
    ),
    Difference(
        "Masks and labels that are functions",
        "`update` gives them the updates",
        "they are always given the parameters",
        masks,
    ),
    Difference(
        "Labels",
        "any hashable value; a function is given the updates, so an empty tree needs no params",
        "strings; a function is always given the parameters, also for an empty tree",
        labels,
    ),
    Difference(
        "States of `masked`, `freeze`, `partition`, `inject_hyperparams`, `reduce_on_plateau`",
        "fields `inner_state`, `inner_states`, `hyperparams_states`; numbers by argument",
        "the state inside itself, nothing, a dict by label, fields `hyperparams` and `inner`; numbers by path; "
        "`avg_count` beside `count`",
        states,
    ),
    Difference(
        "`tree.set` where several nodes have the name",
        "sets all",
        "an error that lists them; `tree.set_all` sets all",
        several_of_a_name,
    ),
    Difference(
        "`tree_map_params`, `inject_stateful_hyperparams`",
        "there",
        "not there: the fields of a state say what is like params, and a schedule is a function of the count",
        stateful,
    ),
    Difference(
        "Leaves that a mask takes out",
        "the inner transform sees a `MaskedNode`",
        "a `Hole`, which is no leaf: maps, norms and paths pass it by",
        holes,
    ),
    Difference(
        "`inject_hyperparams`",
        "takes a factory; numbers are rounded to the dtype of the parameters (in bf16, 0.999 becomes 1)",
        "takes a transform; numbers are float64",
        injected,
    ),
    Difference(
        "`scale_by_learning_rate(None)`",
        "the identity, without the change of sign",
        "the rate must be given",
        no_rate,
    ),
    Difference(
        "`sgd` and `rmsprop` with `nesterov`, without `momentum`",
        "`nesterov` is ignored",
        "an error",
        nesterov,
    ),
    Difference(
        "A gradient whose square is infinite, beyond 1.8e19 in float32",
        "its mean of squares stays infinite: that element never moves again",
        "NaN from the next step on, which `apply_if_finite` and `monitor` see: a mean moves by a share of the distance",
        infinite_squares,
    ),
    Difference(
        "`scale_by_stddev`, `rmsprop(centered=True)`",
        "NaN where rounding makes the variance negative",
        "the variance counts as zero there",
        negative_variance,
    ),
    Difference(
        "`adaptive_grad_clip`",
        "units along the last dimension (JAX's layout), up to five dimensions, or `axis`",
        "units along the first dimension (PyTorch's layout), for any number of dimensions",
        units,
    ),
    Difference(
        "`clip_by_global_norm`",
        "no state",
        "the norm of the last step is in the state",
        norm_in_state,
    ),
    Difference(
        "`add_noise`, `noisy_sgd`",
        "the noise of a leaf depends on its position in the tree; `key` defaults to 0",
        "on its path, the step and the key alone, and not on other leaves; `key` must be given",
        noise,
    ),
    Difference(
        "`reduce_on_plateau`",
        "reduces at the `patience`-th value without an improvement; its scale has the dtype of the parameters",
        "at the one after it, as `torch.optim.lr_scheduler.ReduceLROnPlateau` does; its scale is float64",
        patience,
    ),
    Difference(
        "`reduce_on_plateau` below zero",
        "the margin of a negative best is on the wrong side of it: a constant is an improvement; so it is in torch",
        "the margin is a share of the absolute value of the best",
        below_zero,
    ),
    Difference(
        "One-cycle schedules whose boundaries meet (`pct_start=1.0`)",
        "one of two equal boundaries loses its factor, so the peak is never reached",
        "both count",
        one_cycle,
    ),
    Difference(
        "`join_schedules` with the wrong number of boundaries",
        "joins as many schedules as fit, and forgets the others",
        "an error that gives the numbers",
        joined,
    ),
    Difference(
        "`adadelta()` without a rate",
        "adds updates that have the sign of the gradient",
        "the rate is 1, as in the paper",
        no_rate_of_adadelta,
    ),
    Difference(
        "`rprop`",
        "emits the update of the step before; the first step size may be out of the limits",
        "emits that of the step itself, as `torch.optim.Rprop` does; every step size is within the limits",
        late_rprop,
    ),
    Difference(
        "`scale_by_radam` with a threshold below 4",
        "NaN: there is no root to take",
        "counts as 4",
        low_threshold,
    ),
    Difference(
        "`scale_by_adan`, `adan`",
        "looks ahead by `1 - b2`; the decay is that of `adamw`",
        "by `b2`, as in the paper and in its authors' code; the decay is the paper's: it divides by 1 + rate * decay",
        ahead,
    ),
    Difference(
        "`scale_by_acprop`, `acprop`",
        "the distance from the mean of the step before is squared",
        "that from the mean of this step, as in the paper",
        new_mean,
    ),
    Difference(
        "`scale_by_factored_rms`, `adafactor`",
        "the rate of decay is computed in float32, by a function that can be given; parts that are not kept have the "
        "shape (1,)",
        "in float64; it is the power; such parts are no leaves, and means keep the dimension as 1",
        rate_of_decay,
    ),
    Difference(
        "`step_offset`, `decay_offset` beyond the steps taken",
        "NaN",
        "the mean of squares begins anew until then",
        offset,
    ),
    Difference(
        "`scale_by_muon`, `muon`",
        "matrices are (in, out), 2-D unless `weight_dimension_numbers` says more; `adaptive`, `preconditioning`, "
        "coefficients by name",
        "matrices are (out, in), PyTorch's layout; more dimensions before them are a batch; `labels` says which "
        "leaves are matrices",
        matrices,
    ),
    Difference(
        "`scale_by_adopt`, `adopt`",
        "`clip_value_fn` is a function of the steps taken",
        "it is a number like any other, or a schedule; None for the fourth root of the steps taken",
        limit_of_adopt,
    ),
    Difference(
        "`scale_by_madgrad`, `madgrad` at a rate of zero",
        "the gradient counts with the rate `eps`",
        "it does not count, as in the authors' package",
        no_rate_of_madgrad,
    ),
    Difference(
        "`normalize` at zero gradients",
        "NaN",
        "zero",
        no_norm,
    ),
    Difference(
        "`scale_by_sm3`, `sm3`",
        "fails on () and on empty leaves, refuses complex ones, and takes no schedule for the rate; a list of vectors "
        "a leaf",
        "works with all of them; the tuple of a leaf, in `maxima`, has all its dimensions; the mean is `mean`",
        small_leaves_of_sm3,
    ),
    Difference(
        "States of `scale_by_ademamix`, `scale_by_simplified_ademamix`",
        "`mu_dtype` is the dtype of the mean of squares too; two counts; fields `t`, `m`, `n`",
        "`nu_dtype` is that of the mean of squares; one count; `count`, `mu`, `nu`",
        narrow_ademamix,
    ),
    Difference(
        "`MultiSteps`, `apply_every`",
        "a NaN stays in the sum for ever; a schedule counts steps; `MultiSteps` is no transform, takes the mean in "
        "float32 and keeps what the skipping function says, or a sum",
        "it leaves with its step; a schedule counts gradients; `accumulate` is a transform, whose mean has the dtype "
        "of the parameters or one that is given",
        gathering,
    ),
    Difference(
        "`lookahead`",
        "the parameters are a pair; the slow step is a number; the fast state may be reset",
        "the slow weights are in the state, and what `eval_params` gives; the slow step is one of any optimizer",
        pair_of_params,
    ),
    Difference(
        "`contrib.schedule_free`",
        "the rate is in the transform and given again; a schedule is read one step late; "
        "`schedule_free_eval_params(state, params)`",
        "the rate is given once, to it; a schedule is read where the step is taken, as in `schedulefree`; "
        "`eval_params` of the transform",
        rate_given_twice,
    ),
    Difference(
        "`contrib.sam`",
        "climbs by any optimizer; NaN where the gradient is zero; `opaque_mode`",
        "climbs `rho` along the gradient, or adaptively; a zero gradient leads nowhere; without a `sync_period` it "
        "takes `grad_fn`",
        climbing,
    ),
    Difference(
        "`monitor`, `snapshot`, `measure_with_ema`",
        "the state has other fields after a step; a measurement of the parameters stands in the first one",
        "one form from the start, with zeros in it; `monitor(..., decay=0.9)` keeps means",
        measured,
    ),
    Difference(
        "`flatten`",
        "leaves of several dtypes become one vector of the widest",
        "an error that names the path",
        mixed_dtypes,
    ),
    Difference(
        "`conditionally_transform`, `conditionally_mask`, `skip_not_finite`, `skip_large_updates`",
        "extra arguments may go to the condition; predicates give a pair, of which the second goes to the state",
        "`when`, with a function of the count; predicates give a bool",
        predicates,
    ),
    Difference(
        "`microbatching.micro_grad`",
        "takes the size of a part; the sum of the gradients of each example, which a function may change first",
        "takes the number of parts; the gradient of the mean over the batch, and its value",
        micro,
    ),
    Difference(
        "`scale_by_galore`",
        "projects the longer side of a matrix, and finds the projection in float32",
        "projects the shorter side, as in the paper",
        low_rank,
    ),
]


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row.name)
def test_it_is_a_difference(row):
    row.show()


def test_the_page_is_this_list():
    rows = [line.strip().strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in row] for row in rows[1:]] == [list(row[:3]) for row in DIFFERENCES]


# ---- signatures ----------------------------------------------------------------------------------------

# Where the names, order or defaults of optax's parameters are not ours; all but the first are rows above.
OTHER_SIGNATURES = {
    "add_noise": "key",
    "noisy_sgd": "key",
    "adaptive_grad_clip": "axis",
    "scale_by_learning_rate": "learning_rate",
    "stateless": "f",
    "adafactor": "dtype_momentum",  # float32 of torch
    "scale_by_factored_rms": "decay_rate_fn",
    "scale_by_adopt": "clip_value_fn",
    "adopt": "clip_value_fn",
    "scale_by_galore": "weight_dimension_numbers",
}
LACKING = {
    ("mode", "hard", True),  # of lion
    ("smooth_beta", 1.0, True),
    ("seed", None, True),
    ("nesterov", True, True),  # of nadam and nadamw, which are that
    ("adaptive", False, True),
    ("preconditioning", "frobenius", True),
    ("weight_dimension_numbers", None, True),
    ("muon_weight_dimension_numbers", None, True),
}


def parameters(function):
    return [
        (p.name, p.default, p.kind == p.KEYWORD_ONLY)
        for p in inspect.signature(function).parameters.values()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]


NAMES = [
    n
    for layer in (optfx.transforms, optfx.optimizers)
    for n in layer.__all__
    if (hasattr(optax, n) or hasattr(optax.contrib, n)) and not re.search(r"State$", n)
]


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_optaxs(name):
    """Their parameters in their order with their defaults, then ours."""
    theirs, ours = (
        [p for p in parameters(f) if p[0] != OTHER_SIGNATURES.get(name)]
        for f in (getattr(optax, name, None) or getattr(optax.contrib, name), getattr(optfx, name))
    )
    positional = [p for p in theirs if not p[2]]
    assert ours[: len(positional)] == positional
    assert {p for p in theirs if p[2]} - LACKING <= set(ours)
