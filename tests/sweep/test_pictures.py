"""Pictures and the page: what they show, of whom, and that they never stop a run."""

import dataclasses
import re
import sys

import pytest
import torch

import optfx
from optfx import sweep
from optfx.sweep import page, pictures
from optfx.sweep.history import STOPPED, History
from optfx.sweep.lineage import ancestors, schedules, sources
from optfx.sweep.pictures import scales
from optfx.sweep.pictures.genealogy import heights
from optfx.sweep.pictures.seeds import grouped

SPACE = {"rate": sweep.log_uniform(1e-3, 0.3), "decay": sweep.uniform(0.0, 0.1)}


def fit(configs, init=None, **options):
    """A parabola, whose minimum moves from step to step."""

    def loss_fn(params, batch):
        return (params["w"] - batch).square().sum()

    return sweep.fit(
        lambda c: optfx.chain(optfx.add_decayed_weights(c["decay"]), optfx.sgd(c["rate"])),
        configs,
        loss_fn,
        {"w": torch.zeros(2)} if init is None else init,
        lambda step: torch.tensor([1.0, -1.0]) + 0.1 * step,
        evaluate=lambda params: {"val_loss": loss_fn(params, 2.0), "score": -params["w"].sum()},
        compile=False,
        **options,
    )


@pytest.fixture(scope="module")
def halved():
    return fit(sweep.sample(SPACE, 16), rungs=[2, 5, 10], policy=sweep.halve(2))


@pytest.fixture(scope="module")
def evolved():
    return fit(sweep.sample(SPACE, 8), steps=20, every=4, policy=sweep.exploit(SPACE))


@pytest.fixture(scope="module")
def repeated():
    init = lambda key: {"w": optfx.random.normal(key, (2,))}
    return fit(sweep.grid({"rate": [0.001, 0.1], "decay": [0.0], "seed": [0, 1, 2]}), init, steps=12, every=3)


@pytest.fixture(scope="module")
def plain():
    return fit(sweep.sample(SPACE, 4), steps=5)


def svg(result, tmp_path, **options):
    result.plot(tmp_path / "a.svg", **options)
    return (tmp_path / "a.svg").read_text()


# ---- who descends from whom -------------------------------------------------------------------


def history(parent, configs=None, values=None):
    parent = torch.tensor(parent)
    looks = len(parent)
    values = torch.zeros(parent.shape, dtype=torch.float64) if values is None else values
    return History(torch.arange(1, looks + 1) * 10, {}, values, configs or {}, parent)


def test_ancestors_by_hand():
    """At the first look 1 becomes a copy of 0, at the second 2 of 1; nothing changes at the last."""
    h = history([[0, 0, 2], [0, 1, 1], [0, 1, 2]])
    assert ancestors(h, torch.arange(3)).tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 2]]
    rates = torch.tensor([[1.0, 2, 3], [1, 1.2, 3], [1, 1.2, 0.8]], dtype=torch.float64)
    found = schedules(history(h.parent.tolist(), {"rate": rates}), torch.arange(3))["rate"]
    assert found.T.tolist() == [[1, 1, 1], [1, 1.2, 1.2], [1, 1.2, 0.8]]


def test_sources_are_found_by_the_numbers_of_members():
    h = history([[30, 30, 10], [20, STOPPED, 99]])
    assert sources(h, torch.tensor([20, 30, 10])).tolist() == [[1, 1, 2], [0, 1, 2]]


def test_what_was_copied_has_the_schedule_of_its_ancestors(evolved):
    way = ancestors(evolved.history, evolved.member)
    assert (way != torch.arange(8)).any()
    for name, x in evolved.schedules.items():
        assert torch.equal(x[-1], evolved.configs[name])
        for i in range(8):
            assert x[:, i].tolist() == [evolved.history.configs[name][k, way[k, i]].item() for k in range(5)]


def test_no_two_lines_of_a_genealogy_cross(evolved):
    went = sources(evolved.history, evolved.member)
    found = heights(evolved.history.values, went)
    assert (went != torch.arange(8)).sum() > 4
    for k in range(1, len(found)):
        order = found[k].argsort()
        before = found[k - 1][went[k - 1][order]]
        assert (before.diff() >= 0).all()


def test_lines_end_with_who_was_stopped():
    values = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, torch.nan]], dtype=torch.float64)
    found = heights(values, sources(history([[0, 1, STOPPED], [0, 1, STOPPED]]), torch.arange(3)))
    assert found.isnan().tolist() == [[False] * 3, [False, False, True]]
    assert found[0].argsort().tolist() == [2, 1, 0]  # the best at the first look on top


# ---- pictures ---------------------------------------------------------------------------------


def test_each_shows_what_it_is_of(halved, evolved, repeated, plain, tmp_path):
    assert "stopped (12)" in svg(halved, tmp_path, kind="stopped")
    assert "ancestors of the best" in svg(evolved, tmp_path, kind="genealogy")
    assert "rate 0.001, decay 0" in svg(repeated, tmp_path, kind="seeds")
    for result in (halved, evolved, repeated, plain):
        shown = svg(result, tmp_path, kind="parallel")
        assert all(f">{name}<" in shown for name in (*result.configs, "val_loss"))


def test_a_picture_with_nothing_to_show_says_so(plain, halved, tmp_path):
    for kind, words in (
        ("stopped", "every member went on to the end"),
        ("genealogy", "no member became a copy"),
        ("seeds", "no two members differ in the setting 'seed' alone"),
    ):
        with pytest.raises(ValueError, match=f"{kind}: {words}"):
            plain.plot(tmp_path / "a.png", kind=kind)
    with pytest.raises(ValueError, match="no member became a copy"):
        halved.plot(tmp_path / "a.png", kind="genealogy")
    with pytest.raises(ValueError, match="'pie'; there are settings, stopped, parallel, genealogy, seeds"):
        plain.plot(tmp_path / "a.png", kind="pie")
    assert not (tmp_path / "a.png").exists()


def test_what_was_stopped_is_gray_and_has_no_rank(halved, plain, tmp_path):
    _, values, mode = halved.judge()
    found = scales.Scales("val_loss", values, mode, scales.was_stopped(halved))
    assert len(found.stopped) == 12
    assert sorted(found.worst_first) == (halved.age == 10).nonzero()[:, 0].tolist()
    assert found.best == halved.best().index
    assert scales.STOPPED in svg(halved, tmp_path)
    assert scales.STOPPED not in svg(plain, tmp_path)


def test_all_stopped_are_ranked_all_the_same():
    values = torch.tensor([2.0, 1.0, torch.nan], dtype=torch.float64)
    found = scales.Scales("loss", values, "min", torch.ones(3, dtype=torch.bool))
    assert (found.worst_first, found.best, found.stopped) == ([0, 1], 1, [])


def test_repetitions_are_put_together(repeated):
    _, values, mode = repeated.judge()
    groups = grouped(repeated, scales.Scales("val_loss", values, mode))
    assert [g.members.tolist() for g in groups] == [[3, 4, 5], [0, 1, 2]]  # the better first
    assert [g.name for g in groups] == ["rate 0.1, decay 0", "rate 0.001, decay 0"]
    assert groups[0].mean == pytest.approx(values[3:].mean().item())


@pytest.mark.parametrize("kind", ["settings", "parallel"])
@pytest.mark.parametrize("metric", ["val_loss", "score"])
@pytest.mark.parametrize("gone", ["nobody", "one", "all"])
def test_any_of_them_diverged(kind, metric, gone, tmp_path):
    rate = {"nobody": [0.1, 0.2], "one": [0.1, 1e20], "all": [1e20, 1e20]}[gone]
    result = fit({"rate": rate, "decay": [0.0, 0.1]}, steps=8)
    shown = svg(result, tmp_path, kind=kind, metric=metric, mode="max" if metric == "score" else None)
    assert ("diverged (" in shown) == (gone != "nobody")


def test_words_and_absent_settings_are_on_axes(tmp_path):
    space = {
        "rate": sweep.uniform(0.1, 0.2),
        "rule": sweep.choice({"sgd": {}, "adam": {"b2": sweep.uniform(0.9, 0.999)}}),
    }
    result = sweep.fit(
        lambda c: optfx.sgd(c["rate"]) if c["rule"] == "sgd" else optfx.adam(c["rate"], b2=c["b2"]),
        sweep.sample(space, 6),
        lambda params, batch: (params["w"] - batch).square().sum(),
        {"w": torch.zeros(2)},
        [torch.ones(2)],
        steps=4,
        compile=False,
    )
    assert result.configs["b2"].isnan().any()
    for kind in ("settings", "parallel"):
        shown = svg(result, tmp_path, kind=kind)
        assert ">sgd<" in shown
        assert ">adam<" in shown


# ---- the page ---------------------------------------------------------------------------------


def body(file):
    return re.search(r"<tbody>\n(.*)\n</tbody>", file.read_text(), re.S)[1].splitlines()


def test_a_page_needs_nothing_from_elsewhere(halved, tmp_path):
    halved.page(tmp_path / "new" / "a.html")
    text = (tmp_path / "new" / "a.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', text) == []
    assert re.findall(r"https?:|@import|url\(", text) == []
    assert text.count("<img ") == 3  # settings, stopped, parallel
    assert 'http-equiv="refresh"' not in text


def test_the_table_of_a_page_has_all_members(halved, tmp_path):
    halved.page(tmp_path / "a.html")
    rows = body(tmp_path / "a.html")
    assert len(rows) == 16
    assert [row.count("<td") for row in rows] == [9] * 16  # rank, member, two settings, three outcomes, age, end
    best = halved.best()
    assert rows[0].startswith(f"<tr><td>1</td><td>{best.index}</td>")
    assert f'data-x="{best.metrics["val_loss"]!r}"' in rows[0]
    assert sum("class=stopped" in row for row in rows) == 12


def test_names_are_text(tmp_path):
    result = fit({"rate": [0.1, 0.2], "decay": 0.0}, steps=2)
    result.configs["<b>"] = torch.tensor([1, 2])
    result.page(tmp_path / "a.html")
    assert "<b>" not in (tmp_path / "a.html").read_text()


def test_a_page_without_matplotlib_has_the_table(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plain.page(tmp_path / "a.html")
    assert "plots need matplotlib" in (tmp_path / "a.html").read_text()
    assert len(body(tmp_path / "a.html")) == 4


def test_a_picture_that_fails_says_so_in_its_place(plain, tmp_path, monkeypatch):
    def broken(figure, result, scales):
        raise RuntimeError("no <ink>")

    monkeypatch.setitem(pictures.KINDS, "parallel", broken)
    plain.page(tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "It could not be drawn: RuntimeError(&#x27;no &lt;ink&gt;&#x27;)" in text
    assert text.count("<img ") == 1


def test_a_run_writes_its_page_as_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SECONDS", 0.0)
    monkeypatch.setattr(page, "SHARE", 1e9)
    seen = []

    def look(_):
        if (file := tmp_path / "sweep.html").exists():
            seen.append(file.read_text())

    whole = fit(sweep.sample(SPACE, 4), steps=8, every=2, callback=look, folder=tmp_path)
    assert len(seen) >= 3
    assert all('http-equiv="refresh"' in text and ", it goes on." in text for text in seen)
    last = (tmp_path / "sweep.html").read_text()
    assert 'http-equiv="refresh"' not in last
    assert f"<td>{whole.best().index}</td>" in body(tmp_path / "sweep.html")[0]


def test_a_short_run_has_no_page(tmp_path):
    fit(sweep.sample(SPACE, 2), steps=2, folder=tmp_path)
    assert not (tmp_path / "sweep.html").exists()


def test_schedules_need_looks(plain):
    with pytest.raises(ValueError, match="nobody looked"):
        _ = dataclasses.replace(plain, history=None).schedules
