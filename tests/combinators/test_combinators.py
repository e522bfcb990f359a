"""Combinators against optax in float64, and against what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import optfx
from optfx import select, tree

SHAPES = {"s": (), "b": (3,), "w": (3, 2), "k": (2, 2, 1, 2)}


def draw(seed):
    rng = np.random.default_rng(seed)
    return {k: np.asarray(rng.normal(size=s)) for k, s in SHAPES.items()}


def mine(t):
    return {k: torch.from_numpy(np.array(v)) for k, v in t.items()}


def theirs(t):
    return {k: jnp.asarray(v) for k, v in t.items()}


def labels(t):
    return {"s": "x", "b": "y", "w": "x", "k": "y"}


MASK = {"s": True, "b": False, "w": True, "k": False}

PAIRS = {
    "chain": lambda m: m.chain(m.clip_by_global_norm(1.0), m.scale_by_adam(), m.scale(-0.1)),
    "named_chain": lambda m: m.named_chain(("z", m.clip(0.5)), ("a", m.trace(0.9)), ("m", m.scale(-0.1))),
    "masked": lambda m: m.masked(m.adam(0.1), MASK),
    "masked, function": lambda m: m.masked(m.adam(0.1), lambda t: {k: k in "sw" for k in t}),
    "partition": lambda m: m.partition({"x": m.adamw(0.1), "y": m.sgd(0.2, momentum=0.9)}, labels),
    "partition, tree": lambda m: m.partition(
        {"x": m.chain(m.clip_by_global_norm(0.3), m.adam(0.1)), "y": m.set_to_zero()}, labels(0)
    ),
    "freeze": lambda m: m.chain(m.adam(0.1), m.freeze(MASK)),
    "nested": lambda m: (
        m.masked(m.masked(m.chain(m.clip(0.5), m.adam(0.1)), lambda t: {**dict.fromkeys(t, True), "s": False}), MASK)
        if m is optfx
        else m.masked(m.chain(m.clip(0.5), m.adam(0.1)), {"s": False, "b": False, "w": True, "k": False})
    ),
    "apply_if_finite": lambda m: m.apply_if_finite(m.adam(0.1), 3),
}


@pytest.mark.parametrize("name", PAIRS)
def test_thirty_steps_equal_optax(name):
    tx, other = PAIRS[name](optfx), PAIRS[name](optax)
    p, q = mine(draw(0)), theirs(draw(0))
    state, their_state = tx.init(p), other.init(q)
    for step in range(30):
        updates, state = tx.update(mine(draw(step + 1)), state, p)
        their_updates, their_state = other.update(theirs(draw(step + 1)), their_state, q)
        p, q = optfx.apply_updates(p, updates), optax.apply_updates(q, their_updates)
    for k in p:
        np.testing.assert_allclose(p[k], q[k], rtol=1e-10, atol=1e-12, err_msg=k)


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_apply_if_finite_equals_optax_through_bad_steps(limit):
    """Good, one bad, good, three bad in a row, good: the counts and the parameters are optax's."""
    tx, other = (
        optfx.apply_if_finite(optfx.sgd(0.1, momentum=0.9), limit),
        optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), limit),
    )
    p, q = mine(draw(0)), theirs(draw(0))
    state, their_state = tx.init(p), other.init(q)
    for step, bad in enumerate([0, 1, 0, 1, 1, 1, 0]):
        g = draw(step + 1)
        if bad:
            g["w"] = np.full_like(g["w"], np.nan if step % 2 else np.inf)
        updates, state = tx.update(mine(g), state, p)
        their_updates, their_state = other.update(theirs(g), their_state, q)
        assert state.notfinite_count == int(their_state.notfinite_count)
        assert state.total_notfinite == int(their_state.total_notfinite)
        assert bool(state.last_finite) == bool(their_state.last_finite)
        for k in p:
            np.testing.assert_allclose(updates[k], their_updates[k], rtol=1e-12, err_msg=f"{step} {k}")
        p, q = optfx.apply_updates(p, updates), optax.apply_updates(q, their_updates)


def test_apply_if_finite_recovers_and_keeps_the_inner_state():
    tx = optfx.apply_if_finite(optfx.adam(0.1), 5)
    p = mine(draw(0))
    clean = optfx.adam(0.1)
    state, clean_state = tx.init(p), clean.init(p)
    for step in range(4):
        bad = {**mine(draw(9)), "s": torch.tensor(float("nan"), dtype=torch.float64)}
        updates, state = tx.update(bad, state, p)
        assert all((u == 0).all() for u in updates.values())
        updates, state = tx.update(mine(draw(step)), state, p)
        expected, clean_state = clean.update(mine(draw(step)), clean_state, p)
        for k in p:
            assert torch.equal(updates[k], expected[k])
    assert state.total_notfinite == 4


def test_partition_is_separate_optimizers_on_the_parts():
    tx = optfx.partition(
        {"matrix": optfx.chain(optfx.clip_by_global_norm(0.5), optfx.adam(0.1)), "rest": optfx.sgd(0.3)},
        select.label({"matrix": select.ndim(min=2)}, default="rest"),
    )
    p, g = mine(draw(0)), mine(draw(1))
    updates, state = tx.update(g, tx.init(p), p)
    part = {k: g[k] for k in ("w", "k")}
    inner = tx.transforms["matrix"]
    alone, _ = inner.update(part, inner.init({k: p[k] for k in part}))
    for k in part:
        assert torch.equal(updates[k], alone[k])
    assert torch.equal(updates["b"], -0.3 * g["b"])
    assert tree.get(state, "norm") == tree.norm(part)
    assert set(tree.to_dict(state["matrix"][1])) == {"0.count", "0.mu.k", "0.mu.w", "0.nu.k", "0.nu.w", "1.count"}


def test_bad_labels_and_names():
    p = mine(draw(0))
    with pytest.raises(ValueError, match=r"no transform for the label z; there are \['a'\]"):
        optfx.partition({"a": optfx.sgd(0.1)}, "z").init(p)
    with pytest.raises(TypeError, match="label at 'b' is True, expected a str"):
        optfx.partition({"a": optfx.sgd(0.1)}, True).init(p)
    with pytest.raises(ValueError, match="two steps are called a"):
        optfx.named_chain(("a", optfx.sgd(0.1)), ("a", optfx.sgd(0.1)))


def test_a_frozen_parameter_stays_bit_for_bit_and_has_no_state():
    tx = optfx.chain(
        optfx.masked(optfx.adamw(0.1, weight_decay=0.5), ~select.path("w")), optfx.freeze(select.path("w"))
    )
    p = mine(draw(0))
    start, state = p["w"].clone(), tx.init(p)
    for step in range(3):
        updates, state = tx.update(mine(draw(step)), state, p)
        p = optfx.apply_updates(p, updates)
    assert torch.equal(p["w"], start)
    assert not [path for path in tree.to_dict(state) if path.endswith(".w")]


# ---- hyperparameters in the state ------------------------------------------------------------------


def test_injecting_changes_no_number_and_setting_equals_making():
    p = mine(draw(0))
    tx, plain, other = optfx.inject_hyperparams(optfx.adamw(0.1)), optfx.adamw(0.1), optfx.adamw(0.3, b1=0.8)
    state, plain_state = tx.init(p), plain.init(p)
    for step in range(3):
        updates, state = tx.update(mine(draw(step)), state, p)
        expected, plain_state = plain.update(mine(draw(step)), plain_state, p)
        for k in p:
            torch.testing.assert_close(updates[k], expected[k], rtol=1e-13, atol=1e-15)
    state = tree.set(state, learning_rate=0.3, b1=0.8)
    updates, _ = tx.update(mine(draw(5)), state, p)
    expected, _ = other.update(mine(draw(5)), plain_state, p)
    for k in p:
        torch.testing.assert_close(updates[k], expected[k], rtol=1e-13, atol=1e-15)


def test_injected_hyperparameters_are_float64_under_bfloat16_and_own_their_memory():
    rate = torch.tensor(0.1)
    tx = optfx.inject_hyperparams(optfx.adamw(rate))
    p = tree.cast(mine(draw(0)), torch.bfloat16)
    state = tx.init(p)
    assert tree.get(state, "b2").dtype == torch.float64
    assert float(tree.get(state, "b2")) == 0.999
    updates, state = tx.update(tree.zeros_like(p), state, p)
    assert tree.all_finite(updates)
    assert tree.get(state, "learning_rate").data_ptr() != rate.data_ptr()


def test_injected_schedules_and_one_graph_for_every_value(fresh_dynamo):
    tx = optfx.inject_hyperparams(optfx.sgd(optfx.warmup_cosine_decay_schedule(0.0, 0.1, 5, 20)))
    p = mine(draw(0))
    step = torch.compile(lambda g, s, p: tx.update(g, s, p), fullgraph=True, backend="aot_eager")
    state = tx.init(p)
    fresh_dynamo.clear()
    for k in range(4):
        _, state = step(mine(draw(k)), state, p)
        peaks = [path for path in tree.to_dict(state) if path.endswith(("init_value", "end_value"))]
        state = tree.set(state, {peaks[0]: 0.01 * k})
    assert fresh_dynamo["stats"]["unique_graphs"] == 1


def test_a_vmapped_state_holds_a_batch_of_hyperparameters():
    tx, p = optfx.inject_hyperparams(optfx.sgd(0.1)), mine(draw(0))
    many = {k: torch.stack([v, v]) for k, v in p.items()}
    state = tree.map(torch.Tensor.contiguous, torch.func.vmap(tx.init)(many))
    state = tree.set(state, learning_rate=torch.tensor([0.1, 0.2], dtype=torch.float64))
    updates, _ = torch.func.vmap(tx.update)(many, state, many)
    torch.testing.assert_close(updates["w"][1], -0.2 * p["w"])


def test_optax_and_optfx_agree_on_jax_arrays_made_from_torch():
    """The comparison itself is sound: the same numbers go in."""
    for k, v in mine(draw(3)).items():
        assert np.array_equal(v.numpy(), np.asarray(theirs(draw(3))[k]))
    assert jax.config.jax_enable_x64


def test_a_state_that_is_another_ones():
    p = mine(draw(0))
    tx, named = optfx.adamw(0.1), optfx.named_chain(("a", optfx.clip(1.0)), ("b", optfx.scale(1.0)))
    for wrong, words in (
        (None, "a NoneType"),
        (optfx.adam(0.1).init(p), "a tuple of 2"),
        ({"a": 1}, r"a dict of \['a'\]"),
    ):
        with pytest.raises(ValueError, match=f"chain: expected its state, a tuple of 3, got {words}"):
            tx.update(p, wrong, p)
    with pytest.raises(ValueError, match=r"named_chain: expected its state, a dict of \['a', 'b'\], got a tuple of 3"):
        named.update(p, tx.init(p), p)
