"""A population is a value: stopping, splitting, ordering, joining and ages change no bit of a member."""

import pytest
import torch

import optfx
from optfx import sweep, tree
from tests.sweep.small import SPACE, batches, configs, evaluate, init, loss_fn, make_optimizer, same, trainer


@pytest.fixture(scope="module")
def ours():
    return trainer()


def test_fit_is_start_and_train(ours):
    result = sweep.fit(make_optimizer, configs(), loss_fn, init, batches, steps=20, evaluate=evaluate, progress=False)
    population, losses = ours.train(ours.start(configs()), 20)
    assert torch.equal(result.losses, losses)
    assert same(result.params, population.params)
    assert same(result.metrics, ours.evaluate(population))
    assert same(result.population.state, population.state)
    assert repr(population) == "<population of 11 settings of rate, b1: 20 steps old>"


def test_a_population_is_left_as_it_was(ours):
    start = ours.start(configs())
    before = tree.map(torch.clone, start)
    ours.train(start, 3)
    ours.run(start, 6, every=2, policy=sweep.exploit(SPACE), progress=False)
    assert same(start, before)


def test_stopping_and_going_on_changes_nothing(ours):
    start = ours.start(configs())
    whole, losses = ours.train(start, 20)
    half, first = ours.train(start, 7)
    rest, last = ours.train(half, 13)
    assert same(rest, whole)
    assert torch.equal(losses, torch.cat([first, last]))


@pytest.mark.parametrize("threads", [1, 2])
def test_splitting_and_joining_changes_nothing(ours, threads):
    before = torch.get_num_threads()
    start = ours.start(configs())
    whole, losses = ours.train(start, 9)
    torch.set_num_threads(threads)
    parts = [ours.train(start[i::3], 9) for i in range(3)]
    torch.set_num_threads(before)
    joined = sweep.join([part for part, _ in parts])
    order = joined.member.argsort()
    assert same(joined[order], whole)
    assert torch.equal(torch.cat([found for _, found in parts], 1)[:, order], losses)


def test_parts_may_be_started_apart(ours):
    """As several processes do: members have their keys from their numbers."""
    settings, whole = configs(), ours.start(configs())
    for i in range(2):
        part = trainer().start({k: x[i::2] for k, x in settings.items()}, torch.arange(11)[i::2])
        assert same(part, whole[i::2])


def test_members_of_different_ages_see_the_batches_of_their_age(ours):
    start = ours.start(configs())
    young, old = start[:6], ours.train(start, 8)[0][6:]
    mixed, losses = ours.train(sweep.join([young, old]), 5)
    assert same(mixed[:6], ours.train(start, 5)[0][:6])
    assert same(mixed[6:], ours.train(start, 13)[0][6:])
    assert torch.equal(losses[:, :6], ours.train(start, 5)[1][:, :6])
    result = ours.run(sweep.join([young, old]), 13, progress=False)
    assert same(result.params, ours.train(start, 13)[0].params)
    assert result.losses.shape == (13, 11)
    assert result.losses[:8, 6:].isnan().all()


def test_a_member_twice_is_two_members(ours):
    start = ours.start(configs())
    twice, _ = ours.train(start[[3, 3, 0]], 4)
    once, _ = ours.train(start, 4)
    assert same(twice, once[[3, 3, 0]])


def test_a_setting_that_is_changed_in_the_middle(ours):
    half, _ = ours.train(ours.start(configs()), 5)
    slow = tree.replace(half, configs=half.configs | {"rate": half.configs["rate"] * 0})
    still, _ = ours.train(slow, 3)
    assert same(still.params, half.params)
    assert not same(ours.train(half, 3)[0].params, half.params)


def test_a_population_is_a_tree_and_has_the_indices_of_a_sequence(ours):
    start = ours.start(configs())
    assert same(tree.map(lambda x: x[[2, 4]], start), start[[2, 4]])
    assert len(start[start.configs["rate"] > 0.1]) == int((start.configs["rate"] > 0.1).sum())
    assert [len(start[3]), len(start[2:5]), len(start[torch.tensor(3)]), len(start[[]])] == [1, 3, 1, 0]


def test_nothing_compiles_again(ours, tmp_path, monkeypatch):
    """Through halving, population based training, other numbers of members, and other settings."""
    from optfx.compiler.kernels.cpp import build

    one = trainer()
    one.train(one.start(configs(64)), 2)
    monkeypatch.setattr(build.subprocess, "Popen", lambda *a, **k: pytest.fail("a compiler was started"))
    monkeypatch.setattr(build, "folder", lambda: pytest.fail("a kernel was looked for") if False else tmp_path)
    monkeypatch.undo()
    started = []
    real = build.subprocess.Popen
    monkeypatch.setattr(build.subprocess, "Popen", lambda *a, **k: started.append(a) or real(*a, **k))
    one.run(one.start(configs(64)), rungs=[2, 4, 8], policy=sweep.halve(4), progress=False)
    one.run(one.start(configs(20)), 12, every=3, policy=sweep.exploit(SPACE), progress=False)
    for seed in range(8):
        one.run(one.start(sweep.sample(SPACE, 13, seed=seed)), 3, progress=False)
    assert not started


def test_one_graph_for_any_number_of_members(fresh_dynamo):
    """Lanes of one size, where the whole step is compiled."""
    one = trainer(compile="aot_eager", chunk_size=4)
    start = one.start(configs(10))
    whole = one.run(start, rungs=[2, 4, 6], policy=sweep.halve(2), progress=False)
    one.run(start[:3], 8, every=2, policy=sweep.exploit(SPACE), progress=False)
    assert fresh_dynamo["stats"]["unique_graphs"] == 1
    plain = trainer(compile=False).run(start, rungs=[2, 4, 6], policy=sweep.halve(2), progress=False)
    torch.testing.assert_close(whole.params, plain.params, rtol=1e-4, atol=1e-5)


def test_a_population_of_another_trainer(ours):
    other = sweep.Trainer(
        make_optimizer, lambda p, b: p["x"].square().sum(), {"x": torch.zeros(3)}, [None], compile=False
    )
    with pytest.raises(ValueError, match=r"of another trainer: .*'0\.w'"):
        other.train(ours.start(configs()), 1)
    with pytest.raises(ValueError, match="join: populations of 2 structures"):
        sweep.join([ours.start(configs()), other.start(configs())])


def test_structure_is_for_fit():
    with pytest.raises(ValueError, match="'kind' is structure: a Trainer has one, which is given as fixed"):
        trainer().start(configs() | {"kind": "adam"})


def test_states_without_tensors_beside_others():
    """An empty state in a chain."""
    one = sweep.Trainer(
        lambda c: optfx.chain(optfx.clip(1.0), optfx.trace(0.9), optfx.scale(-c["rate"])),
        lambda p, b: (p - b).square().sum(), torch.zeros(2), [torch.ones(2)],
    )  # fmt: skip
    population, losses = one.train(one.start({"rate": [0.1, 0.2]})[[1, 0]], 3)
    assert population.params.shape == (2, 2)
    assert losses[0].tolist() == [2, 2]


def test_nobody_is_not_trained():
    one = trainer(compile=False)
    nobody = one.start(configs(3))[:0]
    for work in (lambda: one.train(nobody, 1), lambda: one.evaluate(nobody), lambda: one.run(nobody, 1)):
        with pytest.raises(ValueError, match="there are no members"):
            work()
