"""Trees made of others: `copy`, and `full_like` with a number or a tensor."""

import pytest
import torch

import optfx
from optfx import tree
from optfx.tree.recording import recording

F64 = torch.float64


def leaves():
    return {"w": torch.randn(2, 3), "h": [torch.randn(4, dtype=torch.bfloat16), torch.randn(())], "hole": tree.Hole()}


def test_copies_share_no_memory_and_are_equal():
    x = leaves() | {
        "z": torch.randn(2, dtype=torch.complex64),
        "n": torch.tensor([3, 4]),
        "b": torch.tensor([True, False]),
        "empty": torch.zeros(0, 2),
    }
    y = tree.copy(x)
    assert tree.paths(y) == tree.paths(x)
    for a, b in zip(tree.leaves(x), tree.leaves(y), strict=True):
        assert torch.equal(a, b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert not a.numel() or a.data_ptr() != b.data_ptr()


@pytest.mark.parametrize("dtype", [None, F64, torch.float16])
@pytest.mark.parametrize("value", [2.5, torch.tensor(2.5, dtype=F64), torch.tensor(2.5)], ids=str)
def test_a_tensor_fills_as_a_number_does(value, dtype):
    x = leaves() | {"z": torch.randn(2, dtype=torch.complex64), "n": torch.tensor([3, 4])}
    mine, theirs = tree.full_like(x, value, dtype), tree.full_like(x, 2.5, dtype)
    for a, b in zip(tree.leaves(mine), tree.leaves(theirs), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype == (dtype or b.dtype)


def test_a_fill_is_rounded_once():
    """A bfloat16 leaf does not make the value coarse when another dtype is asked for."""
    x, third = {"h": torch.zeros(2, dtype=torch.bfloat16)}, torch.tensor(1 / 3, dtype=F64)
    assert torch.equal(tree.full_like(x, third, F64)["h"], torch.full((2,), 1 / 3, dtype=F64))


def test_derivatives_flow_through_a_copy_and_to_a_fill_but_not_to_the_shape():
    x = tree.map(lambda t: t.requires_grad_(), leaves())
    assert all(t.requires_grad for t in tree.leaves(tree.copy(x)))
    assert not any(t.requires_grad for t in tree.leaves(tree.full_like(x, torch.tensor(2.0))))
    assert not any(t.requires_grad for t in tree.leaves(tree.full_like(x, 2.0)))
    value = torch.tensor(2.0, requires_grad=True)
    tree.sum(tree.full_like(x, value)).backward()
    assert value.grad == tree.size(x)
    (g,) = tree.leaves(torch.func.grad(lambda t: tree.vdot(tree.copy(t), t))({"w": torch.ones(2)}))
    assert torch.equal(g, torch.full((2,), 2.0))


def test_vmap_over_leaves_and_over_the_value():
    x, values = tree.map(lambda t: torch.stack([t, 2 * t]), leaves()), torch.tensor([1.0, 2.0])
    copies = torch.func.vmap(tree.copy)(x)
    both = torch.func.vmap(tree.full_like)(x, values)
    alone = torch.func.vmap(tree.full_like, (None, 0))(leaves(), values)
    for a, b, c, d in zip(*map(tree.leaves, (x, copies, both, alone)), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(c, d)
        assert c.dtype == d.dtype == a.dtype
        for i in range(2):
            assert torch.equal(c[i], torch.full_like(a[i], i + 1))


def test_compiled(fresh_dynamo):
    def f(x, value):
        return tree.copy(x), tree.full_like(x, value), tree.full_like(x, 3.0)

    x, value = leaves(), torch.tensor(2.0, dtype=F64)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")(x, value)
    for a, b in zip(tree.leaves(f(x, value)), tree.leaves(compiled), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype


def test_a_recorder_and_a_leaf_that_only_verbs_may_touch_see_them():
    class Names:
        def __init__(self):
            self.seen = []

        def run_leaf(self, f, xs, scalars, outs, whole):
            self.seen.append((f.__name__, list(scalars.values), whole))
            return list(xs[:outs])

    names = Names()
    with recording(names):
        tree.copy({"w": torch.ones(2)})
        tree.full_like({"w": torch.ones(2)}, torch.tensor(1.0))
    assert names.seen == [("_copy", [], False), ("_fill", ["value"], False)]


def test_a_fused_step_copies_and_fills():
    def update(updates, state, params=None):
        new = tree.add(tree.copy(updates), tree.full_like(updates, state["level"]))
        return new, {"level": state["level"] / 2}

    tx = optfx.core.from_functions(lambda params: {"level": torch.tensor(1.0, dtype=F64)}, update)
    params = {"w": torch.randn(5), "b": torch.randn(())}
    opt = optfx.fuse(tx)
    p, state = opt.init(params)
    q, other = params, tx.init(params)
    for _ in range(3):
        p, state = opt.step(params, state, p)
        updates, other = tx.update(params, other, q)
        q = optfx.apply_updates(q, updates)
    assert "_copy" not in opt.explain()
    assert "as it is" not in opt.explain()
    for a, b in zip(tree.leaves((p, state)), tree.leaves((q, other)), strict=True):
        assert torch.equal(a, b)
