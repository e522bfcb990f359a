"""What AdEMAMix, ADOPT, Grams and MADGRAD are for, each in a property."""

import math

import pytest
import torch

import optfx
from optfx import schedules, tree

F64 = torch.float64


def gradients(steps, *shape):
    return [{"w": torch.randn(*shape, dtype=F64)} for _ in range(steps)]


def train(tx, gs, p=None):
    p = tree.zeros_like(gs[0]) if p is None else p
    state, out = tx.init(p), []
    for g in gs:
        updates, state = tx.update(g, state, p)
        p = optfx.apply_updates(p, updates)
        out.append(updates["w"])
    return out, state


def test_the_slow_mean_has_forgotten_half_after_its_half_life():
    tx = optfx.scale_by_ademamix(b1=0.5, b3=0.5 ** (1 / 100))
    one, nothing = {"w": torch.ones(1, dtype=F64)}, {"w": torch.zeros(1, dtype=F64)}
    _, first = train(tx, [one])
    _, later = train(tx, [one] + [nothing] * 100)
    torch.testing.assert_close(later.m2["w"], first.m2["w"] / 2)
    assert later.m1["w"] < 1e-20


def test_the_half_life_is_a_straight_line_and_the_papers():
    start, end, steps = 0.9, 0.9999, 1000
    schedule = schedules.half_life_schedule(start, end, steps)
    half_life = [math.log(0.5) / math.log(schedule(t)) for t in range(0, steps + 1, 50)]
    differences = torch.tensor(half_life, dtype=F64).diff()
    torch.testing.assert_close(differences, differences[:1].expand(20), rtol=1e-8, atol=0)
    a, b = math.log(start), math.log(end)
    for t in (0, 1, 499, 500, 999, 1000, 5000):
        paper = math.exp(a * b / ((1 - t / steps) * b + t / steps * a)) if t < steps else end
        assert schedule(t).item() == pytest.approx(min(paper, end), rel=1e-14)
    assert schedule(500).item() == pytest.approx(0.9998, abs=1e-6)  # near the end in half the time: 3469 of 6931 steps
    for bad in (0.0, 1.0):
        with pytest.raises(ValueError, match="half_life_schedule: end_value must be"):
            schedules.half_life_schedule(0.9, bad, 10)


def test_without_a_mix_simplified_ademamix_is_adam_with_a_sum_for_a_mean():
    gs = gradients(5, 3)
    ours, _ = train(optfx.scale_by_simplified_ademamix(0.9, 0.99), gs)
    adam, _ = train(optfx.scale_by_adam(0.9, 0.99), gs)
    for t, (a, b) in enumerate(zip(ours, adam, strict=True), 1):
        torch.testing.assert_close(a, b * (1 - 0.9**t) / (1 - 0.9))


def test_the_first_step_of_adopt_is_silent_and_an_outlier_is_clipped():
    gs = gradients(4, 3)
    gs[3] = {"w": torch.tensor([1e9, -1e9, 0.0], dtype=F64)}
    (first, *_, before, last), _ = train(optfx.scale_by_adopt(b1=0.75), gs)
    assert torch.equal(first, torch.zeros(3, dtype=F64))
    torch.testing.assert_close(last, 0.75 * before + 0.25 * torch.tensor([1.0, -1.0, 0.0], dtype=F64) * 3**0.25)


def test_the_mean_of_squares_of_adopt_does_not_know_the_gradient():
    """So the expectation of its update is the gradient, over something: it is linear in the gradient."""
    gs = gradients(3, 3)
    tx = optfx.scale_by_adopt(b1=0.0, use_clipping=False)
    twice = [*gs[:2], tree.scale(2.0, gs[2])]
    torch.testing.assert_close(train(tx, twice)[0][2], 2 * train(tx, gs)[0][2])


def test_grams_goes_with_the_gradient_as_far_as_adam_does():
    gs = gradients(10, 20)
    gs[9]["w"][0] = 0.0
    ours, _ = train(optfx.chain(optfx.scale_by_adam(), optfx.take_sign_of_grad()), gs)
    adam, _ = train(optfx.scale_by_adam(), gs)
    assert any((a.sign() != b.sign()).any() for a, b in zip(ours, adam, strict=True))
    for u, a, g in zip(ours, adam, gs, strict=True):
        assert torch.equal(u.sign(), g["w"].sign())
        assert torch.equal(u.abs(), torch.where(g["w"] == 0, 0.0, a.abs()))


def test_the_gradient_is_needed_and_handed_on_by_a_chain():
    tx, g = optfx.take_sign_of_grad(), {"w": torch.tensor([1.0, -1.0])}
    with pytest.raises(ValueError, match="take_sign_of_grad needs the extra argument grad"):
        tx.update(g, tx.init(g))
    assert tx.update({"w": torch.tensor([-3.0, -2.0])}, tx.init(g), grad=g)[0]["w"].tolist() == [3.0, -2.0]
    nan = {"w": torch.tensor([torch.nan, 1.0])}
    assert tx.update(g, tx.init(g), grad=nan)[0]["w"].isnan().tolist() == [True, False]


def test_madgrad_without_momentum_goes_where_x0_and_the_gradients_say_from_anywhere():
    gs, p = gradients(3, 4), {"w": torch.randn(4, dtype=F64)}
    tx = optfx.scale_by_madgrad(0.1, momentum=0.0)
    _, state = train(tx, gs[:2], p)
    reached = [optfx.apply_updates(q, tx.update(gs[2], state, q)[0])["w"] for q in (p, tree.scale(-5.0, p))]
    torch.testing.assert_close(*reached)
    assert torch.equal(state.x0["w"], p["w"])


def test_gradients_do_not_count_while_the_rate_of_madgrad_is_zero():
    gs = gradients(4, 3)
    rate = lambda count: torch.where(count < 3, 0.0, 0.1)
    updates, state = train(optfx.scale_by_madgrad(rate), gs)
    assert not any(u.any() for u in updates[:3])
    torch.testing.assert_close(state.s["w"], (0.1 + 1e-6) * 2 * gs[3]["w"])
