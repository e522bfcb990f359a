"""What a sweep found: the best, tables, files, pictures."""

import io
import json
import math
import sys
import zipfile

import pytest
import torch

import optfx
from optfx import sweep
from optfx.sweep.pictures import scales as s
from optfx.sweep.pictures.settings import smooth
from optfx.tree import leaves, map

N, STEPS = 5, 20


def result(configs=None, metrics=None, params=None, diverged=None):
    configs = configs or {"rate": torch.logspace(-3, 1, N, dtype=torch.float64), "length": torch.arange(N)}
    n = len(next(iter(configs.values())))
    diverged = torch.zeros(n, dtype=torch.bool) if diverged is None else diverged
    losses = torch.linspace(2, 0.1, STEPS)[:, None] * (1 + torch.arange(n))
    losses = torch.where(diverged & (torch.arange(STEPS)[:, None] > 3), float("nan"), losses)
    if metrics is None:
        metrics = {
            "val_loss": torch.tensor([3.0, 1.0, 2.0, 0.5, 4.0]),
            "accuracy": torch.tensor([0.1, 0.9, 0.2, 0.3, 0.4]),
        }
    params = params or {"w": torch.arange(2.0 * n).reshape(n, 2), "0.b": torch.zeros(n, dtype=torch.bfloat16)}
    return sweep.Result(configs, losses, metrics, params, diverged, 3, 1.5, 0.25, 2.0)


ONE_GONE = torch.tensor([False, False, False, True, False])


def test_best():
    best = result().best()
    assert best.index == 3
    assert best.config == {"rate": 1.0, "length": 3}
    assert best.metrics == pytest.approx({"val_loss": 0.5, "accuracy": 0.3, "train_loss": 4 * 0.15})
    assert best.params["w"].tolist() == [6.0, 7.0]
    assert result().best("accuracy").index == 1
    assert result().best("accuracy", mode="min").index == 0
    assert result().best("train_loss").index == 0
    assert result(metrics={}).best().index == 0


def test_the_best_is_printed_without_its_weights():
    assert repr(result().best()) == (
        "<member 3 of a sweep: rate 1, length 3; val_loss 0.5, accuracy 0.3, train_loss 0.6; 3 parameters>"
    )


def test_what_diverged_is_never_the_best():
    gone = result(diverged=ONE_GONE)
    assert gone.best().index == 1
    assert gone.ranking("val_loss") == [1, 2, 0, 4]
    assert gone.ranking("val_loss", "max") == [4, 0, 2, 1]


def test_a_metric_that_is_nan_is_never_the_best():
    values = torch.tensor([3.0, float("nan"), 2.0, 0.5, 4.0])
    assert result(metrics={"score": values}).ranking(mode="max") == [4, 0, 2, 3]
    assert result(metrics={"score": values}).ranking(mode="min") == [3, 2, 0, 4]


def test_which_way_is_better_is_never_guessed():
    odd = result(metrics={"score": torch.zeros(N)})
    with pytest.raises(ValueError, match="'score' is better: mode='min' or mode='max'"):
        odd.best()
    with pytest.raises(ValueError, match="'min' or 'max', got 'up'"):
        odd.best(mode="up")
    with pytest.raises(ValueError, match="no metric is called 'acc'; there are val_loss, accuracy, train_loss"):
        result().best("acc")


def test_table():
    lines = result(diverged=ONE_GONE).table(2).splitlines()
    assert [line.split() for line in lines] == [
        ["member", "rate", "length", "val_loss", "accuracy", "train_loss"],
        ["1", "1", "0.01", "1", "1", "0.9", "0.3"],
        ["2", "2", "0.1", "2", "2", "0.2", "0.45"],
    ]
    assert len({len(line) for line in lines}) == 1
    assert len(result(diverged=ONE_GONE).table().splitlines()) == 5


def test_integers_of_a_table_are_whole():
    configs = {"length": torch.tensor([100_000, 2])}
    assert " 100000 " in result(configs, {"error": torch.tensor([0.1, 0.2])}).table(1)


def test_repr_is_one_line():
    assert repr(result(diverged=ONE_GONE)) == (
        "<sweep of 5 settings of rate, length: 20 steps in 2.0 s, 1.5 s of it compiling, 1 diverged>"
    )


def test_a_result_of_nobody(tmp_path):
    """What nothing fits is an empty result, which is shown and kept as any other."""
    none = result()[torch.zeros(N, dtype=torch.bool)]
    assert repr(none).startswith("<sweep of 0 settings of rate, length")
    assert none.table().split() == ["member", "rate", "length", "val_loss", "accuracy", "train_loss"]
    assert none.ranking() == []
    with pytest.raises(ValueError, match="no best member: there are none"):
        none.best()
    frame = none.to_pandas()
    assert len(frame) == 0
    assert [*frame] == ["rate", "length", "val_loss", "accuracy", "train_loss", "diverged"]
    with pytest.raises(ValueError, match="no members to show"):
        none.plot(tmp_path / "none.png")
    none.page(tmp_path / "none.html")
    none.save(tmp_path / "none.pt")
    assert repr(sweep.load(tmp_path / "none.pt")) == repr(none)
    assert not none.to_optuna().trials


def test_to_pandas():
    frame = result(diverged=ONE_GONE).to_pandas()
    assert list(frame.columns) == ["rate", "length", "val_loss", "accuracy", "train_loss", "diverged"]
    assert frame.shape == (N, 6)
    assert frame["diverged"].tolist() == ONE_GONE.tolist()
    assert frame["length"].dtype == "int64"
    assert frame.loc[1, "accuracy"] == pytest.approx(0.9)


@pytest.mark.parametrize(("module", "call"), [("pandas", "to_pandas"), ("matplotlib", "plot")])
def test_what_is_missing_is_named(module, call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "optfx\[sweep\]"'):
        getattr(result(), call)(*[tmp_path / "a.png"] * (call == "plot"))


def equal(a, b):
    assert list(a.configs) == list(b.configs)
    assert list(a.metrics) == list(b.metrics)
    for name in ("configs", "losses", "metrics", "params", "diverged"):
        for x, y in zip(leaves(getattr(a, name)), leaves(getattr(b, name)), strict=True):
            assert x.dtype == y.dtype
            assert torch.equal(torch.nan_to_num(x, nan=-7.0), torch.nan_to_num(y, nan=-7.0))
    for name in ("chunk_size", "compile_seconds", "run_seconds", "seconds", "mode"):
        assert getattr(a, name) == getattr(b, name)


def test_save_and_load(tmp_path):
    before = result(diverged=ONE_GONE)
    before.save(tmp_path / "new" / "sweep.pt")
    after = sweep.load(tmp_path / "new" / "sweep.pt")
    equal(before, after)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["sweep.pt"]
    before.save(tmp_path / "new" / "sweep.pt")  # over what is there
    assert after.best().config == before.best().config


def test_files_that_do_not_say_the_whole_time(tmp_path):
    result().save(tmp_path / "a.pt")
    found = torch.load(tmp_path / "a.pt", weights_only=True)
    facts = {name: x for name, x in json.loads(found["facts"]).items() if name not in ("seconds", "mode")}
    torch.save(found | {"facts": json.dumps(facts)}, tmp_path / "a.pt")
    old = sweep.load(tmp_path / "a.pt")
    assert math.isnan(old.seconds)
    assert (old.run_seconds, old.mode) == (0.25, None)


def test_the_structure_of_parameters_is_given_to_load(tmp_path):
    state = optfx.adam(0.1).init({"w": torch.ones(2)})
    before = result(params=map(lambda x: torch.stack([x + i for i in range(N)]), state))
    before.save(tmp_path / "a.pt")
    flat, whole = sweep.load(tmp_path / "a.pt"), sweep.load(tmp_path / "a.pt", params=state)
    assert list(flat.params) == ["0.count", "0.mu.w", "0.nu.w", "1.count"]
    equal(before, whole)
    assert type(whole.params[0]) is type(state[0])
    with pytest.raises(ValueError, match=r"missing: b\n.*unexpected: 0.count"):
        sweep.load(tmp_path / "a.pt", params={"b": torch.zeros(2)})


def test_a_file_holds_no_code(tmp_path):
    """Only what `weights_only` allows, and nothing of this library."""
    result().save(tmp_path / "a.pt")
    found = torch.load(tmp_path / "a.pt", weights_only=True)
    assert set(found) == {"facts", "tensors"}
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert not any(b"optfx.sweep" in archive.read(name) for name in archive.namelist() if name.endswith(".pkl"))


def test_other_files_are_refused(tmp_path):
    for content in ({"w": torch.zeros(2)}, torch.zeros(2), {"facts": '{"kind": "other"}', "tensors": {}}):
        torch.save(content, tmp_path / "b.pt")
        with pytest.raises(ValueError, match="holds no optfx sweep"):
            sweep.load(tmp_path / "b.pt")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    result().save(path)
    old = path.read_bytes()

    def broken(content, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        result(diverged=ONE_GONE).save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def pixels(path):
    from PIL import Image

    return Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


SPACES = {"rate": sweep.log_uniform(1e-4, 10), "b1": sweep.uniform(0, 1), "decay": sweep.log_uniform(1e-3, 1),
          "w": sweep.choice([1, 2]), "v": sweep.uniform(0, 1)}  # fmt: skip


@pytest.mark.parametrize(
    ("names", "gone"),
    [(["rate"], 6), (["rate", "b1"], 6), (["rate", "b1"], 0), (["rate", "b1"], 24), (list(SPACES), 6)],
)
def test_pictures(names, gone, tmp_path):
    """Written for any number of hyperparameters, some or all diverged, and not empty."""
    n = 24
    configs = sweep.sample({name: SPACES[name] for name in names}, n)
    metrics = {"val_loss": torch.linspace(0.1, 30, n), "accuracy": torch.linspace(0.3, 0.9, n)}
    swept = result(configs, metrics, diverged=torch.arange(n) >= n - gone)
    swept.plot(tmp_path / "pictures" / "a.png", "accuracy")
    swept.plot(tmp_path / "pictures" / "b.svg")
    assert len(set(pixels(tmp_path / "pictures" / "a.png").get_flattened_data())) > 30
    svg = (tmp_path / "pictures" / "b.svg").read_text()
    assert all(f">{name}<" in svg for name in names)
    assert (f"diverged ({gone})" in svg) == (gone > 0)
    assert ("best" in svg) == (gone < n)


def test_a_score_is_on_a_linear_axis_and_a_loss_on_that_of_its_spread():
    values = torch.logspace(-2, 0, 9, dtype=torch.float64)
    assert s.Scales("loss", values, "min").log
    assert not s.Scales("loss", values, "max").log
    assert not s.Scales("loss", 1 + values, "min").log


@pytest.mark.parametrize("mode", ["min", "max"])
def test_colors_go_by_rank(mode):
    """As many members in each shade, whatever the outliers; equal ones have the same."""
    values = torch.tensor([3.0, 1.0, 2.0, 2.0, 1e9, float("nan")], dtype=torch.float64)
    scales = s.Scales("loss", values if mode == "min" else -values, mode)
    ranks = {0: 0.75, 1: 0.0, 2: 0.25, 3: 0.25, 4: 1.0}
    assert {i: scales.color(i) for i in ranks} == {i: tuple(scales.colors.to_rgba(r)) for i, r in ranks.items()}
    assert len({scales.color(i) for i in ranks}) == 4
    assert scales.best == 1
    assert [float(x) for x in scales.at_quarters().values()] == [x if mode == "min" else -x for x in (1, 2, 2, 3, 1e9)]


def test_hyperparameters_are_numbers_on_their_axes(tmp_path):
    configs = {"rate": torch.logspace(-4, -1, 8), "warmup": torch.arange(8) % 4}
    result(configs, {"val_loss": torch.linspace(1, 2, 8)}).plot(tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()
    for tick in ("0.0001", "0.001", "0.01", "0.1", "2"):
        assert f">{tick}<" in svg
    assert ">0.5<" not in svg  # between whole numbers


@pytest.mark.parametrize(
    "configs",
    [
        sweep.grid({"rate": torch.logspace(-4, -1, 4), "b1": [0.0, 0.9]}),
        {"rate": torch.full((3,), 0.1), "b1": torch.zeros(3)},
        {"rate": torch.tensor([0.1]), "b1": torch.tensor([0.1])},
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, 2.0])
def test_pictures_of_few_and_equal_values(configs, value, tmp_path):
    n = len(configs["rate"])
    swept = result(configs, {"error": torch.full((n,), value)})
    swept.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_pictures_leave_matplotlib_as_it_was(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 17.0}):
        before = dict(matplotlib.rcParams)
        result().plot(tmp_path / "a.png")
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("space", [sweep.log_uniform(1e-5, 1), sweep.log_uniform(0.01, 0.3), sweep.log_uniform(2, 2e6)])
def test_spaces_of_powers_get_logarithmic_axes(space):
    assert s.is_log(sweep.sample({"x": space}, 64)["x"])
    assert s.is_log(sweep.sample({"x": space}, 9, method="random")["x"])


@pytest.mark.parametrize(
    "space", [sweep.uniform(0, 1), sweep.uniform(0.8, 0.99), sweep.uniform(-3, 5), sweep.uniform(1, 90)]
)
def test_other_spaces_get_linear_axes(space):
    assert not s.is_log(sweep.sample({"x": space}, 64)["x"])


def test_grids_of_powers_get_logarithmic_axes():
    assert s.is_log(torch.tensor([0.001, 0.01, 0.1]))
    assert not s.is_log(torch.tensor([0, 1, 2, 3]))
    assert not s.is_log(torch.tensor([0.5, 0.9, 0.99]))


def test_smooth_is_a_mean_over_equal_stretches():
    curves = torch.arange(12.0)[:, None] * torch.tensor([1.0, 2.0])
    steps, means = smooth(curves, points=4)
    assert steps.tolist() == [2.0, 5.0, 8.0, 11.0]
    assert means[:, 0].tolist() == [1.0, 4.0, 7.0, 10.0]
    assert means[:, 1].tolist() == [2.0, 8.0, 14.0, 20.0]
    steps, means = smooth(curves, points=100)
    assert torch.equal(means, curves)
