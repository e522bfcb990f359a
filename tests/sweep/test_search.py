"""Optuna in front: settings in batches, what it is told, workers that are killed, studies of results."""

import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import optfx
from optfx import sweep
from optfx.sweep.workers import is_gone, name_of

optuna = pytest.importorskip("optuna", reason='optuna is not here: pip install "optfx[optuna]"')

SPACE = {"rate": sweep.log_uniform(1e-3, 1.0), "decay": sweep.uniform(0.0, 0.1)}
STATES = optuna.trial.TrialState


@pytest.fixture(autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
    optuna.logging.set_verbosity(before)


def new_study(seed=0, **options):
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4), **options)


def fit(configs, steps=8, evaluate=None, **options):
    goal = torch.tensor([1.0, -2.0], dtype=torch.float64)
    evaluate = evaluate or (lambda params: {"val_loss": (params["w"] - goal).square().sum()})
    return sweep.fit(
        lambda c: optfx.sgd(c["rate"]),
        configs,
        lambda params, batch, config: (params["w"] - batch).square().sum()
        + sum(0.0 * v for k, v in config.items() if not isinstance(v, str)),
        {"w": torch.zeros(2, dtype=torch.float64)}, [goal], steps=steps, evaluate=evaluate, compile=False, **options,
    )  # fmt: skip


def states(study):
    return [t.state.name for t in study.trials]


@pytest.mark.parametrize("sampler", ["TPESampler", "CmaEsSampler", "QMCSampler", "RandomSampler"])
def test_batches_with_any_sampler(sampler):
    if sampler == "CmaEsSampler":
        pytest.importorskip("cmaes")
    study = optuna.create_study(sampler=getattr(optuna.samplers, sampler)(seed=0))
    for batch in range(3):
        configs = sweep.ask(study, SPACE, 6)
        assert configs["trial"].tolist() == [*range(6 * batch, 6 * batch + 6)]
        assert ((configs["rate"] >= 1e-3) & (configs["rate"] <= 1)).all()
        assert len(configs["rate"].unique()) == 6
        result = fit(configs)
        sweep.tell(study, result)
        told = [t.value for t in study.trials[-6:]]
        assert told == result.metrics["val_loss"].tolist()
        assert [t.params["rate"] for t in study.trials[-6:]] == configs["rate"].tolist()
    assert study.best_value == min(t.value for t in study.trials)


def test_what_the_sampler_learns_comes_back():
    """TPE asks near what was good, twice as often as by chance."""
    study, best = new_study(), math.log(0.03)
    for _ in range(8):
        configs = sweep.ask(study, {"rate": SPACE["rate"]}, 8)
        sweep.tell(study, configs, (configs["rate"].log() - best).square())
    near = [abs(math.log(t.params["rate"]) - best) < 0.5 for t in study.trials]
    assert sum(near[8:]) / len(near[8:]) > 2 / math.log(1000)


def test_spaces_become_distributions():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space = {
        "rate": sweep.log_uniform(1e-3, 1.0),
        "momentum": sweep.uniform(0.0, 0.9),
        "length": sweep.choice(range(2, 10, 2)),
        "warmup": sweep.choice((1, 10, 20)),
        "decay": sweep.choice((0.0, 0.1)),
        "rule": sweep.choice({"adam": {"b2": sweep.uniform(0.9, 0.99), "k": sweep.choice((1, 5, 7))}, "sgd": {}}),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    configs = sweep.ask(study, space, 12)
    branch = {"b2": FloatDistribution(0.9, 0.99), "k": CategoricalDistribution((1, 5, 7))}
    assert study.trials[0].distributions == {
        "rate": FloatDistribution(1e-3, 1.0, log=True),
        "momentum": FloatDistribution(0.0, 0.9),
        "length": IntDistribution(2, 8, step=2),
        "warmup": CategoricalDistribution((1, 10, 20)),
        "decay": CategoricalDistribution((0.0, 0.1)),
        "rule": CategoricalDistribution(("adam", "sgd")),
    } | (branch if configs["rule"][0] == "adam" else {})
    like = sweep.sample(space, 12)
    assert {k: type(x) for k, x in configs.items()} == {k: type(x) for k, x in like.items()} | {"trial": torch.Tensor}
    assert all(configs[k].dtype == x.dtype for k, x in like.items() if isinstance(x, torch.Tensor))
    adam = torch.tensor([word == "adam" for word in configs["rule"]])
    assert 0 < adam.sum() < 12
    assert (configs["b2"].isnan() == ~adam).all()
    assert ((configs["k"] == torch.iinfo(torch.int64).min) == ~adam).all()


def test_rungs_are_intermediate_values():
    study = new_study()
    configs = sweep.ask(study, {"rate": sweep.log_uniform(1e-3, 0.4)}, 9)
    result = fit(configs, rungs=[2, 4, 8], policy=sweep.halve(3))
    sweep.tell(study, result)
    assert sorted(states(study)) == ["COMPLETE"] + ["PRUNED"] * 8
    history = result.history
    for i, trial in enumerate(study.trials):
        looks = 1 + int((history.parent[:-1, i] >= 0).sum())
        assert trial.intermediate_values == dict(
            zip([2, 4, 8][:looks], history.metrics["val_loss"][:looks, i].tolist(), strict=True)
        )
        assert trial.value == [*trial.intermediate_values.values()][-1]
    assert study.best_trial.state is STATES.COMPLETE


def test_a_place_taken_by_a_copy_is_pruned_with_its_own_settings():
    study, space = new_study(), {"rate": sweep.log_uniform(1e-3, 0.4)}
    configs = sweep.ask(study, space, 8)
    result = fit(configs, every=2, steps=6, policy=sweep.exploit(space))
    assert len(result.configs["trial"].unique()) < 8  # the copies have the trial of another
    sweep.tell(study, result)
    assert set(states(study)) == {"COMPLETE", "PRUNED"}
    assert [t.params["rate"] for t in study.trials] == configs["rate"].tolist()
    whole = result.to_optuna(space)
    assert {t.state for t in whole.trials} == {STATES.COMPLETE, STATES.PRUNED}


def test_more_is_better_and_what_diverged_fails():
    study = new_study(direction="maximize")
    configs = {"rate": torch.tensor([0.1, 0.2, 1e200], dtype=torch.float64)}
    configs |= {"trial": sweep.ask(study, {"rate": SPACE["rate"]}, 3)["trial"]}
    evaluate = lambda params: {"val_accuracy": 1 / (1 + params["w"].square().sum())}
    result = fit(configs, every=4, evaluate=evaluate)
    sweep.tell(study, result)
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert [t.value for t in study.trials[:2]] == result.metrics["val_accuracy"][:2].tolist()
    assert study.trials[0].intermediate_values[8] == study.trials[0].value > 0
    with pytest.raises(ValueError, match=r"mode='max'.*MINIMIZE"):
        sweep.tell(new_study(), result)


def test_telling_twice_changes_nothing():
    study = new_study()
    configs = sweep.ask(study, SPACE, 3)
    sweep.tell(study, configs, torch.tensor([1.0, 2.0, math.nan]))
    before = study.trials
    sweep.tell(study, configs, torch.tensor([4.0, 5.0, 6.0]))
    assert study.trials == before


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: sweep.ask(s, {}, 3), "at least one setting"),
        (lambda s: sweep.ask(s, SPACE, 0), "at least one setting"),
        (lambda s: sweep.ask(s, {"trial": SPACE["rate"]}, 1), "names other than 'trial'"),
        (lambda s: sweep.tell(s, {"rate": torch.ones(1)}, torch.ones(1)), "'trial' is None"),
        (lambda s: sweep.tell(s, {"trial": torch.tensor([7])}, torch.ones(1)), "'trial' is 7"),
        (lambda s: sweep.tell(s, {"trial": torch.tensor([7])}), "values are needed"),
        (lambda s: sweep.ask(optuna.create_study(directions=["minimize", "maximize"]), SPACE, 1), "2 objectives"),
    ],
)
def test_errors(call, says):
    with pytest.raises(ValueError, match=says):
        call(new_study())
    with pytest.raises(TypeError, match=r"'rate' is 0\.1"):
        sweep.ask(new_study(), {"rate": 0.1}, 1)


def test_a_result_is_a_study():
    pytest.importorskip("plotly")
    result = fit(sweep.sample(SPACE | {"warmup": sweep.choice((1, 3, 4))}, 24), rungs=[2, 8], policy=sweep.halve(2))
    study = result.to_optuna(SPACE)
    assert study.best_value == result.best().metrics["val_loss"]
    assert study.best_params == result.best().config
    assert study.trials[0].distributions["rate"].log
    importance = optuna.importance.get_param_importances(study)
    assert max(importance, key=importance.get) == "rate"
    for draw in (optuna.visualization.plot_param_importances, optuna.visualization.plot_intermediate_values,
                 optuna.visualization.plot_parallel_coordinate, optuna.visualization.plot_slice):  # fmt: skip
        assert draw(study).data
    assert result.to_optuna().trials[0].distributions["warmup"] == optuna.distributions.IntDistribution(1, 4)


# ---- workers that are killed ---------------------------------------------------------------------------


def journal(path):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def shared(path, seed=0):
    return new_study(seed, storage=journal(path), study_name="s", load_if_exists=True)


WORKER = """
import sys, time
import optuna, torch
sys.path[:0] = {path!r}
from tests.sweep.test_search import SPACE, fit, shared
from optfx import sweep
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = shared({log!r}, int(sys.argv[1]))
name, stall = sys.argv[2] or None, sys.argv[3] == "stall"
while True:
    configs = sweep.ask(study, SPACE, 4, worker=name)
    print("asked", configs["trial"].tolist(), flush=True)
    if stall:
        time.sleep(100)
    sweep.tell(study, fit(configs, folder=sys.argv[4] or None))
    if sum(t.state.name == "COMPLETE" for t in study.get_trials(deepcopy=False)) >= 16:
        break
"""


def start(log, seed, name="", stall="", folder=""):
    code = WORKER.format(log=str(log), path=[str(Path(__file__).parents[2])])
    return subprocess.Popen(
        [sys.executable, "-c", code, str(seed), name, stall, folder], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="whether a process is there is asked of /proc")
def test_what_a_killed_worker_asked_for_is_trained_once(tmp_path):
    log = tmp_path / "study.log"
    killed = start(log, 1, stall="stall")
    assert killed.stdout.readline() == "asked [0, 1, 2, 3]\n"
    study = shared(log)
    lost = [t.params for t in study.trials]
    assert sweep.reclaim(study) == 0  # it lives
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    others = [start(log, 2), start(log, 3)]
    for other in others:
        other.communicate(timeout=60)
    assert [other.returncode for other in others] == [0, 0]
    done = [t for t in study.trials if t.state is STATES.COMPLETE]
    assert states(study).count("RUNNING") == states(study).count("WAITING") == 0
    assert states(study)[:4] == ["FAIL"] * 4
    assert [sum(t.params == params for t in done) for params in lost] == [1, 1, 1, 1]
    assert len({str(t.params) for t in done}) == len(done) >= 16


def test_a_worker_with_a_name_comes_back(tmp_path):
    log, folder = tmp_path / "study.log", tmp_path / "run"
    study = shared(log)
    first = sweep.ask(study, SPACE, 4, worker="a")
    other = sweep.ask(study, SPACE, 4, worker="b")
    again = sweep.ask(shared(log), SPACE, 4, worker="a")
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert other["trial"].tolist() == [4, 5, 6, 7]
    result = fit(first, folder=folder)
    sweep.tell(study, {k: x[:2] for k, x in first.items()}, result.metrics["val_loss"][:2])  # and it is killed
    again = sweep.ask(shared(log), SPACE, 4, worker="a")
    assert again["trial"].tolist() == [0, 1, 2, 3]  # all four, since the folder is of four
    sweep.tell(study, fit(again, folder=folder))
    assert sweep.ask(study, SPACE, 4, worker="a")["trial"].tolist() == [8, 9, 10, 11]
    assert sweep.reclaim(study) == 0  # a name may come back
    assert sweep.reclaim(study, lambda worker: worker == "b") == 4
    assert sweep.ask(study, SPACE, 4)["rate"].tolist() == other["rate"].tolist()


def test_killed_while_it_asks(tmp_path):
    study = new_study()

    class Killed(Exception):
        pass

    def killed(trial, *_):
        if trial.number == 2:
            raise Killed

    study.sampler.after_trial = lambda *_: None
    before, study.sampler.sample_independent = study.sampler.sample_independent, None
    study.sampler.sample_independent = lambda s, t, *rest: (killed(t), before(s, t, *rest))[1]
    with pytest.raises(Killed):
        sweep.ask(study, SPACE, 4, worker="a")
    study.sampler.sample_independent = before
    assert sweep.ask(study, SPACE, 4, worker="a")["trial"].tolist() == [0, 1]
    assert states(study) == ["RUNNING", "RUNNING", "FAIL", "WAITING"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody is seen to be gone")
def test_who_is_gone():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    worker = name_of(process.pid)
    assert not is_gone(worker)
    process.kill()
    process.wait()
    assert is_gone(worker)
    assert not is_gone(name_of(os.getpid()))
    assert not is_gone("another host/1/2")
    assert not is_gone("a name")
