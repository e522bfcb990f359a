"""What is a number, and the one path that each has: in `hyperparams`, in an injected state, for groups and sweeps."""

import numpy as np
import pytest
import torch

import optfx
from optfx import core, sweep, tree
from optfx.interop import TorchOptimizer

PARAMS = {"w": torch.ones(3, dtype=torch.float64)}
KINDS = {
    "int": int,
    "numpy.float64": np.float64,
    "numpy.float32": np.float32,
    "numpy.int64": np.int64,
    "tensor": lambda x: torch.tensor(x, dtype=torch.float64),
    "int tensor": lambda x: torch.tensor(int(x)),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def updates_of(tx, steps=3):
    state, out = tx.init(PARAMS), []
    for _ in range(steps):
        updates, state = tx.update(PARAMS, state, PARAMS)
        out.append(updates["w"])
    return torch.stack(out)


def guarded(rate, most):
    """Two numbers: one of the wrapper itself, and one inside."""
    return optfx.apply_if_finite(optfx.sgd(rate), most)


# ---- which values are numbers ----------------------------------------------------------------------


@kinds
def test_numbers_of_every_kind(kind):
    tx, plain = guarded(kind(2), kind(3)), guarded(2.0, 3.0)
    paths = ["max_consecutive_errors", "inner.0.learning_rate"]
    assert list(core.numbers(tx)) == paths
    now = optfx.hyperparams(tx, tx.init(PARAMS))
    assert {path: float(x) for path, x in now.items()} == {paths[0]: 3.0, paths[1]: 2.0}
    assert all((x.shape, x.dtype) == ((), torch.float64) for x in now.values())
    assert torch.equal(updates_of(tx), updates_of(plain))
    injected = optfx.inject_hyperparams(tx)
    assert list(injected.init(PARAMS).hyperparams) == paths
    assert torch.equal(updates_of(injected), updates_of(plain))


@kinds
def test_groups_take_numbers_of_every_kind(kind):
    p = torch.ones(3, dtype=torch.float64)
    optimizer = TorchOptimizer([p], guarded(kind(2), kind(3)), lr=kind(4))
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["max_consecutive_errors"]) == (4, 3)
    optimizer.param_groups[0]["lr"] = kind(1)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert p.tolist() == [0.0, 0.0, 0.0]


@kinds
def test_numbers_of_every_kind_are_stacked(kind):
    both = sweep.stack([guarded(kind(2), kind(3)), guarded(kind(4), kind(3))])
    assert both.inner.steps[0].learning_rate.tolist() == [2, 4]
    many = torch.func.vmap(updates_of, (sweep.in_axes(both),))(both)
    for i, rate in enumerate((2.0, 4.0)):
        assert torch.equal(many[i], updates_of(guarded(rate, 3.0)))


@kinds
def test_a_sweep_beside_numbers_of_every_kind(kind):
    rates = torch.tensor([0.5, 0.25], dtype=torch.float64)
    fit = lambda most: sweep.fit(
        lambda config: guarded(config["rate"], most),
        {"rate": rates},
        lambda p, _: p["w"].square().sum(),
        PARAMS,
        [None],
        steps=2,
        compile=False,
        progress=False,
    )
    assert torch.equal(fit(kind(3)).params["w"], fit(3.0).params["w"])


def test_a_bool_is_no_number():
    for flag in (True, np.True_):
        assert not core.is_number(flag)
    yes, no = (optfx.apply_if_finite(tree.replace(optfx.scale(1.0), step_size=flag), 3) for flag in (True, False))
    assert list(core.numbers(yes)) == ["max_consecutive_errors"]
    assert list(optfx.inject_hyperparams(yes).init(PARAMS).hyperparams) == ["max_consecutive_errors"]
    assert "step_size" not in TorchOptimizer([torch.ones(1)], yes).param_groups[0]
    for bad in (True, np.True_, "fast"):
        with pytest.raises(TypeError, match=r"scale\.step_size is .*, expected a number"):
            optfx.scale(bad)
        tx = optfx.scale(lambda count, bad=bad: bad)
        with pytest.raises(TypeError, match=r"scale\.step_size is .*, expected a number"):
            tx.update(PARAMS, tx.init(PARAMS))
        with pytest.raises(TypeError, match=r"scale\.step_size is .*, expected a number"):
            optfx.hyperparams(tx, tx.init(PARAMS))
    with pytest.raises(TypeError, match="'lr' is True, expected a number"):
        TorchOptimizer([torch.ones(1)], guarded(0.1, 3), lr=True)
    with pytest.raises(ValueError, match=r"differ at 'inner.step_size' in more than numbers"):
        sweep.stack([yes, no])


# ---- where each is found ---------------------------------------------------------------------------


def test_a_wrappers_own_number_is_like_any_other():
    tx = guarded(0.1, 3)
    state = tree.set(optfx.inject_hyperparams(tx).init(PARAMS), {"max_consecutive_errors": 0, "learning_rate": 0.5})
    bad = {"w": torch.tensor([1.0, torch.nan, 1.0], dtype=torch.float64)}
    updates, _ = optfx.inject_hyperparams(tx).update(bad, state, PARAMS)
    assert updates["w"].isnan().tolist() == [False, True, False]  # none may be skipped
    assert updates["w"][0] == -0.5

    growing = guarded(0.1, lambda count: 2.0 * count)
    assert float(optfx.hyperparams(growing, growing.init(PARAMS))["max_consecutive_errors"]) == 0.0
    assert updates_of(guarded(0.1, torch.tensor(3.0))).equal(updates_of(guarded(0.1, 3)))

    optimizer = TorchOptimizer([torch.ones(3, dtype=torch.float64)], tx, max_consecutive_errors=0)
    (p,) = optimizer.param_groups[0]["params"]
    p.grad = bad["w"].clone()
    optimizer.step()
    assert p.isnan().any()
    optimizer.param_groups[0]["max_consecutive_errors"] = 5
    p.copy_(torch.ones(3))
    optimizer.step()
    assert p.tolist() == [1.0, 1.0, 1.0]


def test_two_numbers_of_one_name_have_two_paths():
    tx = optfx.apply_if_finite(optfx.apply_if_finite(optfx.sgd(0.1), 1), 2)
    paths = ["max_consecutive_errors", "inner.max_consecutive_errors", "inner.inner.0.learning_rate"]
    assert list(core.numbers(tx)) == paths
    assert list(optfx.hyperparams(tx, tx.init(PARAMS))) == paths
    changed = core.with_numbers(tx, {"inner.max_consecutive_errors": 7})
    assert (changed.max_consecutive_errors, changed.inner.max_consecutive_errors) == (2, 7)
    with pytest.raises(KeyError, match=r"no number at \['inner.learning_rate'\]; there are"):
        core.with_numbers(tx, {"inner.learning_rate": 7})
