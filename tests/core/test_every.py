"""Periodic work: free between times, and done by those that are due."""

import pytest
import torch
from torch.func import grad, vmap

from optfx.core import every, when_due

X, M = torch.eye(3), torch.arange(1.0, 10).reshape(3, 3)


class Counted:
    """Work that counts how often it is done."""

    def __init__(self):
        self.times = 0

    def __call__(self, x, m):
        self.times += 1
        return torch.linalg.qr(m @ x)[0]


def turn(x, m):
    return torch.linalg.qr(m @ x)[0].detach()


def step(x, m, count, f=turn):
    return when_due(every(2, count), f, x, m)


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
    torch.testing.assert_close(ys, torch.stack([step(X, M, count) for count in counts]))


def test_members_in_one_phase_pay_nothing_between():
    work = Counted()
    ys = vmap(lambda count: step(X, M, count, work))(torch.tensor([1, 3]))
    assert work.times == 0
    assert torch.equal(ys, torch.stack([X, X]))
    vmap(vmap(lambda count: step(X, M, count, work)))(torch.tensor([[1, 3], [5, 2]]))
    assert work.times == 1


def test_several_outputs_and_options():
    def f(x, y, m, by):
        return x + by * m, y - m

    for due in (True, False):
        a, b = when_due(torch.tensor(due), f, X, X, M, outs=2, by=2.0)
        assert torch.equal(a, X + 2 * M if due else X)
        assert torch.equal(b, X - M if due else X)


def of_batch(x, m, count):
    return vmap(step, (None, None, 0))(x, m, torch.stack([count, count + 1]))


def of_grad(x, m, count):
    return grad(lambda m: (step(x, m, count) * m).sum())(m)


@pytest.mark.parametrize("f", [step, of_batch, of_grad])
def test_compiled_it_is_one_graph(f, fresh_dynamo):
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    for count in map(torch.tensor, range(3)):
        torch.testing.assert_close(compiled(X, M, count), f(X, M, count))
    assert fresh_dynamo["stats"]["unique_graphs"] == 1


def test_compiled_the_work_stands_in_a_branch(fresh_dynamo):
    names = []

    def backend(graph, inputs):
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compile(step, fullgraph=True, backend=backend)(X, M, torch.tensor(0))
    assert "cond" in names
    assert not any("qr" in name for name in names)
