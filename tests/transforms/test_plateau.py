"""`reduce_on_plateau` against torch's class, fed with the same values."""

import numpy as np
import pytest
import torch

import optfx

RNG = np.random.default_rng(0)
# falls, stalls, jumps, stalls below; with exact ties, and nowhere negative
CURVE = np.concatenate(
    [
        np.linspace(5, 1, 9),
        np.full(9, 1.0),
        1 + 0.01 * RNG.normal(size=12),
        np.full(6, 0.5),
        0.5 + 0.01 * RNG.normal(size=9),
    ]
)


def scales(tx, values):
    state = tx.init({"w": torch.zeros(1)})
    for value in values:
        updates, state = tx.update({"w": torch.ones(1, dtype=torch.float64)}, state, value=torch.tensor(value))
        assert updates["w"].item() == state.scale.item()
        yield state.scale.item()


def torchs(values, **options):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, eps=0.0, **options)
    for value in values:
        scheduler.step(value)
        yield optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("cooldown", [0, 3])
@pytest.mark.parametrize("patience", [0, 1, 4])
@pytest.mark.parametrize("threshold", [0.0, 0.005, 0.2])
def test_it_counts_as_torch_does(mode, threshold_mode, cooldown, patience, threshold):
    values = CURVE if mode == "min" else 6 - CURVE
    common = {"mode": mode, "factor": 0.7, "patience": patience, "cooldown": cooldown}
    ours = {"rtol": threshold, "atol": 0.0} if threshold_mode == "rel" else {"rtol": 0.0, "atol": threshold}
    mine = list(scales(optfx.reduce_on_plateau(**common, **ours, min_scale=0.05), values))
    theirs = list(torchs(values, **common, threshold_mode=threshold_mode, threshold=threshold, min_lr=0.05))
    np.testing.assert_allclose(mine, theirs, rtol=1e-14)
    assert mine[-1] < 1
    # a margin is of the absolute value, so that falling below zero is what rising above it is
    below = optfx.reduce_on_plateau(**common | {"mode": {"min": "max", "max": "min"}[mode]}, **ours, min_scale=0.05)
    np.testing.assert_allclose(list(scales(below, -values)), theirs, rtol=1e-14)


@pytest.mark.parametrize("batches", [1, 2, 7, torch.tensor(3.0)])
@pytest.mark.parametrize("options", [{"patience": 0}, {"patience": 2, "cooldown": 1}])
def test_a_value_that_holds_for_an_epoch_is_judged_once(options, batches):
    """As written in a loop: each epoch trains with the loss of the validation before it, and the first with none."""
    n = int(batches)
    fed = np.repeat([float("nan"), *CURVE], n) if n > 1 else CURVE
    mine = list(scales(optfx.reduce_on_plateau(0.7, **options, batches=batches), fed))[n if n > 1 else 0 :]
    theirs = list(torchs(CURVE, factor=0.7, **options))
    np.testing.assert_allclose(mine, np.repeat(theirs, n), rtol=1e-14)
    assert mine[-1] < 1


def test_means_of_values_that_hold_for_an_epoch():
    fed = np.repeat([float("nan"), *CURVE], 4)
    mine = list(scales(optfx.reduce_on_plateau(0.5, patience=0, accumulation_size=3, batches=4), fed))
    np.testing.assert_allclose(mine[4 * 3 :: 4 * 3], list(torchs(CURVE.reshape(-1, 3).mean(1), factor=0.5, patience=0)))


def test_epochs_of_a_fraction_more_begin_on_time():
    """Of two and a half steps: the third, the fifth, the eighth are the first after an epoch."""
    tx = optfx.reduce_on_plateau(0.5, patience=0, batches=2.5)
    assert list(scales(tx, [1.0] * 10)) == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_hyperparams_show_the_scale_in_force():
    tx = optfx.chain(optfx.sgd(0.5), optfx.reduce_on_plateau(0.5, patience=0))
    state = tx.init({"w": torch.zeros(1)})
    for value in [1.0, 1.0, 1.0]:
        updates, state = tx.update({"w": torch.ones(1)}, state, value=value)
    now = optfx.hyperparams(tx, state)
    assert now["0.0.learning_rate"] * now["1.scale"] == 0.125
    assert updates["w"].item() == -0.125
    assert "1.scale" not in optfx.core.numbers(tx)


def test_a_constant_below_zero_is_a_plateau():
    mine = list(scales(optfx.reduce_on_plateau(0.5, patience=2), [-1.0] * 8))
    assert mine == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert list(torchs([-1.0] * 8, factor=0.5, patience=2)) == [1] * 8


def test_the_defaults_are_torchs():
    values = [1.0] * 40
    np.testing.assert_allclose(list(scales(optfx.reduce_on_plateau(), values)), list(torchs(values)), rtol=1e-14)


def test_means_are_judged_as_torch_judges_them():
    tx = optfx.reduce_on_plateau(0.5, patience=1, accumulation_size=5)
    mine = list(scales(tx, CURVE))
    theirs = list(torchs(CURVE.reshape(-1, 5).mean(1), factor=0.5, patience=1))
    np.testing.assert_allclose(mine[4::5], theirs, rtol=1e-14)
    assert mine[-1] < 1


def test_a_nan_is_no_improvement_and_is_forgotten():
    values = [1.0, float("nan"), 0.5, 0.4, float("nan"), float("nan")]
    mine = list(scales(optfx.reduce_on_plateau(0.5, patience=1), values))
    assert mine == list(torchs(values, factor=0.5, patience=1)) == [1, 1, 1, 1, 1, 0.5]


def test_a_missing_value_is_an_error_that_names_the_transform():
    tx = optfx.chain(optfx.sgd(0.1), optfx.reduce_on_plateau())
    params = {"w": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"reduce_on_plateau needs the extra argument value .the loss.*value=..."):
        tx.update(params, tx.init(params), params)


def test_a_misshapen_value_and_an_unknown_mode_are_errors():
    tx, params = optfx.reduce_on_plateau(), {"w": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"reduce_on_plateau: value has the shape \(2,\)"):
        tx.update(params, tx.init(params), params, value=torch.zeros(2))
    with pytest.raises(ValueError, match="'least', expected 'min' or 'max'"):
        optfx.reduce_on_plateau(mode="least")
    with pytest.raises(ValueError, match="batches is 0, expected at least 1"):
        optfx.reduce_on_plateau(batches=0)


def test_a_value_with_a_graph_leaves_none_in_the_state():
    tx, w = optfx.reduce_on_plateau(), torch.ones(1, requires_grad=True)
    _, state = tx.update({"w": torch.ones(1)}, tx.init({"w": torch.ones(1)}), value=(w * w).sum())
    assert not any(x.requires_grad for x in optfx.tree.leaves(state))
    assert state.best_value == 1


def test_patience_and_the_rest_may_be_swept():
    names = ("factor", "patience", "cooldown", "accumulation_size", "min_scale")
    settings = [(0.5, 0, 0, 1, 0.0), (0.7, 2, 1, 3, 0.6), (0.9, 1, 0, 5, 0.1)]
    batch = {name: torch.tensor(column) for name, column in zip(names, zip(*settings, strict=True), strict=True)}

    def last(options):
        tx = optfx.reduce_on_plateau(**options)
        state = tx.init({"w": torch.zeros(1)})
        for value in CURVE:
            _, state = tx.update({"w": torch.ones(1)}, state, value=value)
        return state.scale

    expected = [list(scales(optfx.reduce_on_plateau(*s[:2], 1e-4, 0.0, *s[2:]), CURVE))[-1] for s in settings]
    np.testing.assert_allclose(torch.func.vmap(last)(batch), expected, rtol=1e-6)
    assert len(set(expected)) == 3


def test_the_scale_differentiates_by_the_factor():
    def scale(factor):
        tx = optfx.reduce_on_plateau(factor, patience=0)
        state = tx.init({"w": torch.zeros(1)})
        for value in (1.0, 1.0, 1.0):
            updates, state = tx.update({"w": torch.ones(1, dtype=torch.float64)}, state, value=value)
        return updates["w"].sum()

    factor = torch.tensor(0.3, dtype=torch.float64)
    torch.testing.assert_close(torch.func.grad(scale)(factor), 2 * factor)
