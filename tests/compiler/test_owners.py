"""Leaves of several owners, each with scalars and reductions of its own, go through one kernel."""

import pytest
import torch

import optfx
from optfx import tree
from tests.compiler.harness import distance, units

# they end within chunks of 4096 elements, at their borders, and beyond the size from which on there are threads
SIZES = {"a": (5000, 3), "b": (9000, 1, 4096), "c": (96, 4, 20000, 7)}
LABELS = {name: name for name in SIZES}


def draw(seed, dtype=torch.float32, sizes=SIZES):
    g = torch.Generator().manual_seed(seed)
    return {k: [torch.randn(n, generator=g).to(dtype) for n in ns] for k, ns in sizes.items()}


def group(rate, limit, make):
    return optfx.chain(
        optfx.clip_by_global_norm(make(limit)),
        optfx.scale_by_adam(),
        optfx.add_decayed_weights(make(0.1 * rate)),
        optfx.scale_by_learning_rate(make(rate)),
    )


def recipe(make=float, labels=LABELS):
    rates = {"a": (0.1, 1.5), "b": (0.03, 2.5), "c": (0.003, 500.0)}
    return optfx.partition({k: group(*rates[k], make) for k in labels}, labels)


def both(tx, sizes=SIZES, steps=3):
    p = draw(0, sizes=sizes)
    opt = optfx.fuse(tx)
    (q, s), state = opt.init(p), tx.init(p)
    for step in range(steps):
        g = draw(step + 1, sizes=sizes)
        q, s = opt.step(g, s, q)
        updates, state = tx.update(g, state, p)
        p = optfx.apply_updates(p, updates)
    return (q, s), (p, state), opt


@pytest.mark.parametrize("make", [float, torch.tensor, optfx.constant_schedule], ids=["float", "tensor", "schedule"])
def test_groups_share_a_kernel(make):
    got, expected, opt = both(recipe(make))
    assert distance(got, expected) < 2e-6
    assert len(units(opt)) == 2  # one for the norms, one for all else
    assert all(unit.calls == 1 and len(unit.members) == 9 for unit in units(opt))


def test_one_norm_over_groups_with_their_own_rates():
    rates = {k: optfx.sgd(rate, momentum=0.9) for k, rate in (("a", 0.1), ("b", 0.2), ("c", 0.3))}
    tx = optfx.chain(optfx.clip_by_global_norm(1.5), optfx.partition(rates, LABELS))
    got, expected, opt = both(tx)
    assert distance(got, expected) < 2e-6
    assert len(units(opt)) == 2


def test_sums_of_each_owner_do_not_depend_on_threads():
    results, threads = [], torch.get_num_threads()
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        try:
            results.append(both(recipe())[0])
        finally:
            torch.set_num_threads(threads)
    assert distance(results[0], results[1]) == distance(results[0], results[2]) == 0


def test_an_owner_whose_leaves_have_no_elements():
    sizes = SIZES | {"b": (0, 0)}
    got, expected, opt = both(recipe(), sizes)
    assert distance(got, expected) < 2e-6
    assert all(len(unit.members) == 6 for unit in units(opt))


def test_owners_where_a_kernel_does_one_leaf_a_call(no_cpp, monkeypatch):
    monkeypatch.setattr("optfx.compiler.fused.SMALL", 5000)
    got, expected, opt = both(recipe())
    assert distance(got, expected) < 2e-6
    assert [unit.calls for unit in units(opt)] == [5, 5]  # the small ones of an owner lie in one buffer


def test_another_owner_needs_no_other_kernel():
    """It is a row of scalars."""
    programs = []
    for names in ("ab", "abc"):
        labels, sizes = ({k: table[k] for k in names} for table in (LABELS, SIZES))
        programs.append({unit.work.program for unit in units(both(recipe(labels=labels), sizes, steps=1)[2])})
    assert programs[0] == programs[1]


def test_scalars_of_several_dtypes_lie_in_a_row():
    def update(updates, state, params=None):
        count, flag = state["count"], state["count"] > 1
        return tree.elementwise(mixed, updates, params, count=count, flag=flag, size=0.3), {"count": count + 1}

    tx = optfx.core.from_functions(lambda params: {"count": torch.zeros((), dtype=torch.int64)}, update)
    p = draw(0)
    opt = optfx.fuse(tx)
    (q, s), state = opt.init(p), tx.init(p)
    for step in range(4):
        g = draw(step + 1)
        q, s = opt.step(g, s, q)
        updates, state = tx.update(g, state, p)
        p = optfx.apply_updates(p, updates)
    assert distance((q, s), (p, state)) == 0


def mixed(u, p, count, flag, size):
    half = torch.lerp(u.bfloat16(), p.bfloat16(), size.bfloat16()).to(u.dtype)
    return torch.where(flag, u * size + count, half)
