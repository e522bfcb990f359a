"""What the modifiers are for, each as one property."""

import pytest
import torch
from torch.nn import functional as F

import optfx
from optfx import tree


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


START = {"w": draw(4, 3), "b": draw(3, seed=1)}


def walk(tx, steps=20, params=START, **extra):
    """Gradient, parameters and updates of each step."""
    state = tx.init(params)
    for t in range(steps):
        grads = tree.map(lambda p, t=t: draw(*p.shape, dtype=p.dtype, seed=100 + t), params)
        updates, state = tx.update(grads, state, params, **extra)
        yield grads, params, updates
        params = optfx.apply_updates(params, updates)


def norms(t):
    return torch.stack([x.norm() for x in tree.leaves(t)])


# ---- caution, and kinds of decay -----------------------------------------------------------------------


def test_a_cautious_step_never_goes_against_the_gradient():
    tx = optfx.chain(optfx.trace(0.9), optfx.cautious())
    for grads, _, updates in walk(tx):
        for u, g in zip(tree.leaves(updates), tree.leaves(grads), strict=True):
            assert (u * g >= 0).all()
            assert (u * g).sum() > 0


def test_a_nan_is_not_dropped_by_caution():
    g = torch.tensor([1.0, 1.0])
    tx = optfx.cautious()
    for u, grad in ((torch.tensor([torch.nan, 1.0]), g), (g, torch.tensor([torch.nan, 1.0]))):
        assert tx.update(u, tx.init(g), g, grad=grad)[0].isnan().any() == u.isnan().any()


def test_a_cautious_decay_never_turns_an_update():
    plain, strong = optfx.scale_by_adam(), optfx.chain(optfx.scale_by_adam(), optfx.cautious_weight_decay(5.0))
    u, v = (next(walk(tx))[2]["w"] for tx in (strong, plain))
    assert torch.equal(u.sign(), v.sign())
    assert (u == v).any()
    assert (u != v).any()


def test_huber_is_l2_near_zero_and_l1_far_from_it():
    zeros = tree.zeros_like(START)

    def pull(tx):
        return tx.update(zeros, tx.init(START), START)[0]

    torch.testing.assert_close(pull(optfx.huber_weight_decay(0.1, 1e3)), pull(optfx.add_decayed_weights(0.1)))
    torch.testing.assert_close(pull(optfx.huber_weight_decay(0.1 / 1e-9, 1e-9)), pull(optfx.l1_weight_decay(0.1)))


def test_an_anchor_at_the_start_is_where_parameters_go_back_to():
    tx = optfx.chain(optfx.anchored(optfx.add_decayed_weights(0.5)), optfx.scale_by_learning_rate(1.0))
    state, params = tx.init(START), tree.add(START, tree.ones_like(START))
    for _ in range(60):
        updates, state = tx.update(tree.zeros_like(START), state, params)
        params = optfx.apply_updates(params, updates)
    torch.testing.assert_close(params, START)
    torch.testing.assert_close(state[0].anchor, START, rtol=0, atol=0)


def test_a_mask_says_what_decays():
    mask = optfx.select.ndim(min=2)
    for tx in (
        optfx.cautious_weight_decay(0.1, mask),
        optfx.l1_weight_decay(0.1, mask),
        optfx.huber_weight_decay(0.1, 1.0, mask),
        optfx.proximal_weight_decay(1.0, 0.1, mask=mask),
    ):
        updates = tx.update(tree.zeros_like(START), tx.init(START), START)[0]
        assert updates["w"].any()
        assert not updates["b"].any()
        with pytest.raises(ValueError, match="'b'"):
            tree.replace(tx, mask={"w": True}).update(START, tx.init(START), START)


# ---- gradients -------------------------------------------------------------------------------------------


def test_an_orthogonal_gradient_is_orthogonal_and_as_long():
    for grads, params, updates in walk(optfx.chain(optfx.orthograd(), optfx.scale(0.1))):
        for g, p, u in zip(*map(tree.leaves, (grads, params, updates)), strict=True):
            assert abs((u * p).sum()) < 1e-12 * u.norm() * p.norm()
            torch.testing.assert_close(u.norm(), 0.1 * g.norm())


def test_what_is_left_of_a_gradient_along_the_parameter_is_nothing():
    for p in (torch.tensor(3.0), torch.tensor([0.1, 0.7]), torch.zeros(2)):
        u = optfx.orthograd().update(1.7 * p, (), p)[0]
        assert not u.any()


def test_a_steady_gradient_comes_through_mars_as_it_is():
    tx, g = optfx.mars(max_norm=None), {"w": torch.ones(2)}
    state = tx.init(g)
    for _ in range(2):
        updates, state = tx.update(g, state)
    assert torch.equal(updates["w"], g["w"])


def test_a_spike_is_cut_and_does_not_make_room_for_the_next():
    tx, g = optfx.clip_spikes(4.0, 0.9, start=5), torch.ones(1)
    state = tx.init(g)
    for _ in range(50):
        updates, state = tx.update(g, state)
        assert torch.equal(updates, g)
    for _ in range(3):
        updates, state = tx.update(-1e6 * g, state)
        assert -10 < updates < -1


# ---- lengths ---------------------------------------------------------------------------------------------


def test_on_the_hyperball_every_norm_stays():
    for _, params, updates in walk(optfx.chain(optfx.scale_by_adam(), optfx.hyperball(0.3))):
        torch.testing.assert_close(norms(optfx.apply_updates(params, updates)), norms(START))
        assert (norms(updates) > 0.01 * norms(START)).all()


def test_kept_norms_stay_whatever_is_before():
    for _, params, updates in walk(optfx.chain(optfx.adamw(0.3), optfx.keep_norm())):
        torch.testing.assert_close(norms(optfx.apply_updates(params, updates)), norms(START))


def test_a_hyperball_is_steps_of_one_length_and_kept_norms():
    length = optfx.chain(optfx.relative_update(), optfx.sgd(0.1), optfx.keep_norm())
    for (*_, u), (*_, v) in zip(walk(length), walk(optfx.hyperball(0.1)), strict=True):
        torch.testing.assert_close(u, v)


def test_a_given_radius_is_reached_in_a_step():
    for _, params, updates in walk(optfx.hyperball(0.3, 7.0)):
        torch.testing.assert_close(
            norms(optfx.apply_updates(params, updates)), torch.full((2,), 7.0, dtype=torch.float64)
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_the_hyperball_does_not_drift_for_the_rounding_of_a_narrow_dtype(dtype):
    start = {"w": draw(16, 16, dtype=dtype)}
    *_, (_, params, _) = walk(optfx.hyperball(0.1), 100, start)
    lengths = [x["w"].to(torch.complex128).norm() for x in (params, start)]
    assert abs(lengths[0] / lengths[1] - 1) < 5e-3


def test_parameters_stay_nonnegative():
    start = tree.map(torch.abs, START)
    for _, params, updates in walk(optfx.chain(optfx.adam(0.5), optfx.keep_params_nonnegative()), params=start):
        new = optfx.apply_updates(params, updates)
        assert all((x >= 0).all() for x in tree.leaves(new))
    assert any((x == 0).any() for x in tree.leaves(new))


def test_a_relative_update_is_a_share_of_the_parameter():
    for _, params, updates in walk(optfx.chain(optfx.scale_by_adam(), optfx.relative_update(), optfx.scale(-0.1))):
        torch.testing.assert_close(norms(updates), 0.1 * norms(params))


def test_a_floor_lifts_only_what_is_below_it():
    small, large = tree.scale(0.01, START), tree.scale(3.0, START)
    for tx in (optfx.relative_update(0.35, None), optfx.relative_update(0.35, None, per_unit=True)):
        torch.testing.assert_close(tx.update(small, tx.init(START), START)[0], tree.scale(0.35, START))
        torch.testing.assert_close(tx.update(large, tx.init(START), START)[0], large)


def test_the_brake_takes_half_of_the_growth():
    tx = optfx.radial_brake()
    for grads, params, updates in walk(tx):
        free, braked = (norms(optfx.apply_updates(params, u)) - norms(params) for u in (grads, updates))
        torch.testing.assert_close(braked, torch.where(free > 0, 0.5 * free, free))
        turned = [F.cosine_similarity(x.flatten(), y.flatten(), 0) for x, y in pairs(params, grads, updates)]
        torch.testing.assert_close(torch.stack(turned), torch.ones(2, dtype=torch.float64))


def pairs(params, grads, updates):
    return zip(
        tree.leaves(optfx.apply_updates(params, grads)), tree.leaves(optfx.apply_updates(params, updates)), strict=True
    )


# ---- attention -------------------------------------------------------------------------------------------


def largest_logits(params, x, heads):
    q, k = (F.linear(x, params[name]).unflatten(-1, (heads, -1)) for name in ("q", "k"))
    return torch.einsum("ihd,jhd->hij", q, k).flatten(1).amax(1)


def test_clipped_heads_have_the_largest_logits_that_are_let_be():
    x, heads = draw(10, 6), 4
    params = {name: draw(8, 6, seed=i) for i, name in enumerate("qkv")}
    before = largest_logits(params, x, heads)
    tau = float(before.median())
    tx = optfx.masked(optfx.qk_clip(tau), optfx.select.path("q") | optfx.select.path("k"))
    zeros = tree.zeros_like(params)
    for logits in (before, {"q": before, "k": before, "v": before}):
        new = optfx.apply_updates(params, tx.update(zeros, tx.init(params), params, max_logits=logits)[0])
        torch.testing.assert_close(largest_logits(new, x, heads), before.clamp(max=tau))
        assert torch.equal(new["v"], params["v"])


def test_heads_that_a_weight_does_not_have_are_an_error_that_names_it():
    tx, params = optfx.qk_clip(), {"q": torch.zeros(6, 2)}
    with pytest.raises(ValueError, match=r"'q' of shape \(6, 2\) has 4 heads"):
        tx.update(params, tx.init(params), params, max_logits=torch.ones(4))
    with pytest.raises(ValueError, match="qk_clip needs the extra argument max_logits"):
        tx.update(params, tx.init(params), params)
