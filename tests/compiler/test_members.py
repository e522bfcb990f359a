"""Many optimizers as one kernel: each member is the optimizer that it would be alone."""

import pytest
import torch
from torch.func import vmap

import optfx
from optfx import core, random, tree
from tests.compiler.harness import params
from tests.harness import assert_close, hyper_rows

N = 5
FACTORS = torch.tensor([1.0, 0.5, 0.9, 0.7, 0.8], dtype=torch.float64)


def owned(t):
    return tree.map(lambda x: x.clone(memory_format=torch.contiguous_format), t)


def some(dtype, n=N, seed=0):
    """Parameters of n members, with a leaf that is large enough for threads in all of them together."""
    several = [params(dtype, seed + 10 * i) for i in range(n)]
    return tree.map(lambda *xs: torch.stack(xs), *(p | {"big": p["big"][:9000]} for p in several))


def mapped(txs, p, steps=3, **extra):
    """Params and state after some steps, in eager code under `vmap`."""
    state = owned(vmap(lambda tx, p: tx.init(p))(txs, p))

    def step(tx, g, state, p, given):
        updates, state = tx.update(g, state, p, **given)
        return optfx.apply_updates(p, updates), state

    for k in range(steps):
        p, state = vmap(step)(txs, gradients(p, k), state, p, extra)
    return p, state


def gradients(p, k):
    """They are small, for an update in proportion to the norm of a large leaf would make roundings grow."""
    return tree.map(lambda x: 0.01 * torch.sin((k + 2) * x), p)


def fused(txs, p, steps=3, members=N, like=None, **extra):
    opt = optfx.fuse(txs, members=members) if like is None else like.of_others(txs, members)
    q, state = opt.init(p, **extra)
    for k in range(steps):
        q, state = opt.step(gradients(q, k), state, q, **extra)
    return (q, state), opt


def close(a, b, tol):
    assert_close(a, b, tol, tol)


def many(row):
    """n optimizers of a row, with other numbers each."""
    return owned(vmap(lambda factor: row.make(**{k: v * factor for k, v in row.hypers.items()}))(FACTORS))


@hyper_rows
def test_members_are_what_vmap_makes_of_them(row):
    extra = {k: x.expand(N) for k, x in row.extra.items()}
    p = some(torch.float64)
    found, opt = fused(many(row), p, **extra)
    close(found, mapped(many(row), p, **extra), 1e-5 if "bf16" in row.id or "float32" in row.id else 1e-11)
    # others, with these numbers in another order and other parameters, are not read again
    pick = lambda t: tree.map(lambda x: x[1:4].flip(0).clone(), t)
    others = tree.map(lambda x: x * 1.5, (pick(some(torch.float64, seed=3))))
    found, _ = fused(pick(many(row)), others, members=3, like=opt, **pick(extra))
    again, _ = fused(pick(many(row)), others, members=3, **pick(extra))
    assert all(torch.equal(x, y) or x.isnan().any() for x, y in zip(*map(tree.leaves, (found, again)), strict=True))


RECIPE = {"rate": 0.1, "decay": 0.2, "limit": 0.5, "b1": 0.9}


def recipe(n, dtype=torch.float64):
    spread = torch.linspace(0.5, 1.0, n, dtype=dtype)
    return vmap(lambda s: clipped(**{k: v * s for k, v in RECIPE.items()}))(spread)


def clipped(rate, decay, limit, b1):
    return optfx.chain(
        optfx.clip_by_global_norm(limit),
        optfx.scale_by_adam(b1=b1),
        optfx.add_decayed_weights(decay),
        optfx.scale_by_learning_rate(optfx.cosine_decay_schedule(rate, 10)),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_bits_of_a_member_depend_on_nobody_else(dtype):
    """Not on how many there are, on its place, nor on threads; and they are those of the optimizer alone."""
    txs, p = recipe(N), some(dtype)
    (whole, state), _ = fused(txs, p)
    before = torch.get_num_threads()
    for index in (torch.tensor([3, 1]), torch.tensor([4]), torch.arange(N).flip(0), torch.arange(N).repeat(9)):
        pick = lambda t, index=index: tree.map(lambda x: x[index], t)
        torch.set_num_threads(1 if len(index) > N else before)
        try:
            found, _ = fused(pick(txs), pick(p), members=len(index))
        finally:
            torch.set_num_threads(before)
        assert all(map(torch.equal, tree.leaves(found), tree.leaves(pick((whole, state)))))
    alone = optfx.fuse(tree.map(lambda x: x[3], txs))
    q, s = alone.init(tree.map(lambda x: x[3], p))
    for k in range(3):
        q, s = alone.step(gradients(q, k), s, q)
    assert all(map(torch.equal, tree.leaves((q, s)), tree.leaves(tree.map(lambda x: x[3], (whole, state)))))


def test_one_compilation_for_any_number(tmp_path, monkeypatch):
    from optfx.compiler.kernels.cpp import build

    monkeypatch.setattr(build, "folder", lambda: tmp_path)
    fused(recipe(3), some(torch.float32, 3), members=3)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3  # a norm, a step, and its scalar work
    fused(recipe(N), some(torch.float32))
    assert sorted(tmp_path.iterdir()) == files


def test_another_optimizer_is_read_for_itself():
    p = some(torch.float64)
    (_, _), opt = fused(recipe(N), p)
    txs = tree.map(lambda x: x.expand(N).clone(), optfx.adam(torch.tensor(0.1)))
    assert all(map(torch.equal, *map(tree.leaves, (fused(txs, p, like=opt)[0], fused(txs, p)[0]))))


@tree.record
class user(core.GradientTransformation):
    """What users write: reductions and operations on whole leaves, noise, a state of several dtypes, an argument."""

    rate: core.Hyper = 0.1
    takes = ("value",)

    def begin(self, params):
        return {
            "n": torch.zeros((), dtype=torch.int64),
            "best": torch.tensor(torch.inf),
            "old": tree.zeros_like(params),
        }

    def step(self, updates, state, params, *, value):
        better = value < state["best"]
        scaled = tree.map(
            lambda u, o: u * self.rate + u.sum() * 0.01 - o.cumsum(0) * 0.1 * better, updates, state["old"]
        )
        key = random.fold_in(random.key(3), state["n"])
        noisy = tree.map(lambda u: u + 0.01 * random.normal(key, u.shape, dtype=u.dtype), scaled)
        best = torch.where(better, value, state["best"]).to(state["best"].dtype)
        return noisy, {"n": state["n"] + 1, "best": best, "old": scaled}


def test_what_is_not_fused_runs_under_vmap():
    p = {"w": torch.randn(N, 4, 3, dtype=torch.float64), "b": torch.randn(N, 3, dtype=torch.float64)}
    txs = optfx.chain(optfx.apply_if_finite(user(FACTORS * 0.1), 3), optfx.clip_by_global_norm(FACTORS))
    value = torch.linspace(1.0, 2.0, N, dtype=torch.float64)
    found, opt = fused(tree.map(lambda x: x, txs), p, value=value)
    each = tree.map(lambda x: x if x.ndim else x.expand(N), txs)
    close(found, mapped(each, p, value=value), 1e-11)
    assert "as it is" in opt.explain()


def test_an_operation_that_is_not_written_in_cpp():
    special = optfx.stateless(lambda u, p: tree.elementwise(torch.lgamma, u))
    txs = optfx.chain(special, optfx.sgd(FACTORS, momentum=0.9))
    p = some(torch.float64)
    found, opt = fused(txs, p)
    each = tree.map(lambda x: x if x.ndim else x.expand(N), txs)
    close(found, mapped(each, p), 1e-11)
    assert "vmap" in opt.explain()


def test_a_tensor_from_outside_is_the_same_for_all():
    outside = torch.tensor(0.5, dtype=torch.float64)
    row = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    tx = optfx.chain(optfx.stateless(lambda u, p: tree.map(lambda x: x * outside + row, u)), optfx.sgd(FACTORS))
    opt = optfx.fuse(tx, members=N)
    p = {"w": torch.ones(N, 3, dtype=torch.float64)}
    q, state = opt.init(p)
    for k in range(3):
        outside.fill_(k)
        g = gradients(q, k)
        expected = q["w"] - FACTORS[:, None] * (g["w"] * k + row)
        q, state = opt.step(g, state, q)
        torch.testing.assert_close(q["w"], expected)


def test_errors_name_the_path():
    with pytest.raises(ValueError, match=r"'learning_rate' is \(3,\), expected 5 members first"):
        optfx.fuse(optfx.scale_by_learning_rate(torch.ones(3)), members=N)
    with pytest.raises(ValueError, match=r"the parameter at 'w' is \(2, 3\), expected 5 members first"):
        optfx.fuse(optfx.sgd(FACTORS), members=N).init({"w": torch.ones(2, 3)})
    with pytest.raises(ValueError, match="members is at least 1"):
        optfx.fuse(optfx.sgd(0.1), members=0)


def test_state_is_saved_and_given_back():
    p = some(torch.float64)
    (q, state), _ = fused(recipe(N), p, steps=2)
    opt = optfx.fuse(recipe(N), members=N)
    q, state = opt.init(q, state)
    q, state = opt.step(gradients(q, 2), state, q)
    whole, _ = fused(recipe(N), p, steps=3)
    assert all(map(torch.equal, tree.leaves((q, state)), tree.leaves(whole)))
