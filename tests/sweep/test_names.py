"""The names of metrics and settings, and what functions cannot do for many members at once: said before training."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import optfx
from optfx import sweep
from optfx.sweep.result import direction

X = torch.linspace(-1, 1, 24).reshape(8, 3)


def fit(make=lambda c: optfx.sgd(c["rate"]), configs=None, model=None, loss_fn=None, **options):
    model = model or nn.Linear(3, 1)
    configs = {"rate": torch.tensor([0.1, 0.2])} if configs is None else configs
    loss_fn = loss_fn or (lambda p, x: functional_call(model, p, (x,)).square().mean())
    start, batches = options.pop("init", None) or optfx.params(model), options.pop("batches", [X])
    return sweep.fit(make, configs, loss_fn, start, batches, steps=2, **{"compile": False, "progress": False} | options)


def metric(name):
    return lambda params: {name: params["weight"].sum(), "loss": params["bias"].sum()}


# ---- which way is better -----------------------------------------------------------------------------

KNOWN = {
    "min": [
        "loss",
        "val_loss",
        "valloss",
        "test/loss",
        "error",
        "mse",
        "val_rmse",
        "perplexity",
        "nll",
        "WER",
        "neg_r",
    ],
    "max": ["acc", "val_acc", "acc@1", "accuracy", "f1", "macro-F1", "auc", "roc_auc", "r2", "mIoU", "log_likelihood"],
    None: ["score", "w", "time", "negative_log_likelihood", "accurate_error_f1", "vacc", "map2"],
}


@pytest.mark.parametrize(("way", "name"), [(way, name) for way, names in KNOWN.items() for name in names])
def test_names_of_metrics(way, name):
    assert direction(name) == way


def test_an_unknown_metric_is_asked_for_before_training(fresh_dynamo):
    seen = []

    def batches(step):
        seen.append(step)
        return X

    with pytest.raises(ValueError, match="say whether less or more of 'score' is better: mode='min' or mode='max'"):
        sweep.fit(
            lambda c: optfx.sgd(c["rate"]),
            {"rate": torch.tensor([0.1])},
            lambda p, x: (x @ p["weight"].T).square().mean(),
            optfx.params(nn.Linear(3, 1)),
            batches,
            steps=5,
            evaluate=metric("score"),
        )
    assert set(seen) <= {0}
    assert not fresh_dynamo["stats"]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_fit_was_told_is_remembered(mode, tmp_path):
    result = fit(evaluate=metric("score"), mode=mode)
    assert result.judge()[::2] == ("score", mode)
    assert result.judge("loss")[2] == "min"  # of the other metrics the name tells
    result.save(tmp_path / "sweep.pt")
    assert sweep.load(tmp_path / "sweep.pt").best().index == result.best().index == result.ranking(mode=mode)[0]
    other = {"min": "max", "max": "min"}[mode]
    assert result.best(mode=other).index != result.best().index
    assert result.table(mode=other) != result.table()


def test_names_that_tell_need_no_word():
    assert fit(evaluate=metric("val_acc")).judge()[2] == "max"
    assert fit(evaluate=metric("val_acc"), mode="min").judge()[2] == "min"


# ---- settings ----------------------------------------------------------------------------------------

SAME = {"weight": torch.ones(1, 3), "bias": torch.zeros(1)}
READING = {
    "by name": lambda c: optfx.adam(c["rate"], b1=c["b1"]),
    "get": lambda c: optfx.adam(c.get("rate", 0.1), b1=c.get("b1")),
    "pop": lambda c: optfx.adam(c.pop("rate"), b1=c.pop("b1")),
    "unpacked": lambda c: (lambda rate, b1: optfx.adam(rate, b1=b1))(**c),
    "copied": lambda c: optfx.adam(**{"learning_rate" if k == "rate" else k: v for k, v in dict(c).items()}),
    "merged": lambda c: (lambda d: optfx.adam(d["rate"], b1=d["b1"]))(c | {"more": 1}),
    "values": lambda c: optfx.adam(*c.values()),
    "items": lambda c: optfx.adam(*(x for _, x in c.items())),
    "mapped": lambda c: (lambda d: optfx.adam(d["rate"], b1=d["b1"]))(optfx.tree.map(lambda x: x * 1.0, c)),
}


@pytest.mark.parametrize("make", READING.values(), ids=READING)
def test_every_way_to_read_a_setting(make):
    assert len(fit(make, {"rate": [0.1, 0.2], "b1": [0.8, 0.9]})) == 2


def test_a_name_that_nobody_reads_is_an_error():
    with pytest.raises(ValueError, match="no function reads 'seed', 'warmup', so it changes nothing"):
        fit(configs=sweep.grid({"rate": [0.1], "seed": [0, 1, 2], "warmup": [5]}))


def test_a_name_may_tell_repetitions_apart():
    def init(key):
        return {"weight": optfx.random.normal(key, (1, 3)), "bias": torch.zeros(1)}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit(configs=sweep.grid({"rate": [0.1, 0.2], "seed": [0, 1, 2]}), init=init)
    assert result.losses[0].unique().numel() == 3  # settings of one seed start alike
    with pytest.raises(ValueError, match="no function reads 'decy'"):
        fit(configs={"rate": [0.1, 0.2], "decy": [0.0, 1.0]}, init=init)


def test_a_name_that_is_not_there_says_which_are():
    with pytest.raises(KeyError, match="make_optimizer reads 'rte'; configs has 'rate', 'b1'"):
        fit(lambda c: optfx.sgd(c["rte"]), {"rate": [0.1], "b1": [0.9]})

    def other(c):
        return {"a": optfx.sgd(c["rate"])}[("not", "a name")]

    with pytest.raises(KeyError, match="'not', 'a name'"):
        fit(other)


def test_the_best_setting_goes_back_into_fit():
    first = fit(lambda c: optfx.adam(c["rate"], b1=c["b1"]), {"rate": [0.1, 0.2], "b1": [0.8, 0.9]}, init=SAME)
    best = first.best()
    again = fit(lambda c: optfx.adam(c["rate"], b1=c["b1"]), best.config, init=SAME)
    assert torch.equal(again.losses[:, 0], first.losses[:, best.index])
    several = fit(lambda c: optfx.adam(c["rate"], b1=c["b1"]), best.config | {"rate": [0.3, 0.4, 0.5]}, init=SAME)
    assert several.configs["b1"].tolist() == [best.config["b1"]] * 3
    assert several.configs["rate"].tolist() == [0.3, 0.4, 0.5]
    tx = optfx.adam(best.config["rate"], b1=best.config["b1"])  # and into an optimizer
    assert tx.steps[0].b1 == best.config["b1"]


# ---- what vmap does not do ---------------------------------------------------------------------------


def deep(*layers):
    return nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 1))


ADJACENCY = torch.eye(8).roll(1, 0).to_sparse()
CANNOT = {
    "if in make": (
        {"make": lambda c: optfx.sgd(c["rate"]) if c["rate"] > 0.1 else optfx.adam(c["rate"])},
        r"make_optimizer: it branches on a value.*torch\.where",
    ),
    "float": ({"make": lambda c: optfx.sgd(float(c["rate"]))}, "make_optimizer: it turns a value into a Python number"),
    "if in loss": (
        {"loss_fn": lambda p, x: p["weight"].sum() if p["weight"].sum() > 0 else p["bias"].sum()},
        r"loss_fn: it branches on a value.*torch\.where",
    ),
    "dropout": ({"model": deep(nn.Dropout())}, r"(?s)loss_fn: it draws random numbers.*key = batch\n.*model\.eval\(\)"),
    "random": (
        {"loss_fn": lambda p, x: (p["weight"] * torch.randn(3)).sum()},
        r"(?s)loss_fn: .*optfx\.random\.uniform",
    ),
    "batch norm": (
        {"model": deep(nn.BatchNorm1d(4))},
        r"(?s)loss_fn: .*BatchNorm.*\n    torch\.func\.replace_all_batch_norm_modules_\(model\)",
    ),
    "if in evaluate": (
        {"evaluate": lambda p: {"loss": p["bias"].sum() if p["bias"].sum() > 0 else p["weight"].sum()}},
        "evaluate: it branches on a value",
    ),
    "random init": (
        {"init": lambda key: {"weight": torch.randn(1, 3), "bias": torch.zeros(1)}},
        r"(?s)init: it draws random.*nn\.Linear and nn\.init .*\n    weight = optfx\.random\.normal\(first, ",
    ),
    "a layer as init": ({"init": lambda key: optfx.params(nn.Linear(3, 1))}, "init: it draws random"),
    "random batches": (
        {"batches": lambda step, key: torch.randn(8, 3)},
        r"(?s)batches: it draws random .*\n    batches = lambda step, key: optfx\.random\.normal",
    ),
    "dropout in evaluate": (
        {"evaluate": lambda p: {"loss": nn.functional.dropout(p["weight"]).sum()}},
        r"evaluate: it draws random .*optfx\.random\.normal\(optfx\.random\.key\(0\), shape\)\. Or call model\.eval",
    ),
    "sparse": (
        {"loss_fn": lambda p, x: (ADJACENCY @ (x @ p["weight"].T)).sum()},
        r"(?s)loss_fn: it works with a sparse tensor.*\.index_add\(0, rows, .*adjacency\.to_dense\(\)",
    ),
    "sparse rows": (
        {"loss_fn": lambda p, x: (ADJACENCY.to_sparse_csr() @ (x @ p["weight"].T)).sum()},
        "loss_fn: it works with a sparse tensor",
    ),
    "spectral norm": (
        {"model": nn.utils.parametrizations.spectral_norm(nn.Linear(3, 1))},
        r"loss_fn: it writes to a tensor that all members share .* torch\.linalg\.matrix_norm\(weight, 2\)",
    ),
    "if in a schedule": (
        {"make": lambda c: optfx.sgd(lambda count: c["rate"] if count < 3 else 0.1 * c["rate"])},
        "make_optimizer: it branches on a value",
    ),
    "float in a schedule": (
        {"make": lambda c: optfx.sgd(lambda count: c["rate"] * math.cos(count))},
        "make_optimizer: it turns a value into a Python number",
    ),
    "numpy in a schedule": (
        {"make": lambda c: optfx.sgd(lambda count: c["rate"] * np.interp(count, [0, 5], [1.0, 0.1]))},
        "make_optimizer: it reads the memory of a tensor",
    ),
    "numpy in loss": (
        {"loss_fn": lambda p, x: p["weight"].sum() + float(p["bias"].detach().numpy()[0])},
        "loss_fn: it reads the memory of a tensor",
    ),
    "numpy in evaluate": (
        {"evaluate": lambda p: {"loss": float(np.median(p["weight"].numpy()))}},
        "evaluate: it reads the memory of a tensor .* of one member when training is over",
    ),
    "a mask as an index": (
        {"loss_fn": lambda p, x: p["weight"][p["weight"] > 0].sum()},
        "loss_fn: a shape depends on values .* multiply by the mask",
    ),
    "allclose": (
        {"loss_fn": lambda p, x: p["weight"].sum() * (1 if torch.allclose(p["bias"], p["weight"]) else 2)},
        "loss_fn: it asks whether tensors are alike",
    ),
}


@pytest.mark.parametrize(("changes", "words"), CANNOT.values(), ids=CANNOT)
def test_what_cannot_run_for_many_members_says_what_to_do(changes, words, fresh_dynamo):
    with pytest.raises(RuntimeError, match=words):
        fit(**changes, compile=True)
    assert not fresh_dynamo["stats"]


def test_what_the_advice_says_works():
    model = deep(nn.Dropout(), nn.BatchNorm1d(4))
    torch.func.replace_all_batch_norm_modules_(model)
    assert fit(model=model.eval()).losses.isfinite().all()
    fit(lambda c: optfx.sgd(torch.where(c["rate"] > 0.1, c["rate"], 0.5)))


def lines_of(error):
    return [line.strip() for line in str(error.value).splitlines() if line.startswith("    ")]


def test_the_code_for_random_parameters_and_batches_works():
    with pytest.raises(RuntimeError, match="draws random numbers") as error:
        fit(init=lambda key: {"weight": torch.randn(1, 3)})
    names = {"optfx": optfx, "sweep": sweep, "torch": torch, "key": optfx.random.key(0)}
    exec("\n".join(lines_of(error)), names)
    assert names["weight"].shape == (8, 4)
    names["models"] = [nn.Linear(3, 1) for _ in range(2)]
    (made,) = re.findall(r"init=(.*)\.$", str(error.value))
    assert fit(init=eval(made, names)).losses[0].unique().numel() == 2
    with pytest.raises(RuntimeError, match="draws random numbers") as error:
        fit(batches=lambda step, key: torch.randn(8, 3))
    exec("\n".join(lines_of(error)), names)
    assert names["batches"](0, optfx.random.key(0)).shape == (8, 4)
    drawn = lambda p: {"loss": p["weight"].sum() + optfx.random.normal(optfx.random.key(0), ())}
    assert fit(evaluate=drawn).metrics["loss"].isfinite().all()


def test_the_code_for_sparse_tensors_works():
    adjacency, model = ADJACENCY, nn.Linear(3, 1)
    (rows, columns), values = adjacency.coalesce().indices(), adjacency.coalesce().values()

    def sparse(p, x):
        hidden = x @ p["weight"].T
        return (torch.zeros_like(hidden).index_add(0, rows, values[:, None] * hidden[columns]) * x).square().sum()

    dense = fit(model=model, loss_fn=lambda p, x: (adjacency.to_dense() @ (x @ p["weight"].T) * x).square().sum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(fit(model=model, loss_fn=sparse, compile=True).losses, dense.losses)


def test_the_code_for_spectral_norm_works():
    normed = lambda p, x: (x @ (p["weight"] / torch.linalg.matrix_norm(p["weight"], 2)).T).square().mean()
    assert fit(loss_fn=normed).losses.isfinite().all()


def test_an_evaluation_that_torch_cannot_trace_is_run():
    def masked(params):
        mask = torch.arange(3)
        mask &= 1
        return {"loss": (params["weight"] * mask).sum()}

    assert fit(evaluate=masked).metrics["loss"].shape == (2,)


@pytest.mark.parametrize("compile", [True, False])
def test_what_a_sweep_does_not_give_is_said(compile):
    with pytest.raises(ValueError, match=r"make_optimizer: sam needs .* grad_fn .*, and a sweep gives .*sync_period=2"):
        fit(lambda c: optfx.chain(optfx.sam(optfx.sgd(c["rate"]))), compile=compile)
    fit(lambda c: optfx.sam(optfx.sgd(c["rate"]), sync_period=2), compile=compile)


def test_the_code_for_dropout_works():
    """The lines of the error, in a loss."""
    with pytest.raises(RuntimeError, match="draws random numbers") as error:
        fit(model=deep(nn.Dropout()))
    batches, kept, hidden = lines_of(error)
    names = {"optfx": optfx, "x": X, "y": X.sum(1)}
    exec(batches, names)

    def loss_fn(params, batch):
        x, y, key = batch
        here = names | {"key": key, "hidden": x}
        exec(f"{kept}\n{hidden}", here)
        assert 0.5 < here["kept"].double().mean() < 1
        return ((here["hidden"] @ params["weight"].T)[:, 0] - y).square().mean()

    start = optfx.params(nn.Linear(3, 1))
    configs = {"rate": torch.tensor([0.1, 0.2])}
    made = sweep.fit(lambda c: optfx.sgd(c["rate"]), configs, loss_fn, start, names["batches"], steps=3, compile=False)
    assert made.losses.isfinite().all()


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="Expected size for first two dimensions"):
        fit(model=nn.Linear(5, 1))
