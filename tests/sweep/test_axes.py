"""Anything may differ between members: seeds, the loss, batches, integers; and structure, in groups."""

import pytest
import torch
from torch.func import grad

import optfx
from optfx import random, sweep, tree
from optfx.sweep.configs import ABSENT, Labels
from tests.sweep.small import X, Y, batches, configs, evaluate, init, loss_fn, make_optimizer, same

STEPS = 6


def fit(make=make_optimizer, settings=None, loss=loss_fn, start=init, data=batches, **options):
    settings = configs(5) if settings is None else settings
    return sweep.fit(make, settings, loss, start, data, **{"steps": STEPS, "progress": False} | options)


def alone(tx, params, loss, steps=STEPS):
    """One member in a loop: loss is (params, step)."""
    state = tx.init(params)
    for t in range(steps):
        updates, state = tx.update(grad(loss)(params, t), state, params)
        params = optfx.apply_updates(params, updates)
    return params


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def sgd(config):
    return optfx.sgd(config["rate"])


# ---- what a member has of its own ---------------------------------------------------------------------


@pytest.mark.parametrize("compile", [True, False])
def test_the_loss_may_ask_for_settings_and_a_key(compile):
    def loss(params, batch, config, key):
        kept = random.uniform(key, (8,)) >= config["dropout"]
        hidden = torch.tanh(batch[0] @ params["w"]) * kept / (1 - config["dropout"])
        return (hidden @ params["v"] - batch[1]).square().mean()

    settings = {"rate": [0.1, 0.1, 0.2], "dropout": [0.0, 0.5, 0.25]}
    result = fit(sgd, settings, loss, compile=compile)
    for i in range(3):
        key = random.fold_in(random.key(0), i)
        own = {k: torch.tensor(x[i], dtype=torch.float64) for k, x in settings.items()}
        at = lambda t, key=key: random.fold_in(random.fold_in(key, -1), t)
        by_hand = alone(optfx.sgd(own["rate"]), init(key), lambda p, t, own=own, at=at: loss(p, batches(t), own, at(t)))
        close(tree.map(lambda x, i=i: x[i], result.params), by_hand)
    assert fit(sgd, settings, loss, compile=compile).losses.equal(result.losses)


def test_with_a_key_a_member_has_the_same_bits_everywhere():
    noisy = lambda params, batch, key: loss_fn(params, batch) * random.uniform(key, ())
    ours = sweep.Trainer(make_optimizer, noisy, init, batches)
    start = ours.start(configs())
    whole, _ = ours.train(start, 9)
    half, _ = ours.train(start[3:7], 4)
    assert same(ours.train(half, 5)[0], whole[3:7])


def test_init_may_ask_for_settings():
    scaled = lambda key, config: tree.map(lambda x: x * config["scale"], init(key))
    result = fit(sgd, {"rate": [0.0, 0.0], "scale": [1.0, 3.0], "seed": [4, 4]}, start=scaled)
    close(result.params["w"][1], 3 * result.params["w"][0])


def test_evaluate_may_ask_for_settings():
    result = fit(evaluate=lambda params, config: {"rate_loss": config["rate"] * 1.0})
    assert torch.equal(result.metrics["rate_loss"], result.configs["rate"])


@pytest.mark.parametrize("compile", [True, False])
def test_batches_of_a_members_own(compile):
    def own(step, key):
        rows = random.bits(random.fold_in(key, step), (16,)) % 64
        return X[rows], Y[rows]

    settings = {"rate": [0.1] * 4, "seed": [0, 1, 0, 2]}
    result = fit(sgd, settings, data=own, compile=compile)
    assert torch.equal(result.losses[:, 0], result.losses[:, 2])
    assert not torch.equal(result.losses[:, 0], result.losses[:, 1])
    key = random.fold_in(random.key(0), 2)
    mine = lambda params, t: loss_fn(params, own(t, random.fold_in(key, -2)))
    close(tree.map(lambda x: x[3], result.params), alone(optfx.sgd(0.1), init(key), mine))
    ours = sweep.Trainer(sgd, loss_fn, init, own, compile=compile)
    start = ours.start({"rate": [0.1] * 70, "seed": torch.arange(70)})
    assert same(ours.train(start, 5)[0][5:9], ours.train(start[5:9], 5)[0]) or not compile


def test_batches_may_ask_for_settings():
    sized = lambda step, config: (X[:4] * config["scale"], Y[:4])
    result = fit(sgd, {"rate": [0.1, 0.1], "scale": [1.0, 2.0], "seed": [0, 0]}, data=sized)
    start = init(random.fold_in(random.key(0), 0))
    close(result.losses[0], torch.stack([loss_fn(start, (X[:4] * s, Y[:4])) for s in (1.0, 2.0)]))


def test_seeds_are_an_axis():
    """Settings times seeds: settings of one seed start alike."""
    settings = sweep.grid({"rate": [0.01, 0.1], "seed": range(3)})
    result = fit(sgd, settings)
    assert torch.equal(result.losses[0, :3], result.losses[0, 3:])
    assert len(result.losses[0].unique()) == 3
    assert not torch.equal(fit(sgd, settings, seed=1).losses[0], result.losses[0])
    with pytest.raises(ValueError, match=r"'seed' holds integers, got torch\.float64"):
        fit(sgd, {"rate": [0.1], "seed": [0.5]})


def test_a_parameter_with_a_default_is_not_asked_for():
    seen = []
    fit(loss=lambda params, batch, config=None, key=3: seen.append((config, key)) or loss_fn(params, batch))
    assert set(seen) == {(None, 3)}


def test_integers_stay_integers():
    kinds = set()

    def make(config):
        kinds.add(config["length"].dtype)
        return optfx.sgd(optfx.linear_schedule(0.1, 0.0, config["length"]))

    result = fit(make, {"length": [2, 4]})
    assert kinds == {torch.int64}
    assert result.configs["length"].dtype == torch.int64
    assert isinstance(result.best().config["length"], int)


def test_the_number_of_a_trial_is_read_by_nobody():
    assert fit(settings=configs(3) | {"trial": [7, 8, 9]}).configs["trial"].tolist() == [7, 8, 9]


# ---- structure ---------------------------------------------------------------------------------------


def make_any(config):
    inner = optfx.scale_by_adam(b2=config["b2"]) if config["kind"] == "adam" else optfx.trace(config["momentum"])
    return optfx.chain(inner, optfx.scale_by_learning_rate(config["rate"]))


def init_wide(key, config):
    first, last = random.split(key)
    n = config["width"]
    return {"w": random.normal(first, (5, n)), "v": random.normal(last, (n,)) / 3}


SPACE = {
    "rate": sweep.log_uniform(1e-3, 0.3),
    "width": sweep.choice((4, 8)),
    "kind": sweep.choice(
        {
            "adam": {"b2": sweep.uniform(0.9, 0.99), "warmup": sweep.choice((1, 2))},
            "sgd": {"momentum": sweep.uniform(0.5, 0.9)},
        }
    ),
}


def test_a_conditional_space():
    settings = sweep.sample(SPACE, 40)
    is_adam = torch.tensor([x == "adam" for x in settings["kind"]])
    assert 10 < is_adam.sum() < 30
    assert torch.equal(settings["b2"].isnan(), ~is_adam)
    assert torch.equal(settings["momentum"].isnan(), is_adam)
    assert torch.equal(settings["warmup"] == ABSENT, ~is_adam)
    assert settings["warmup"].dtype == torch.int64
    assert ((settings["b2"][is_adam] >= 0.9) & (settings["b2"][is_adam] <= 0.99)).all()
    within = sweep.sample(
        {"a": sweep.choice({"x": {"b": sweep.choice({"y": {"c": sweep.uniform(0, 1)}, "z": {}})}, "w": {}})}, 40
    )
    for a, b, c in zip(within["a"], within["b"], within["c"].tolist(), strict=True):
        assert (b == "") == (a == "w")
        assert (c == c) == (b == "y")
    assert sweep.grid({"kind": ["adam", "sgd"], "rate": [0.1, 0.2]})["kind"] == ("adam", "adam", "sgd", "sgd")


@pytest.fixture(scope="module")
def mixed():
    settings = sweep.sample(SPACE, 12)
    del settings["warmup"]
    result = fit(make_any, settings, start=init_wide, structure=["width"], evaluate=evaluate)
    return settings, result


def test_members_of_several_structures_are_in_one_result(mixed):
    settings, result = mixed
    assert len(result) == 12
    assert result.member.tolist() == list(range(12))
    assert same(
        {k: x for k, x in result.configs.items() if k != "kind"}, {k: x for k, x in settings.items() if k != "kind"}
    )
    assert result.configs["kind"] == settings["kind"]
    for i in range(12):
        own = {k: x.tolist()[i] for k, x in settings.items()}
        tx, start = make_any(own), init_wide(random.fold_in(random.key(0), i), own)
        close(result.params[i], alone(tx, start, lambda p, t: loss_fn(p, batches(t))))
        close(result.metrics["val_loss"][i], evaluate(result.params[i])["val_loss"])
    assert result.params[[3, 4]][1]["w"].shape == result.params[4]["w"].shape


def test_the_table_leaves_out_what_is_absent(mixed):
    _, result = mixed
    rows = result.table(12).splitlines()
    assert all(len(row.split()) == len(rows[0].split()) for row in rows[1:])  # one of two is empty, and there is a rank
    best = result.best()
    assert ("b2" in best.config) == (best.config["kind"] == "adam")
    assert isinstance(best.config["width"], int)
    again = fit(make_any, best.config, start=init_wide, structure=["width"], evaluate=evaluate)
    assert again.params["w"].shape[1:] == best.params["w"].shape


def test_nobody_of_several_structures(mixed):
    none = mixed[1][[]]
    assert repr(none).startswith("<sweep of 0 settings")
    assert none.age.dtype == none.member.dtype == torch.int64


def test_members_of_a_structure_go_on(mixed):
    _, result = mixed
    some = result[result.configs["width"] == 4]
    some = some[[i for i, kind in enumerate(some.configs["kind"]) if kind == "sgd"]]
    part = int(some.population.part[0])
    assert set(some.population.part.tolist()) == {part}
    population = some.population.parts[part]
    ours = sweep.Trainer(make_any, loss_fn, init_wide, batches, fixed={"kind": "sgd", "width": 4})
    assert ours.train(population, 2)[0].age.tolist() == [STEPS + 2] * len(population)


def test_structures_compete_among_themselves():
    settings = sweep.grid({"kind": ["adam", "sgd"], "rate": [0.001, 0.01, 0.1, 0.2]}) | {"b2": 0.9, "momentum": 0.9}
    make = lambda c: make_any(c | {"b2": c["b2"], "momentum": c["momentum"]})
    result = fit(make, settings, evaluate=evaluate, rungs=[2], policy=sweep.halve(4), steps=4)
    assert (result.age == 4).view(2, 4).sum(1).tolist() == [1, 1]
    assert result.history.steps.tolist() == [2, 4]


def test_structures_in_a_folder(tmp_path, mixed):
    settings, result = mixed
    arguments = {"start": init_wide, "structure": ["width"], "evaluate": evaluate, "folder": tmp_path}
    first = fit(make_any, settings, **arguments)
    again = fit(make_any, settings, **arguments)
    for found in (first, again):
        assert torch.equal(found.losses, result.losses)
        assert all(same(found.params[i], result.params[i]) for i in range(12))
    read = sweep.load(tmp_path)
    assert torch.equal(read[read.member.argsort()].losses, result.losses)


def test_an_error_in_a_later_structure_loses_nothing():
    settings = {"kind": ["adam", "sgd"], "rate": 0.1, "b2": 0.9, "momentum": 0.9}
    make = lambda c: make_any(c | {"b2": c["b2"], "momentum": c["momentum"]})
    looks = []

    def failing(look):
        looks.append(look)
        if len(looks) == 2:
            raise OSError("no space")

    with pytest.raises(OSError, match="no space") as error:
        fit(make, settings, callback=failing)
    assert [len(x) for x in error.value.results] == [1]
    assert error.value.population.age.tolist() == [STEPS]
    wrong = lambda c: optfx.sgd(c["rate"]) if c["kind"] == "adam" else optfx.sgd(c["rte"])
    looks.clear()
    with pytest.raises(KeyError, match="reads 'rte'"):
        fit(wrong, settings, callback=looks.append)
    assert not looks  # before any of them trains


def test_strings_of_one_kind_are_one_structure():
    result = fit(make_any, {"kind": "sgd", "momentum": 0.9, "rate": [0.1, 0.2]})
    assert result.configs["kind"] == Labels(["sgd", "sgd"])
    assert result.params["w"].shape == (2, 5, 8)
    assert isinstance(result.population, sweep.Population)


def test_stacked_parameters_of_several_structures():
    start = tree.map(lambda x: torch.stack([x * i for i in range(4)]), init(random.key(0)))
    settings = {"kind": ["adam", "sgd", "adam", "sgd"], "rate": 0.1, "b2": 0.9, "momentum": 0.9}
    make = lambda c: make_any(c | {"b2": c["b2"], "momentum": c["momentum"]})
    result = fit(make, settings, start=sweep.stacked(start))
    expected = [loss_fn(tree.map(lambda x, i=i: x[i], start), batches(0)) for i in range(4)]
    close(result.losses[0], torch.stack(expected))
    with pytest.raises(ValueError, match="stacked for 4 members, and configs has 5"):
        fit(sgd, {"rate": [0.1] * 5}, start=sweep.stacked(start))
    ours = sweep.Trainer(sgd, loss_fn, sweep.stacked(start), batches)
    with pytest.raises(ValueError, match="stacked for 4 members"):
        ours.start({"rate": [0.1]}, torch.tensor([4]))


def test_words_are_numbers_in_a_picture(mixed, tmp_path):
    mixed[1].plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert mixed[1].to_pandas()["kind"].tolist() == list(mixed[0]["kind"])


def test_a_branch_without_numbers():
    space = {"rule": sweep.choice({"plain": {}, "fast": {"rate": sweep.log_uniform(0.1, 1.0)}})}
    result = sweep.fit(
        lambda c: optfx.sgd(c["rate"] if c["rule"] == "fast" else 0.01),
        sweep.sample(space, 6), loss_fn, init, batches, steps=3, compile=False,
    )  # fmt: skip
    assert len(result) == 6
    assert {"plain", "fast"} == set(result.configs["rule"])
    assert "trial" not in result.configs
