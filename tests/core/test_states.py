"""States of something else, states to set, and states for a changed optimizer; parameters back into a module."""

from typing import NamedTuple

import pytest
import torch

import optfx
from optfx import core, tree
from tests.harness import assert_close, grads, params, rows

P = {"w": torch.ones(2, 2), "b": torch.ones(2)}


class Other(NamedTuple):
    trace: torch.Tensor


# ---- a wrong state says so -----------------------------------------------------------------------------

WRONG = {
    "nothing": lambda state: (),
    "another's": lambda state: Other(torch.zeros(3)),
    "a step short": lambda state: state[:-1] if type(state) is tuple else None,
    "a batch": lambda state: tree.map(lambda x: torch.stack([x, x]), state),
    "a number": lambda state: 3.0,
}


@rows
def test_a_state_of_something_else_is_an_error_that_names_the_transform(row):
    tx, p = row.make(**row.hypers), params()
    state = tx.init(p)
    for name, wrong in WRONG.items():
        bad = wrong(state)
        if bad is None or (tree.flatten(bad)[1] == tree.flatten(state)[1] and not tree.leaves(state)):
            continue
        error = None
        try:
            tx.update(grads(0), bad, p, **row.extra)
        except Exception as e:
            error = e
        if error is None:  # numbers alone, which broadcast
            assert not any(x.ndim for x in tree.leaves(state)), name
        else:
            assert isinstance(error, ValueError), name
            assert str(error).startswith(f"{type(tx).__name__}: this is not its state: it "), name


def test_an_error_of_the_users_own_stays_what_it_is():
    def fails(updates, params):
        raise KeyError("mine")

    tx = optfx.chain(optfx.scale(1.0), optfx.stateless(fails))
    with pytest.raises(KeyError, match="mine"):
        tx.update(P, tx.init(P), P)


def test_numbers_of_a_wrong_state():
    for tx in (optfx.inject_hyperparams(optfx.sgd(0.1)), optfx.apply_if_finite(optfx.sgd(0.1), 3)):
        with pytest.raises(ValueError, match=r"expected its state, got a tuple"):
            optfx.hyperparams(tx, (torch.tensor(3),))
    assert float(optfx.hyperparams(optfx.scale(0.5), ())["step_size"]) == 0.5


# ---- all of a name -----------------------------------------------------------------------------------


def test_all_counts_are_set_at_once():
    tx = optfx.chain(optfx.clip(1.0), optfx.adamw(0.1))
    state = tx.init(P)
    with pytest.raises(KeyError, match=r"4 nodes are called 'count', say which: .* \(or all: get_all, set_all\)"):
        tree.set(state, count=10)
    new = tree.set_all(state, count=10)
    assert [int(x) for x in tree.get_all(new, "count").values()] == [10] * 4
    assert_close(tree.get(new, "mu"), tree.get(state, "mu"), 0)
    both = tree.set_all(state, {"count": 3, "nu": tree.ones_like(P)})
    assert tree.allclose(tree.get(both, "nu"), tree.ones_like(P))
    with pytest.raises(KeyError, match="nothing is called 'cuont'"):
        tree.set_all(state, cuont=1)
    with pytest.raises(ValueError, match=r"'1\.0\.mu' lacks the leaf 'w'"):
        tree.set_all(state, mu={"b": P["b"]})


# ---- another optimizer -------------------------------------------------------------------------------


def trained(tx, p=P, steps=3):
    state = tx.init(p)
    for k in range(steps):
        g = tree.map(lambda x, k=k: torch.full_like(x, k + 1.0), p)
        _, state = tx.update(g, state, p)
    return state


ADAMW = optfx.adamw(0.1)
CHANGES = {  # new optimizer, and the paths in it of what the old one had at "0.mu", "0.nu", "1.count" and "2.count"
    "the same": (ADAMW, ["0.mu", "0.nu", "1.count", "2.count"]),
    "a clip before": (
        optfx.chain(optfx.clip_by_global_norm(1.0), *ADAMW.steps),
        ["1.mu", "1.nu", "2.count", "3.count"],
    ),
    "an average after": (
        optfx.chain(ADAMW, optfx.params_ema(0.9)),
        ["0.0.mu", "0.0.nu", "0.1.count", "0.2.count"],
    ),
    "wrapped": (optfx.apply_if_finite(ADAMW, 3), ["inner.0.mu", "inner.0.nu", "inner.1.count", "inner.2.count"]),
    "injected": (optfx.inject_hyperparams(ADAMW), ["inner.0.mu", "inner.0.nu", "inner.1.count", "inner.2.count"]),
    "named": (
        optfx.named_chain(*zip("abc", ADAMW.steps, strict=True)),
        ["a.mu", "a.nu", "b.count", "c.count"],
    ),
    "other numbers": (
        optfx.adamw(optfx.cosine_decay_schedule(0.1, 10), b1=0.8),
        ["0.mu", "0.nu", "1.count", "2.count"],
    ),
    "without decay": (optfx.adam(0.1), ["0.mu", "0.nu", None, "1.count"]),
}


@pytest.mark.parametrize(("new", "places"), CHANGES.values(), ids=CHANGES)
def test_a_state_is_carried_over(new, places):
    state = trained(ADAMW)
    carried, report = core.carry(state, ADAMW, new, P)
    assert report.lost == ({} if None not in places else {"1.count": "no place"})
    assert len(report.fresh) == len(tree.leaves(carried)) - len(tree.leaves(state)) + len(report.lost)
    assert tree.flatten(carried)[1] == tree.flatten(new.init(P))[1]
    for old, place in zip(["0.mu", "0.nu", "1.count", "2.count"], places, strict=True):
        if place is not None:
            assert_close(tree.get(carried, place), tree.get(state, old), 0)
    new.update(P, carried, P)
    taken = {x.data_ptr() for x in tree.leaves(state)}
    assert not any(x.data_ptr() in taken for x in tree.leaves(carried))


def test_what_is_new_begins_anew():
    new = optfx.chain(ADAMW, optfx.params_ema(0.9))
    carried, report = core.carry(trained(ADAMW), ADAMW, new, P)
    assert report == ({}, ("1.count", "1.ema.b", "1.ema.w"))
    assert (int(carried[0][0].count), int(carried[1].count)) == (3, 0)
    assert tree.allclose(carried[1].ema, P)
    back, report = core.carry(carried, new, ADAMW, P)
    assert_close(back, trained(ADAMW), 0)
    assert report == (dict.fromkeys(("1.count", "1.ema.b", "1.ema.w"), "no place"), ())
    assert core.carry(back, ADAMW, ADAMW, P)[1] == ({}, ())


def test_dtypes_and_new_parameters():
    wide = optfx.adamw(0.1, nu_dtype=torch.float64)
    carried, report = core.carry(trained(ADAMW), ADAMW, wide, P | {"more": torch.ones(3)})
    assert report == ({}, ("0.mu.more", "0.nu.more"))
    assert carried[0].nu["w"].dtype == torch.float64
    torch.testing.assert_close(carried[0].nu["w"].float(), trained(ADAMW)[0].nu["w"])
    assert carried[0].mu["more"].tolist() == [0.0] * 3
    carried, report = core.carry(trained(ADAMW), ADAMW, ADAMW, P | {"b": torch.ones(5)})
    assert report.lost == dict.fromkeys(("0.mu.b", "0.nu.b"), "(2,), expected (5,)")
    assert report.fresh == ("0.mu.b", "0.nu.b")
    assert carried[0].mu["b"].tolist() == [0.0] * 5
    adam = optfx.adam(0.1)
    carried, report = core.carry(trained(optfx.trace(0.9)), optfx.trace(0.9), adam, P)
    assert set(report.lost) == {"count", "trace.b", "trace.w"}
    assert_close(carried, adam.init(P), 0)


def test_a_label_goes_to_its_label():
    two = lambda *labels: optfx.partition({x: optfx.adam(0.1) for x in labels}, {"w": labels[0], "b": labels[-1]})
    old, new = two("first", "second"), two("second")
    state = tree.set(trained(old), {"second.0.mu": {"b": torch.full((2,), 7.0), "w": tree.Hole()}})
    carried, _ = core.carry(state, old, new, P)
    assert carried["second"][0].mu["b"].tolist() == [7.0, 7.0]
    assert carried["second"][0].mu["w"].tolist() == [[0.0, 0.0], [0.0, 0.0]]


# ---- back into a module ------------------------------------------------------------------------------


def module():
    net = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    net[2].weight = net[0].weight  # tied
    net[2].bias.requires_grad_(False)  # frozen
    return net


def test_parameters_go_back_into_a_module_with_tied_frozen_and_buffered_tensors():
    net = module()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    places = {name: x.data_ptr() for name, x in net.named_parameters()}
    new = tree.map(lambda x: x + 1, optfx.params(net))
    with pytest.raises(RuntimeError, match="Missing key"):
        net.load_state_dict(new)
    optfx.load_params(net, new)
    assert_close(optfx.params(net), new, 0)
    assert net[0].weight is net[2].weight
    assert places == {name: x.data_ptr() for name, x in net.named_parameters()}
    for name in ("1.running_mean", "2.bias"):
        assert torch.equal(net.state_dict()[name], before[name])


def test_parameters_that_do_not_fit_change_nothing():
    net = module()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    bad = {"0.weight": torch.zeros(2, 3), "1.weight": 3.0, "other": torch.zeros(1)}
    with pytest.raises(ValueError, match="do not fit the module") as error:
        optfx.load_params(net, bad)
    for words in ("missing: 1.bias", "unexpected: other", "0.weight: (2, 3), expected (3, 3)", "1.weight: a float"):
        assert words in str(error.value)
    assert all(torch.equal(before[name], x) for name, x in net.state_dict().items())


# ---- counts under vmap -------------------------------------------------------------------------------


def test_a_state_made_under_vmap_compiles_once(fresh_dynamo):
    tx, many = optfx.chain(optfx.clip(1.0), optfx.adamw(0.1)), tree.map(lambda x: torch.stack([x, 2 * x]), P)
    state = torch.func.vmap(tx.init)(many)
    assert all(x.is_contiguous() for x in tree.leaves(state))
    step = torch.compile(
        torch.func.vmap(lambda g, s, p: tx.update(g, s, p)), fullgraph=True, backend="aot_eager", dynamic=False
    )
    for _ in range(3):
        _, state = step(many, state, many)
    assert fresh_dynamo["stats"]["unique_graphs"] == 1
