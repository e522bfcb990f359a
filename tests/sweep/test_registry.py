"""Every row of the registry in a sweep: the members are the runs that each setting has alone."""

import pytest
import torch

import optfx
from optfx import sweep, tree
from tests.harness import assert_close, grads, hyper_rows, params

FACTORS = torch.tensor([1.0, 0.5, 0.9], dtype=torch.float64)


def loss_fn(p, batch):
    return tree.vdot(p, batch) + 0.5 * tree.vdot(p, p)


def alone(tx):
    """The losses of two steps, and the parameters to evaluate after them, written out."""
    p, losses = params(), []
    state = tx.init(p)
    for step in range(2):
        g, loss = torch.func.grad_and_value(loss_fn)(p, grads(step))
        updates, state = tx.update(g, state, p, value=loss, grad=g)
        p = optfx.apply_updates(p, updates)
        losses.append(loss)
    return torch.stack(losses), tx.eval_params(state, p)


def in_a_sweep(row, configs):
    return sweep.fit(
        lambda config: row.make(**config),
        configs,
        loss_fn,
        params(),
        grads,
        steps=2,
        compile=False,
        progress=False,
        chunk_size=3,
    )


@hyper_rows
def test_three_members_are_three_runs(row):
    configs = {name: value * FACTORS for name, value in row.hypers.items()}
    if others := row.extra.keys() - {"value", "grad"}:  # a sweep has no more than these
        with pytest.raises(ValueError, match=f"needs the extra argument {'|'.join(others)}"):
            in_a_sweep(row, configs)
        return
    result = in_a_sweep(row, configs)
    for i in range(3):
        losses, p = alone(row.make(**{name: float(x[i]) for name, x in configs.items()}))
        assert_close(result.losses[:, i], losses, 1e-11, 1e-12)
        assert_close(tree.map(lambda x, i=i: x[i], result.params), p, 1e-11, 1e-12)
