"""Stacking and unstacking optimizers."""

from functools import partial

import pytest
import torch

import optfx
from optfx import select, sweep
from optfx.tree import leaves, map, to_dict

PARAMS = {"w": torch.tensor([[1.0, -2.0], [0.5, 3.0]]), "b": torch.tensor([0.1, -0.2])}
GRADS = {"w": torch.tensor([[0.3, -0.1], [0.2, 1.0]]), "b": torch.tensor([2.0, 0.7])}


def make(rate, b1, decay=0.01, limit=1.0):
    return optfx.chain(
        optfx.clip_by_global_norm(limit),
        optfx.scale_by_adam(b1=b1),
        optfx.masked(optfx.add_decayed_weights(decay), select.ndim(min=2)),
        optfx.scale_by_learning_rate(optfx.cosine_decay_schedule(rate, 10)),
    )


TXS = [make(0.1, 0.9), make(0.2, 0.8), make(0.3, 0.7, limit=0.5)]


def two_steps(tx, params, grads):
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(grads, state, params)
    return updates


def test_stack_keeps_equal_numbers_and_batches_different_ones():
    tx = sweep.stack(TXS)
    assert tx.steps[0].max_norm.tolist() == [1.0, 1.0, 0.5]
    assert tx.steps[1].b1.tolist() == [0.9, 0.8, 0.7]
    assert tx.steps[1].b1.dtype == torch.float64
    assert tx.steps[1].b2 == 0.999
    assert tx.steps[2].inner.weight_decay == 0.01
    assert tx.steps[3].learning_rate.init_value.tolist() == [0.1, 0.2, 0.3]
    assert len(leaves(tx)) == 3


def test_a_stack_under_vmap_is_each_of_them():
    mapped = torch.func.vmap(two_steps, in_dims=(0, None, None))(sweep.stack(TXS), PARAMS, GRADS)
    for i, tx in enumerate(TXS):
        alone = two_steps(tx, PARAMS, GRADS)
        for name in PARAMS:
            torch.testing.assert_close(mapped[name][i], alone[name], rtol=1e-6, atol=1e-7)


def test_unstack_undoes_stack():
    back = sweep.unstack(sweep.stack(TXS))
    assert len(back) == len(TXS)
    for before, after in zip(TXS, back, strict=True):
        expected, got = two_steps(before, PARAMS, GRADS), two_steps(after, PARAMS, GRADS)
        assert all(torch.equal(expected[k], got[k]) for k in PARAMS)


def test_stack_undoes_unstack():
    tx = sweep.stack(TXS)
    again = sweep.stack(sweep.unstack(tx))
    a, b = to_dict(tx), to_dict(again)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert repr(again) == repr(tx)


def test_tensors_are_stacked_with_numbers_too():
    rates = [torch.tensor(0.1), 0.2, torch.tensor(0.3, dtype=torch.float64)]
    assert torch.allclose(
        sweep.stack([optfx.scale(r) for r in rates]).step_size, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    )
    same = sweep.stack([optfx.scale(torch.tensor(0.5))] * 2).step_size
    assert torch.equal(same, torch.tensor([0.5, 0.5]))


def test_lengths_stay_integers():
    txs = [optfx.cosine_decay_schedule(0.1, n) for n in (10, 20)]
    assert torch.equal(sweep.stack(txs).decay_steps, torch.tensor([10, 20]))


def test_numbers_in_a_container_become_tensors_together():
    txs = [optfx.piecewise_constant_schedule(1.0, {10: 0.1, 20: x}) for x in (0.5, 0.6)]
    stacked = sweep.stack(txs)
    values = torch.func.vmap(lambda s: s(torch.tensor(25)))(stacked)
    assert torch.allclose(values, torch.stack([s(torch.tensor(25)) for s in txs]))
    assert len(sweep.unstack(stacked)) == 2


def test_foreign_pairs_stack_when_they_are_the_same():
    class pair:
        init = staticmethod(lambda params: ())
        update = staticmethod(lambda updates, state, params=None: (updates, state))

    assert isinstance(sweep.stack([pair, pair]), optfx.core.from_functions)


def plus(x, by):
    return x + by


@pytest.mark.parametrize(
    ("txs", "words"),
    [
        ([optfx.adam(0.1), optfx.sgd(0.1)], "differ"),
        ([optfx.chain(optfx.adam(0.1), optfx.clip(1.0)), optfx.chain(optfx.adam(0.1), optfx.scale(1.0))], "'steps.1'"),
        ([optfx.scale_by_adam(nesterov=True), optfx.scale_by_adam()], "'nesterov'.*True in 0, False in 1"),
        ([optfx.scale_by_adam(mu_dtype=torch.bfloat16), optfx.scale_by_adam()], "'mu_dtype'"),
        ([optfx.masked(optfx.scale(1.0), select.path(p)) for p in "ab"], "'mask.pattern'.*'a' in 0, 'b' in 1"),
        ([optfx.masked(optfx.scale(1.0), {"w": x}) for x in (True, False)], "'mask.w'"),
        ([optfx.masked(optfx.scale(1.0), {x: True}) for x in "ab"], "'mask'"),
        ([optfx.chain(), optfx.chain(optfx.scale(1.0))], "'steps'"),
        ([optfx.scale(torch.zeros(2)), optfx.scale(torch.zeros(3))], "'step_size'"),
        ([optfx.scale(torch.zeros(2)), optfx.scale(1.0)], "'step_size'"),
        ([optfx.scale(0.1), optfx.scale(optfx.constant_schedule(0.1))], "'step_size'"),
        ([optfx.scale_by_schedule(partial(plus, by=1)), optfx.scale_by_schedule(partial(plus, by=1))], "step_size_fn"),
        ([], "no optimizers"),
    ],
)
def test_unlike_optimizers_are_an_error_that_names_the_field(txs, words):
    with pytest.raises(ValueError, match=words):
        sweep.stack(txs)


def test_what_is_no_optimizer():
    with pytest.raises(TypeError, match=r"expected a transform .* got 0\.1"):
        sweep.stack([0.1, 0.2])
    with pytest.raises(ValueError, match="unstack: there are no tensors"):
        sweep.unstack(optfx.adam(0.1))
    with pytest.raises(ValueError, match=r"unstack: 'steps.1.learning_rate' is \(3,\)"):
        sweep.unstack(optfx.chain(optfx.scale(torch.zeros(2)), optfx.scale_by_learning_rate(torch.zeros(3))))


def test_stacked_parameters_share_their_leading_dimension():
    sweep.stacked({"w": torch.zeros(4, 2), "b": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"stacked: 'w' is \(3, 2\)"):
        sweep.stacked({"b": torch.zeros(4), "w": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match=r"stacked: 'b' is \(\)"):
        sweep.stacked({"b": torch.zeros(()), "w": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="no tensors"):
        sweep.stacked({})
    assert map(lambda x: x[0], sweep.stacked({"w": torch.ones(2)}).params)["w"] == 1
