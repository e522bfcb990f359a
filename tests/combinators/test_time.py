"""Combinators in time: what each is for."""

import numpy as np
import pytest
import pytorch_optimizer
import torch

import optfx
from optfx import core, select, tree
from optfx.interop import TorchOptimizer
from tests.harness import assert_close, grads, params


def trained(tx, gradients, p=None, **extra):
    """Params after each step, and the last state."""
    p = params() if p is None else p
    state, out = tx.init(p), []
    for g in gradients:
        updates, state = tx.update(g, state, p, **extra)
        p = optfx.apply_updates(p, updates)
        out.append(p)
    return out, state


def assert_same(tx, other, gradients, rtol=1e-12):
    (mine, state), (theirs, their_state) = trained(tx, gradients), trained(other, gradients)
    assert_close(mine, theirs, rtol, 1e-14)
    return state, their_state


def spoiled(g, value=torch.nan):
    return g | {"w": torch.full_like(g["w"], value)}


GRADS = [grads(k) for k in range(6)]


# ---- accumulate --------------------------------------------------------------------------------------


def test_accumulating_is_one_step_with_the_mean():
    mean = tree.scale(1 / 3, tree.add(*GRADS[:3]))
    mine, state = trained(optfx.accumulate(optfx.adam(0.1), 3), GRADS[:3])
    theirs, their_state = trained(optfx.adam(0.1), [mean])
    assert_close(mine[1], params(), 0)
    assert_close(mine[2], theirs[0], 1e-12)
    assert_close(state.inner, their_state, 1e-12)
    assert not any(x.any() for x in tree.leaves(state.mean))


def test_larger_batches_later():
    tx = optfx.accumulate(optfx.sgd(0.1), lambda count: torch.where(count < 2, 1, 3))
    out, _ = trained(tx, GRADS[:5])
    moved = [not tree.allclose(a, b) for a, b in zip([params(), *out], out, strict=False)]
    assert moved == [True, True, False, False, True]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_skipped_leaves_no_trace(value):
    tx = optfx.accumulate(optfx.adam(0.1), 2, optfx.skip_not_finite)
    good, state = trained(tx, GRADS[:4])
    bad, other = trained(tx, [GRADS[0], spoiled(GRADS[5], value), GRADS[1], GRADS[2], spoiled(GRADS[5]), GRADS[3]])
    assert_close(bad[-1], good[-1], 0)
    assert_close(other._replace(count=state.count), state, 0)


def test_a_nan_does_not_stick():
    tx = optfx.accumulate(optfx.apply_if_finite(optfx.adam(0.1), 3), 2)
    out, _ = trained(tx, [GRADS[0], spoiled(GRADS[1]), *GRADS[2:4]])
    assert_close(out[1], params(), 0)
    assert_close(out[3], trained(tx, GRADS[2:4])[0][1], 1e-12)


def test_large_gradients_are_skipped():
    large = optfx.skip_large_updates(4.0)
    tx = optfx.accumulate(optfx.sgd(0.1), 1, large)
    out, _ = trained(tx, [{"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}], {"w": torch.zeros(1)})
    assert [round(float(p["w"]), 6) for p in out] == [-0.1, -0.1]
    assert large({"w": torch.tensor([torch.nan])}, torch.tensor(0))


def test_half_precision_gathers_in_the_dtype_that_is_asked_for():
    p = {"w": torch.zeros(1, dtype=torch.bfloat16)}
    tx = optfx.accumulate(optfx.sgd(1.0), 3, accumulator_dtype=torch.float32)
    gs = [{"w": torch.full((1,), x, dtype=torch.bfloat16)} for x in (1.0, 2.0**-8, 2.0**-8)]
    out, state = trained(tx, gs, p)
    assert state.mean["w"].dtype == torch.float32
    assert out[-1]["w"] == torch.tensor(-(1 + 2.0**-7) / 3, dtype=torch.bfloat16)


# ---- when, reset_every -------------------------------------------------------------------------------


def always(count):
    return count >= 0


def never(count):
    return count < 0


def test_when_always_is_the_transform_and_when_never_is_nothing():
    state, other = assert_same(optfx.when(always, optfx.adam(0.1)), optfx.adam(0.1), GRADS)
    assert_close(state.inner, other, 0)
    for otherwise, nothing in (("pass", optfx.identity()), ("zero", optfx.set_to_zero())):
        assert_same(optfx.when(never, optfx.adam(0.1), otherwise), nothing, GRADS)
    with pytest.raises(ValueError, match="otherwise is 'hold', expected 'pass' or 'zero'"):
        optfx.when(always, optfx.adam(0.1), "hold")


def test_what_does_not_run_leaves_no_nan():
    tx = optfx.when(never, optfx.trace(0.9), "zero")
    out, state = trained(tx, [spoiled(GRADS[0])])
    assert_close(out[0], params(), 0)
    assert tree.all_finite(state)


def test_a_reset_makes_the_first_state_again():
    inner = optfx.chain(optfx.adam(0.1), optfx.params_ema(0.9))
    out, state = trained(optfx.reset_every(inner, 4), GRADS[:4])
    assert_close(state.inner, inner.init(out[-1]), 0)
    assert int(trained(optfx.reset_every(inner, 4), GRADS[:5])[1].inner[0][0].count) == 1


# ---- lookahead, averages, another point ----------------------------------------------------------------


def test_lookahead_at_each_step_with_sgd_of_1_is_nothing():
    assert_same(optfx.lookahead(optfx.adam(0.1), 1, optfx.sgd(1.0)), optfx.adam(0.1), GRADS)


def test_the_slow_weights_are_where_the_params_start_again():
    tx = optfx.lookahead(optfx.adam(0.1), 3, optfx.sgd(0.5))
    out, state = trained(tx, GRADS[:3])
    assert_close(tx.eval_params(state, out[-1]), out[-1], 1e-12)
    out, state = trained(tx, GRADS[:5])
    assert_close(tx.eval_params(state, out[-1]), out[2], 1e-12)


def test_x_of_schedule_free_is_the_weighted_mean_of_z():
    tx = optfx.schedule_free(optfx.scale_by_rms(), 0.1, r=1.0, warmup=optfx.linear_schedule(0.2, 1.0, 4))
    p, zs, weights = params(), [], []
    state = tx.init(p)
    for t, g in enumerate(GRADS):
        updates, state = tx.update(g, state, p)
        p = optfx.apply_updates(p, updates)
        zs.append(state.z)
        weights.append((t + 1) * (0.1 * min(1.0, 0.2 + 0.2 * t)) ** 2)
    mean = tree.scale(0.0, p)
    for z, w in zip(zs, weights, strict=True):
        mean = tree.add_scale(mean, w / sum(weights), z)
    assert_close(tx.eval_params(state, p), mean, 1e-11, 1e-13)
    assert_close(p, tree.add_scale(tree.scale(0.1, state.z), 0.9, mean), 1e-11, 1e-13)


def test_the_average_stays_what_it_is_when_b1_changes():
    """As a scheduler of momentum changes it between two steps."""
    p, averages = params(), []
    state = optfx.schedule_free(optfx.identity(), 0.1).init(p)
    z = x = p
    for t, (g, b1) in enumerate(zip(GRADS, (0.9, 0.5, 0.95, 0.7, 1.0, 0.8), strict=True)):
        tx = optfx.schedule_free(optfx.identity(), 0.1, b1)
        updates, state = tx.update(g, state, p)
        p = optfx.apply_updates(p, updates)
        z = tree.add_scale(z, -0.1, g)
        x = tree.add_scale(x, 1 / (t + 1), tree.sub(z, x))
        averages.append((tx.eval_params(state, p), x))
    for mine, expected in averages:
        assert_close(mine, expected, 1e-10, 1e-12)


def test_a_rule_with_a_rate_of_its_own_is_refused():
    for inner in (optfx.sgd(0.1), optfx.chain(optfx.clip(1.0), optfx.adamw(0.1)), optfx.asgd(0.1)):
        with pytest.raises(ValueError, match="has a learning rate of its own"):
            optfx.schedule_free(inner, 0.1)
    with pytest.raises(ValueError, match=r"schedule_free\.b1 is 0, expected more than 0"):
        optfx.schedule_free(optfx.identity(), 0.1, b1=0)
    with pytest.raises(ValueError, match="after schedule_free, which is final"):
        optfx.chain(optfx.schedule_free_adamw(0.1), optfx.scale_by_learning_rate(0.1))


def test_a_rate_of_zero_at_first_moves_nothing():
    tx = optfx.schedule_free(optfx.identity(), optfx.linear_schedule(0.0, 0.1, 2))
    out, state = trained(tx, GRADS[:3])
    assert_close(out[0], params(), 0)
    assert tree.all_finite(state)
    assert not tree.allclose(out[2], params())


def test_nesterovs_point_is_ahead_of_where_the_steps_lead():
    tx = optfx.ema_nesterov(optfx.sgd(0.1), beta=0.7, gamma=0.5)
    p, state = params(), None
    state = tx.init(p)
    before = p
    for g in GRADS:
        updates, state = tx.update(g, state, p)
        led = tree.add_scale(p, -0.1, g)
        p = optfx.apply_updates(p, updates)
        assert_close(tx.eval_params(state, p), led, 1e-11, 1e-13)
        assert_close(p, tree.add_scale(led, 0.7, state.ema), 1e-11, 1e-13)
        before = led
    assert not tree.allclose(before, params())


EVALUATED = {
    "schedule_free": optfx.schedule_free_adamw(0.1),
    "gpa": optfx.gpa(optfx.adam(0.1)),
    "ema_nesterov": optfx.ema_nesterov(optfx.sgd(0.1)),
    "lookahead": optfx.lookahead(optfx.sgd(0.1), 3, optfx.sgd(0.5)),
}


@pytest.mark.parametrize("tx", EVALUATED.values(), ids=EVALUATED)
@pytest.mark.parametrize("compile", [False, True])
def test_torch_optimizer_evaluates_at_the_average_and_trains_on(tx, compile):
    start, state = params(), None
    p = {name: x.clone().requires_grad_() for name, x in tree.to_dict(start).items()}
    optimizer, q = TorchOptimizer(p.items(), tx, compile=compile), tree.to_dict(start)
    state = tx.init(q)
    for k in range(4):
        for name, g in tree.to_dict(GRADS[k]).items():
            p[name].grad = g.clone()
        optimizer.step()
        updates, state = tx.update(tree.to_dict(GRADS[k]), state, q)
        q = optfx.apply_updates(q, updates)
        optimizer.eval()
        assert_close(tree.map(torch.detach, p), tx.eval_params(state, q), 1e-12, 1e-13)
        optimizer.train()
        assert_close(tree.map(torch.detach, p), q, 1e-12, 1e-13)


def test_the_rate_that_schedulers_find_is_that_of_the_fast_optimizer():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = TorchOptimizer([w], optfx.lookahead(optfx.sgd(0.1), 2, optfx.sgd(0.5)))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    w.grad = torch.ones(2)
    optimizer.step()
    scheduler.step()
    assert {k: v for k, v in optimizer.param_groups[0].items() if "lr" in k or k == "every"} == {
        "every": 2,
        "lr": pytest.approx(0.01),
        "outer.0.lr": 0.5,
        "initial_lr": 0.1,
    }


# ---- sam ---------------------------------------------------------------------------------------------


def bowl(p):
    return {name: 2 * x * (1 + x) for name, x in p.items()}


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_with_a_function_is_that_of_another_package(adaptive):
    start = {"w": torch.tensor([[0.3, -1.0], [2.0, 0.5]], dtype=torch.float64), "b": torch.ones(3, dtype=torch.float64)}
    theirs = {name: torch.nn.Parameter(x.clone()) for name, x in start.items()}
    options = {"rho": 0.1, "adaptive": adaptive, "perturb_eps": 0.0}
    other = pytorch_optimizer.SAM(list(theirs.values()), torch.optim.SGD, lr=0.05, momentum=0.9, **options)
    tx, p = optfx.sam(optfx.sgd(0.05, 0.9), 0.1, adaptive), start
    state = tx.init(p)
    for _ in range(5):
        updates, state = tx.update(bowl(p), state, p, grad_fn=bowl)
        p = optfx.apply_updates(p, updates)
        for climb in (True, False):
            for name, g in bowl({k: x.detach() for k, x in theirs.items()}).items():
                theirs[name].grad = g
            (other.first_step if climb else other.second_step)()
        assert_close(p, {k: x.detach() for k, x in theirs.items()}, 1e-6)  # theirs takes the norm in float32


def test_alternating_sam_is_sam_with_a_function():
    start = {"w": torch.tensor([0.3, -1.0], dtype=torch.float64)}
    both, alternating = optfx.sam(optfx.adam(0.1), 0.2), optfx.sam(optfx.adam(0.1), 0.2, sync_period=2)
    p, state = start, both.init(start)
    q, other = start, alternating.init(start)
    for _ in range(3):
        updates, state = both.update(bowl(p), state, p, grad_fn=bowl)
        p = optfx.apply_updates(p, updates)
        for _ in range(2):
            at = q
            updates, other = alternating.update(bowl(q), other, q)
            q = optfx.apply_updates(q, updates)
        assert not tree.allclose(alternating.eval_params(other._replace(since=torch.tensor(1)), at), at)
        assert_close(q, p, 1e-12)
        assert_close(alternating.eval_params(other, q), q, 0)


def test_sam_says_what_it_needs():
    p = {"w": torch.ones(2)}
    tx = optfx.sam(optfx.sgd(0.1))
    with pytest.raises(ValueError, match=r"sam needs the extra argument grad_fn"):
        tx.update(p, tx.init(p), p)


# ---- flatten -----------------------------------------------------------------------------------------


def test_a_block_is_everything():
    assert_same(
        optfx.flatten(optfx.clip_by_block_rms(0.1)),
        optfx.chain(optfx.clip_by_global_norm(0.1 * np.sqrt(tree.size(params())))),
        GRADS,
    )


def test_leaves_of_two_dtypes_are_refused():
    p = {"a": torch.ones(1), "b": torch.ones(1, dtype=torch.float64)}
    with pytest.raises(TypeError, match=r"flatten: the leaf at 'b' is torch.float64, and others are torch.float32"):
        optfx.flatten(optfx.adam(0.1)).init(p)


class Sharded(torch.Tensor):
    """What tells a `DTensor`."""

    device_mesh, placements = None, ()


def test_sharded_leaves_are_refused():
    p = {"a": torch.ones(1), "b": torch.ones(1).as_subclass(Sharded)}
    with pytest.raises(TypeError, match="flatten: the leaf at 'b' is sharded"):
        optfx.flatten(optfx.adam(0.1)).init(p)


def test_a_mask_around_the_vector():
    tx = optfx.masked(optfx.flatten(optfx.adam(0.1)), select.path("b*"))
    assert core.numbers(tx).keys() == core.numbers(optfx.adam(0.1)).keys()
    _, state = trained(tx, GRADS[:2])
    assert state[0].mu.shape == (4,)


# ---- all of them in one --------------------------------------------------------------------------------


def test_wrappers_wrap_wrappers(fresh_dynamo):
    rule = optfx.reset_every(optfx.chain(optfx.scale_by_rms(), optfx.monitor({"norm": tree.norm})), 3)
    inner = optfx.lookahead(optfx.schedule_free(optfx.when(always, rule), 0.1), 2, optfx.sgd(0.5))
    tx = optfx.accumulate(optfx.apply_if_finite(inner, 3), 2, optfx.skip_not_finite)
    (out, state), p = trained(tx, GRADS), params()
    step = torch.compile(lambda g, s, p: tx.update(g, s, p), fullgraph=True, backend="aot_eager")
    compiled = tx.init(p)
    for g in GRADS:
        updates, compiled = step(g, compiled, p)
        p = optfx.apply_updates(p, updates)
    assert_close((p, compiled), (out[-1], state), 1e-10, 1e-12)
    assert fresh_dynamo["stats"]["unique_graphs"] == 1
    opt, q = optfx.fuse(tx), params()
    q, fused = opt.init(q)
    for g in GRADS:
        q, fused = opt.step(g, fused, q)
    assert_close((q, fused), (out[-1], state), 1e-10, 1e-12)
