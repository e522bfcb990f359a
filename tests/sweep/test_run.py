"""Rungs, policies and looks: who goes on, as what, and what is remembered of it."""

import dataclasses
import sys

import pytest
import torch

from optfx import sweep, tree
from tests.sweep.small import SPACE, batches, configs, evaluate, init, loss_fn, make_optimizer, same, trainer


@pytest.fixture(scope="module")
def ours():
    return trainer()


@pytest.fixture(scope="module")
def start(ours):
    return ours.start(configs(16))


INF = float("inf")
VALUES = torch.tensor([0.5, 0.1, INF, 0.3, 0.2, 0.9, INF, 0.4], dtype=torch.float64)
KEY = torch.tensor([0, 7])


def judged(start, values=VALUES):
    """Eight members that were just judged."""
    return tree.replace(start[: len(values)], best=values, best_age=torch.zeros(len(values), dtype=torch.int64))


def test_halve(start):
    assert sweep.halve(4)(judged(start), VALUES, KEY).member.tolist() == [1, 4]
    assert sweep.halve(3)(judged(start), VALUES, KEY).member.tolist() == [1, 4]
    assert sweep.halve(100)(judged(start), VALUES, KEY).member.tolist() == [1]
    with pytest.raises(ValueError, match="eta is above 1, got 1"):
        sweep.halve(1)


def test_stops(start):
    assert sweep.stop_diverged()(judged(start), VALUES, KEY).member.tolist() == [0, 1, 3, 4, 5, 7]
    assert sweep.stop_worse_than_median()(judged(start), VALUES, KEY).member.tolist() == [1, 3, 4, 7]
    older = tree.replace(judged(start), age=torch.tensor([9, 9, 9, 9, 2, 9, 9, 9]), best_age=torch.tensor([6, 1] * 4))
    assert sweep.stop_stalled(5)(older, VALUES, KEY).member.tolist() == [0, 4]


def test_exploit(start):
    space = SPACE | {"b1": sweep.choice((0.5, 0.7, 0.9))}
    population = tree.replace(judged(start), configs={"rate": torch.full((8,), 0.5), "b1": torch.full((8,), 0.7)})
    found = sweep.exploit(space)(population, VALUES, KEY)
    assert found.member.tolist() == [0, 1, 1, 3, 4, 5, 4, 7]
    assert same(found.params, tree.map(lambda x: x[[0, 1, 1, 3, 4, 5, 4, 7]], population.params))
    copied = torch.tensor([2, 6])
    assert all(x in (0.4, 0.6) for x in found.configs["rate"][copied].double().mul(10).round().div(10).tolist())
    assert set(found.configs["b1"][copied].tolist()) <= {torch.tensor(0.5).item(), torch.tensor(0.9).item()}
    rest = [0, 1, 3, 4, 5, 7]
    assert same(found[rest].configs, population[rest].configs)
    assert same(sweep.exploit(space)(population, VALUES, KEY), found)
    high = tree.replace(population, configs=population.configs | {"rate": torch.full((8,), 1.0)})
    assert sweep.exploit(space, fraction=0.5, factors=(2.0, 3.0))(high, VALUES, KEY).configs["rate"].max() == 1
    drawn = sweep.exploit(SPACE, fraction=0.5, resample=1.0)(population, VALUES, KEY).configs["rate"]
    assert len(drawn.unique()) == 5
    with pytest.raises(ValueError, match="'decay' is no setting of 'rate', 'b1'"):
        sweep.exploit({"decay": sweep.uniform(0, 1)})(population, VALUES, KEY)
    with pytest.raises(ValueError, match=r"fraction is above 0 and at most 0\.5"):
        sweep.exploit(SPACE, fraction=0.6)


def test_halving_keeps_the_best_of_each_rung(ours, start):
    result = ours.run(start, rungs=[3, 9, 27], policy=sweep.halve(4), progress=False)
    at_3 = ours.evaluate(ours.train(start, 3)[0])["val_loss"]
    first = at_3.argsort()[:4].sort().values
    at_9 = ours.evaluate(ours.train(start, 9)[0])["val_loss"]
    second = first[at_9[first].argsort()[:1]]
    assert result.age.tolist() == [27 if i in second else 9 if i in first else 3 for i in range(16)]
    assert same(result.population[second].params, ours.train(start[second], 27)[0].params)
    assert result.ranking()[0] == second.item()
    assert result.ranking()[1:4] == [i for i in at_9.argsort().tolist() if i in first and i not in second]
    assert torch.equal(result.metrics["val_loss"][result.age == 3], at_3[result.age == 3])
    assert result.history.steps.tolist() == [3, 9, 27]
    assert (result.history.parent[0] >= 0).nonzero().flatten().tolist() == first.tolist()
    assert result.history.parent[-1].max() == second
    assert torch.equal(result.history.metrics["val_loss"][0], at_3.double())
    assert result.history.values[1].isfinite().sum() == 4
    assert result.losses[3:, result.age == 3].isnan().all()
    assert result.outcomes["train_loss"].isfinite().all()
    assert "15 stopped before" in repr(result)
    assert result.table(2).splitlines()[0].split()[-1] == "age"
    assert result.to_pandas()["age"].tolist() == result.age.tolist()


def test_who_was_stopped_may_go_on(ours, start):
    result = ours.run(start, rungs=[3, 9], policy=sweep.halve(4), progress=False)
    again, _ = ours.train(result.population[result.age == 3], 6)
    assert same(again.params, ours.train(start, 9)[0][result.age == 3].params)


def test_the_history_tells_who_was_copied_from_whom(ours, start):
    copies = []

    def policy(population, values, key):
        found = sweep.exploit(SPACE)(population, values, key)
        copies.append([found.member.tolist(), found.configs])
        return found

    result = ours.run(start, 12, every=4, policy=policy, progress=False)
    assert len(copies) == 2  # nothing is changed after the last judgement
    assert result.history.parent.tolist() == [copies[0][0], copies[1][0], list(range(16))]
    assert result.population.member.tolist() == list(range(16))
    assert torch.equal(result.history.configs["rate"][0], start.configs["rate"])
    assert torch.equal(result.history.configs["rate"][2], copies[1][1]["rate"])
    assert torch.equal(result.configs["rate"], copies[1][1]["rate"])
    # the same by hand
    population = start
    for step in (4, 8):
        population, _ = ours.train(population, 4)
        values = ours.evaluate(population)["val_loss"].double()
        from optfx import random

        key = random.fold_in(random.fold_in(random.key(0), -3), step)
        population = sweep.exploit(SPACE)(population, values, key)
    assert same(ours.train(population, 4)[0].params, result.population.params)


def test_a_copy_takes_the_place_of_one_that_is_gone(ours, start):
    def shuffled(population, values, key):
        return population[[5, 2, 2, 7, 5, 5]]  # in another order, and fewer

    result = ours.run(start, 4, rungs=[2], policy=shuffled, progress=False)
    parent = result.history.parent[0]
    assert parent[[2, 5, 7]].tolist() == [2, 5, 7]
    assert sorted(parent[parent >= 0].tolist()) == [2, 2, 5, 5, 5, 7]
    assert (result.age == 4).sum() == 6
    for i in (parent >= 0).nonzero().flatten().tolist():
        assert same(result.population[i].params, ours.train(start[int(parent[i])], 4)[0].params)


def test_looks(ours, start):
    seen = []
    result = ours.run(start, 10, every=4, callback=seen.append, progress=False)
    assert [look.step for look in seen] == [4, 8, 10]
    assert result.history.steps.tolist() == [4, 8, 10]
    for look in seen:  # the population of a look stays as it was
        population, _ = ours.train(start, look.step)
        assert same(look.population.params, population.params)
        assert same(look.metrics, ours.evaluate(population))
        assert torch.equal(look.values, look.metrics["val_loss"].double())
        assert look.best == int(look.values.argmin())
    assert same(result.params, ours.train(start, 10)[0].params)
    assert torch.equal(result.population.best, torch.stack([look.values for look in seen]).min(0).values)
    assert torch.equal(result.history.metrics["val_loss"], torch.stack([x.metrics["val_loss"] for x in seen]).double())


def test_who_has_passed_a_rung_is_not_judged_there_again(ours, start):
    half = ours.run(start, rungs=[2, 4], policy=sweep.halve(4), progress=False)
    best = half.population[half.ranking()[:3]]
    rest = ours.run(best, rungs=[2, 4, 8], policy=sweep.halve(4), progress=False)
    assert rest.history.steps.tolist() == [4, 8] or rest.history.steps.tolist() == [8]


def test_everybody_may_be_stopped(ours, start):
    nobody = lambda population, values, key: population[[]]
    result = ours.run(start, 10, rungs=[3], policy=nobody, progress=False)
    assert result.age.tolist() == [3] * 16
    assert result.losses.shape == (3, 16)
    assert result.best().index == int(result.metrics["val_loss"].argmin())


def test_members_that_diverge_are_inf_and_free_their_lanes(ours):
    population = ours.start({"rate": [0.01, 1e30, 0.02], "b1": 0.9})
    result = ours.run(population, 12, every=4, policy=sweep.stop_diverged(), progress=False)
    assert result.age.tolist() == [12, 4, 12]
    assert result.history.values[0].isinf().tolist() == [False, True, False]
    assert result.diverged.tolist() == [False, True, False]


def test_without_metrics_the_training_loss_decides(start):
    ours = trainer(evaluate=None)
    result = ours.run(start, rungs=[20, 40], policy=sweep.halve(4), progress=False)
    losses = ours.train(start, 20)[1][-2:].mean(0)
    assert (result.age == 40).nonzero().flatten().tolist() == losses.argsort()[:4].sort().values.tolist()


def test_more_is_better(start):
    up = lambda params: {"loss": evaluate(params)["val_loss"], "accuracy": -evaluate(params)["val_loss"]}
    ours = trainer(evaluate=up, metric="accuracy")
    result = ours.run(start, rungs=[3, 6], policy=sweep.halve(4), progress=False)
    down = trainer().run(start, rungs=[3, 6], policy=sweep.halve(4), progress=False)
    assert result.age.tolist() == down.age.tolist()
    assert result.judge()[::2] == ("accuracy", "max")
    assert result.best().index == down.best().index


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (lambda population, values, key: values, "a policy returns a population of at most as many .* got Tensor"),
        (lambda population, values, key: population[[0] * 17], "got 17 members of 16"),
    ],
)
def test_what_is_no_policy_is_said_and_nothing_is_lost(ours, start, policy, words):
    with pytest.raises(ValueError, match=words) as error:
        ours.run(start, 6, rungs=[3], policy=policy, progress=False)
    assert same(error.value.population.params, ours.train(start, 3)[0].params)


@pytest.mark.parametrize("where", ["evaluate", "callback"])
def test_an_error_at_a_look_loses_nothing(start, where):
    calls = []

    def failing(*_):
        calls.append(None)
        if len(calls) > 3:  # the functions are tried twice before training
            raise OSError("no space")
        return {"val_loss": torch.zeros(())}

    ours = trainer(evaluate=failing if where == "evaluate" else evaluate)
    callback = (lambda look: failing() if look.step > 9 else None) if where == "callback" else None
    calls += [None] * 3 * (where == "callback")
    with pytest.raises(OSError, match="no space") as error:
        ours.run(start, 12, every=4, callback=callback, progress=False)
    assert "attribute `population`" in error.value.__notes__[0]
    steps = int(error.value.population.age[0])
    assert steps in (4, 8, 12)
    assert same(error.value.population.params, ours.train(start, steps)[0].params)


def test_the_bar_shows_the_best_metric(ours, start, capsys, monkeypatch):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True, raising=False)
    result = ours.run(start, rungs=[3, 6, 9], policy=sweep.halve(4))
    shown = capsys.readouterr().err
    assert "9/9" in shown
    assert "val_loss" in shown
    assert result.age.max() == 9


def test_results_join_index_and_filter(ours, start):
    whole = ours.run(start, 8, every=4, progress=False)
    first, second = (ours.run(start[part], 8, every=4, progress=False) for part in (slice(0, 5), slice(5, 16)))
    joined = sweep.join([second, first])
    assert joined.member.tolist() == [*range(5, 16), *range(5)]
    ordered = joined[joined.member.argsort()]
    for name in ("configs", "losses", "metrics", "params", "diverged", "population", "history"):
        assert same(getattr(ordered, name), getattr(whole, name)), name
    good = joined[joined.metrics["val_loss"] < joined.metrics["val_loss"].median()]
    assert len(good) == 7
    assert good.best().metrics == joined.best().metrics
    assert good.member[good.best().index] == joined.member[joined.best().index]
    assert good.table(1).split()[-6:] == joined.table(1).split()[-6:]
    assert same(good.population, joined.population[joined.metrics["val_loss"] < joined.metrics["val_loss"].median()])


def test_results_of_different_sweeps_join(ours, start):
    short = sweep.fit(make_optimizer, configs(3), loss_fn, init, batches, steps=4, progress=False)
    long = ours.run(start, 9, rungs=[3], policy=sweep.halve(4), progress=False)
    with pytest.raises(ValueError, match="judged differently"):
        sweep.join([short, long])
    joined = sweep.join([dataclasses.replace(short, metric="val_loss", mode="min"), long])
    assert joined.member.tolist() == list(range(19))
    assert joined.losses.shape == (9, 19)
    assert joined.metrics["val_loss"][:3].isnan().all()
    assert joined.best().index == long.best().index + 3
    assert joined.history.steps.tolist() == [3, 4, 9]
    parent = joined.history.parent
    assert parent[:, :3].tolist() == [[0, 1, 2]] * 3
    assert torch.equal(parent[2, 3:], torch.where(long.history.parent[-1] < 0, -1, long.history.parent[-1] + 3))
    with pytest.raises(ValueError, match="there is nothing"):
        sweep.join([])


def test_the_best_goes_back_into_fit(ours, start):
    best = ours.run(start, 5, progress=False).best()
    again = sweep.fit(make_optimizer, best.config, loss_fn, init, batches, steps=5, evaluate=evaluate, progress=False)
    assert again.configs["rate"].tolist() == [best.config["rate"]]


def test_copies_in_results_that_are_joined(ours, start):
    """A copy keeps its number, whomever it is a copy of, and where others alone were looked at it is what it was."""
    worst_from_best = lambda population, values, key: population[
        torch.arange(len(population)).index_copy(
            0, values.argmax(dim=0, keepdim=True), values.argmin(dim=0, keepdim=True)
        )
    ]
    parts = [
        ours.run(start[i], 6, every=every, policy=worst_from_best) for i, every in ((slice(0, 5), 2), (slice(5, 11), 3))
    ]
    joined = sweep.join(parts).history
    assert joined.steps.tolist() == [2, 3, 4, 6]
    assert joined.parent[1, :5].tolist() == [0, 1, 2, 3, 4]
    assert joined.parent[0, 5:].tolist() == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"policy": sweep.halve},
            r"policy is a function of \(population, values, key\), got halve: .*give halve\(...\)",
        ),
        ({"policy": 3}, "got int"),
        ({"callback": lambda: None}, r"callback is a function of \(look\)"),
    ],
)
def test_what_cannot_be_called_is_told_before_training(told, message):
    seen = []
    ours = trainer(batches=lambda step: seen.append(step) or batches(step), compile=False)
    start = ours.start(configs())
    seen.clear()
    with pytest.raises(TypeError, match=message):
        ours.run(start, 20, every=5, progress=False, **told)
    assert not seen
