"""Periodic work: free between times, and done by those that are due."""

import pytest
import torch
from torch.func import grad, vmap

import optfx
from optfx import core, tree
from optfx.core import every, when_due

X, M = {"a": torch.eye(3), "b": [torch.ones(2, 2)]}, {"a": torch.arange(1.0, 10).reshape(3, 3), "b": [torch.eye(2)]}


def turned(x, m):
    return torch.linalg.qr(m @ x)[0].detach()


def turn(x, m):
    return tree.matrixwise(turned, x, m)


class Counted:
    """Work that counts how often it is done."""

    def __init__(self):
        self.times = 0

    def __call__(self, x, m):
        self.times += 1
        return turn(x, m)


def step(x, m, count, f=turn):
    return when_due(every(2, count), f, x, m)


def assert_equal(a, b):
    assert tree.flatten(a)[1] == tree.flatten(b)[1]
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        torch.testing.assert_close(x, y)


def test_it_is_done_at_every_kth_step_and_not_at_all_between():
    work, times = Counted(), []
    for count in range(4):
        y = step(X, M, torch.tensor(count), work)
        times.append(work.times)
        assert (y is X) == (count % 2 == 1)
    assert times == [1, 1, 2, 2]


def test_members_in_other_phases():
    work, counts = Counted(), torch.arange(3)
    ys = vmap(lambda count: step(X, M, count, work))(counts)
    assert work.times == 1  # for all that are due
    assert_equal(ys, tree.map(lambda *ys: torch.stack(ys), *[step(X, M, count) for count in counts]))


def test_members_in_one_phase_pay_nothing_between():
    work = Counted()
    ys = vmap(lambda count: step(X, M, count, work))(torch.tensor([1, 3]))
    assert work.times == 0
    assert_equal(ys, tree.map(lambda x: torch.stack([x, x]), X))
    vmap(vmap(lambda count: step(X, M, count, work)))(torch.tensor([[1, 3], [5, 2]]))
    assert work.times == 1


def shift(x, y, m, by):
    return tree.add_scale(x, by, m), tree.sub(y, m)


def test_several_outputs_and_numbers():
    for due in (True, False):
        x, y = when_due(torch.tensor(due), shift, X, X, M, outs=2, by=2.0)
        assert_equal((x, y), (tree.add_scale(X, 2.0, M), tree.sub(X, M)) if due else (X, X))


def of_batch(x, m, count):
    return vmap(step, (None, None, 0))(x, m, torch.stack([count, count + 1]))


def of_grad(x, m, count):
    return grad(lambda m: tree.vdot(step(x, m, count), m))(m)


@pytest.mark.parametrize("f", [step, of_batch, of_grad])
def test_compiled_it_is_one_graph(f, fresh_dynamo):
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    for count in map(torch.tensor, range(3)):
        assert_equal(compiled(X, M, count), f(X, M, count))
    assert fresh_dynamo["stats"]["unique_graphs"] == 1


def test_compiled_the_work_stands_in_a_branch(fresh_dynamo):
    names = []

    def backend(graph, inputs):
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compile(step, fullgraph=True, backend=backend)(X, M, torch.tensor(0))
    assert "cond" in names
    assert not any("qr" in name for name in names)


class Work:
    """How often it was done by all steps."""

    times = 0


def noted(m, u, by):
    Work.times += 1
    return tree.add_scale(m, by, u)


@tree.record
class now_and_then(core.GradientTransformation):
    """Gives a sum of some of the updates."""

    by: core.Hyper = 2.0

    def begin(self, params):
        return core.Count(core.counter(params)), tree.zeros_like(params)

    def step(self, updates, state, params):
        (count,), total = state
        total = when_due(every(3, count), noted, total, updates, by=self.at(count)["by"])
        return total, (core.Count(count + 1), total)


@pytest.mark.parametrize("members", [None, 2])
def test_fused_it_costs_nothing_between(members):
    tx = now_and_then()
    p = X if members is None else tree.map(lambda x: torch.stack([x, 2 * x]), X)
    opt = optfx.fuse(tx, members)
    q, state = opt.init(p)
    mine = opt._members.init(tx, p)
    assert "noted, as it is, for it is done at times" in opt.explain()
    update = tx.update if members is None else vmap(tx.update)
    for count in range(5):
        Work.times = 0
        q, state = opt.step(tree.scale(count + 1.0, p), state, q)
        assert Work.times == (count % 3 == 0)
        updates, mine = update(tree.scale(count + 1.0, p), mine, p)
        p = tree.add(p, updates)
        assert_equal((q, state), (p, mine))


def test_fused_what_is_kept_is_not_written():
    opt = optfx.fuse(optfx.scale_by_soap(frequency=2))
    p, state = opt.init({"w": torch.randn(3, 3)})
    assert "basis" not in opt.explain()  # no kernel does it
    bases = []
    for seed in range(4):
        p, state = opt.step({"w": torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))}, state, p)
        bases.append(state.left_basis["w"].clone())
    assert torch.equal(bases[0], torch.eye(3))  # the second step finds them
    assert torch.equal(bases[1], bases[2])
    assert not torch.equal(bases[2], bases[3])
