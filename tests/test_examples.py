"""Every example runs with few steps, says what it claims to say, and draws its pictures where it is told to."""

import importlib
import inspect
import math
import sys
import warnings
from pathlib import Path

import pytest
import torch

import optfx
from optfx import interop

FOLDER = Path(__file__).parent.parent / "examples"


def run(name, tmp_path, **arguments):
    main = importlib.import_module(f"examples.{name}").main
    where = {"out", "folder"} & inspect.signature(main).parameters.keys()
    arguments |= dict.fromkeys(where, tmp_path)
    return main(**arguments)


def pictures(tmp_path):
    return sorted(p.name for p in tmp_path.glob("*.png") if p.stat().st_size > 5000)


def test_every_example_has_a_test():
    here = {name.removeprefix("test_") for name in globals()}
    assert {script.stem for script in FOLDER.glob("*.py")} - here == {"sweep_digits"}  # which sweep/ tests


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda script: script.stem)
def test_the_docstring_says_how_to_run_it(script):
    assert f"\n    python examples/{script.name}\n" in script.read_text()


def test_quickstart(tmp_path, fresh_dynamo):
    found = run("quickstart", tmp_path, steps=40, backend="aot_eager")
    losses = [x for name, x in found.items() if name.startswith("loss")]
    assert losses == pytest.approx(losses[:1] * 3, rel=1e-3)
    assert found["accuracy, fused"] > 0.8
    assert fresh_dynamo["stats"]["unique_graphs"] == 1


def test_compose_your_own(tmp_path):
    found = run("compose_your_own", tmp_path, steps=50)
    assert found["Adam"].shape == found["yours"].shape == found["rate"].shape
    best = {name: found["rate"][found[name].nan_to_num(torch.inf).argmin()] for name in ("Adam", "yours")}
    assert best["yours"] < best["Adam"]
    assert pictures(tmp_path) == ["compose_your_own.png"]


def test_ensemble(tmp_path):
    found = run("ensemble", tmp_path, steps=30, members=8)
    assert found["alone"].shape == (8,)
    assert found["together"] > found["alone"].mean()
    assert pictures(tmp_path) == ["ensemble.png"]


def test_learn_the_learning_rate(tmp_path):
    found = run("learn_the_learning_rate", tmp_path, steps=3, grid=3)
    assert found["last"] < found["first"]
    assert pictures(tmp_path) == ["learn_the_learning_rate.png"]


def test_record_recipe(tmp_path):
    rates = {"AdamW": [4e-3], "Muon": [2e-2], "the recipe": [2e-2]}
    found = run("record_recipe", tmp_path, steps=30, every=10, seeds=1, rates=rates)
    assert all(last < math.log(90) for _, last, _ in found.values())
    assert found["AdamW"][2] == 30
    assert pictures(tmp_path) == ["record_recipe.png"]


def test_schedules(tmp_path):
    curves = run("schedules", tmp_path, steps=60)
    assert len(curves) == 29
    assert all(curve.shape == (60,) and curve.isfinite().all() for curve in curves.values())
    assert pictures(tmp_path) == ["schedules.png"]


def test_optimizer_zoo(tmp_path):
    rates = torch.tensor([1e-2, 1e-1], dtype=torch.float64)
    found = run("optimizer_zoo", tmp_path, steps=10, rates=rates, names=["sgd", "adamw", "muon"], compile=False)
    assert list(found) == ["sgd", "adamw", "muon"]
    assert max(found["muon"].loss, found["adamw"].loss) < found["sgd"].loss < 2.3
    assert all(outcome.rate == 0.1 for outcome in found.values())
    assert pictures(tmp_path) == ["optimizer_zoo.png"]


def test_the_optimizers_of_the_zoo_are_those_of_the_catalogue():
    zoo = importlib.import_module("examples.optimizer_zoo")
    makers = {name: make for makers in zoo.FAMILIES.values() for name, make in makers.items()}
    assert len(makers) == 30
    params, grads = {"w": torch.tensor([[3.0, -1.0]])}, {"w": torch.tensor([[0.5, 2.0]])}
    c = zoo.Setting(rate=0.1, decay=0.0, steps=10)
    special = {
        "sgd, momentum": optfx.sgd(c.falling(0.1), momentum=0.9),
        "schedule_free_adamw": optfx.schedule_free_adamw(0.1, 1),
    }

    def train(tx):
        state, p = tx.init(params), params
        for _ in range(3):
            updates, state = tx.update(grads, state, p)
            p = optfx.apply_updates(p, updates)
        return p["w"]

    for name, make in makers.items():
        if name in special:
            expected = special[name]
        else:
            optimizer = getattr(optfx, name)
            none = {"weight_decay": 0.0} if "weight_decay" in inspect.signature(optimizer).parameters else {}
            expected = optimizer(c.falling(0.1), **none)
        torch.testing.assert_close(train(make(c)), train(expected), msg=name)
        assert not torch.equal(train(make(c._replace(decay=1.0))), train(expected)), name


def test_the_width_of_the_rates_that_work():
    width = importlib.import_module("examples.optimizer_zoo").width
    rates = torch.logspace(-2, 2, 5)
    assert width(torch.tensor([9.0, 9.0, 1.0, 9.0, 9.0]), rates) == pytest.approx(
        2 * math.log(1.2) / math.log(9), abs=0.02
    )
    assert width(torch.tensor([9.0, 1.0, 1.0, 1.0, 9.0]), rates) == pytest.approx(
        2 + 2 * math.log(1.2) / math.log(9), abs=0.02
    )


def test_halving(tmp_path):
    found = run("halving", tmp_path, settings=32, rungs=(5, 10, 20), compile=False)
    whole, halved = found["all to the end"], found["halving"]
    assert halved.age.bincount(minlength=21).nonzero()[:, 0].tolist() == [5, 10, 20]
    assert halved.age.bincount()[[5, 10, 20]].tolist() == [24, 6, 2]
    went_on = halved.age == 20
    assert torch.equal(halved.losses[:, went_on], whole.losses[:, went_on])
    assert pictures(tmp_path) == ["halving.png"]


def test_pbt_schedule(tmp_path):
    losses = run("pbt_schedule", tmp_path, steps=60, members=8, every=10, compile=False)
    assert losses["PBT's schedule again"] == pytest.approx(losses["PBT"], rel=1e-6)
    assert losses["PBT"] != losses["constant"]
    assert pictures(tmp_path) == ["pbt_schedule.png"]


def test_seeds_and_widths(tmp_path):
    result = run("seeds_and_widths", tmp_path, steps=20, widths=(4, 8), seeds=2, compile=False)
    assert len(result) == 2 * 4 * 2
    assert result.params[0]["w"].shape == (64, 4)
    assert result.params[-1]["w"].shape == (64, 8)
    assert (result.losses[:, 0] != result.losses[:, 1]).all()  # two seeds, each with its start and its batches
    assert pictures(tmp_path) == ["seeds_and_widths.png"]


def test_two_optimizers(tmp_path):
    found = run("two_optimizers", tmp_path, steps=40)
    _, old = zip(*found.values(), strict=True)
    assert old[2] == max(old)  # what is frozen below forgets nothing of the old digits
    assert pictures(tmp_path) == ["two_optimizers.png"]


def test_pitfalls(tmp_path):
    found = run("pitfalls", tmp_path, steps=40)
    assert found["clipped"].isfinite().all()
    assert not found["not clipped"].isfinite().all()
    assert found["skips"] >= 1
    assert found["skipped"][-1].isfinite()
    assert found["not skipped"][-1].isnan()
    assert pictures(tmp_path) == ["pitfall_exploding.png", "pitfall_overshooting.png", "pitfall_poisoned.png"]


def test_lightning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        found = run("lightning", tmp_path, steps=50)
    assert found["difference"] < 1e-5
    assert found["optfx"] == found["torch"] > 0.5


def test_hf_trainer(tmp_path):
    found = run("hf_trainer", tmp_path, steps=10)
    assert found["a class"] == found["torch's AdamW"]


def test_fsdp2(tmp_path):
    found = run("fsdp2", tmp_path, steps=5)
    assert found["together"] == pytest.approx(found["alone"], rel=1e-4)
    assert all(share < 0.6 for share in found["held"])


def stop_after_saving(step, monkeypatch):
    """Let the user stop an example after the checkpoint of a step."""
    save = interop.save

    def stopping(tree, path):
        save(tree, path)
        if tree["step"] == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(interop, "save", stopping)


def test_resume(tmp_path, monkeypatch, capsys):
    whole = run("resume", tmp_path / "whole", steps=60, every=7)
    stop_after_saving(28, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run("resume", tmp_path / "parts", steps=60, every=7)
    capsys.readouterr()
    parts = run("resume", tmp_path / "parts", steps=60, every=7)
    assert "goes on from step 28 of 60" in capsys.readouterr().out
    assert (whole["began"], parts["began"]) == (0, 28)
    assert whole["accuracy"] > 0.8
    expected = interop.state_dict(whole["run"])
    assert [path for path, x in interop.state_dict(parts["run"]).items() if not torch.equal(x, expected[path])] == []
    assert run("resume", tmp_path / "parts", steps=60, every=7)["began"] == 60


def test_char_transformer(tmp_path, monkeypatch):
    def train(folder):
        return run("char_transformer", tmp_path / folder, steps=6, every=2, characters=20, rounds=3)

    whole = train("whole")
    (_, _, fused), *others = whole["ways"].values()
    assert [loss for *_, loss in others] == pytest.approx([fused, fused], rel=1e-4)
    validated = whole["run"]["validated"]
    assert validated[-1, 0] < validated[0, 0]
    assert (validated[:, 1] > validated[:, 0]).all()  # a mean lags behind in the first steps
    assert whole["text"].startswith("class Optimizer")
    assert pictures(tmp_path / "whole") == ["char_transformer.png"]

    stop_after_saving(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train("parts")
    parts = train("parts")
    assert (whole["began"], parts["began"]) == (0, 4)
    expected = interop.state_dict(whole["run"])
    assert [path for path, x in interop.state_dict(parts["run"]).items() if not torch.equal(x, expected[path])] == []
    assert parts["text"] == whole["text"]


def test_schedule_free(tmp_path, monkeypatch):
    sibling = importlib.import_module("examples.char_transformer")
    monkeypatch.setitem(sys.modules, "char_transformer", sibling)  # as a script finds it
    found = run("schedule_free", tmp_path, steps=24, warmup=4, every=3, width=16, depth=1)
    assert [len(losses) for losses in found.values()] == [8, 2, 4, 8]
    assert all((losses[1:] < losses[:-1]).all() for losses in found.values())
    assert found["schedule-free"][4] < found["cosine of 24"][4]  # in the middle of the run
    assert pictures(tmp_path) == ["schedule_free.png"]


def test_optuna_sweep(tmp_path):
    optuna = pytest.importorskip("optuna")
    verbosity = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, says Optuna
        told = {"at_once": 8, "steps": 12, "hidden": 8, "compile": False}
        first = run("optuna_sweep", tmp_path, trials=16, **told)
        more = run("optuna_sweep", tmp_path, trials=24, **told)
    optuna.logging.set_verbosity(verbosity)
    assert (first["trials"], more["trials"]) == (16, 24)  # the study goes on
    assert more["val_loss"] <= first["val_loss"] < 2.3


def test_ray_sweep(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ADDRESS", "local")  # not the cluster of another test, which loses a node
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = run("ray_sweep", tmp_path, steps=12, settings=8, hidden=8, parts=2, compile=False)
    assert found["same"]
    assert found["val_loss"] < 2.3
