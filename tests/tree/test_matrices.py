"""The verb for matrices: one call for each shape, batches, dtypes, and what it refuses."""

import pytest
import torch

import optfx
from optfx import core, tree

CALLS = []


def watched(x, y):
    CALLS.append((x.shape, y.shape))
    return x @ y, y.sum(-1, keepdim=True)


def leaves(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


SHAPES = {"a": (2, 3), "b": (4, 3), "c": (2, 3), "d": (5, 2, 3), "e": (2, 3)}


def test_one_call_for_all_leaves_of_one_shape():
    CALLS.clear()
    x = leaves(SHAPES)
    y = {k: v.mT for k, v in leaves(SHAPES, 1).items()}
    rows = {k: v.sum(-1, keepdim=True) for k, v in y.items()}
    products, sums = tree.matrixwise(watched, {k: v[..., :, :2] @ v.mT[..., :2, :] for k, v in x.items()}, x, outs=2)
    assert sorted(shape for shape, _ in CALLS) == sorted([(3, 2, 2), (4, 4), (5, 2, 2)])
    for k, v in x.items():
        assert torch.allclose(products[k], v[..., :, :2] @ v.mT[..., :2, :] @ v, atol=1e-6)
        assert torch.allclose(sums[k], v.sum(-1, keepdim=True))
    assert rows.keys() == sums.keys()


def product(x, y):
    return x @ y


def test_batches_may_be_empty_and_matrices_too():
    x = {"none": torch.ones(0, 2, 3), "flat": torch.ones(2, 0), "deep": torch.ones(2, 2, 2, 3)}
    y = {"none": torch.ones(0, 3, 3), "flat": torch.ones(0, 0), "deep": torch.ones(2, 2, 3, 3)}
    out = tree.matrixwise(product, x, y)
    assert {k: v.shape for k, v in out.items()} == {k: v.shape for k, v in x.items()}


def gram(x, m):
    return (x @ x.mT).to(torch.float64)


def test_results_have_the_dtype_of_the_tree_they_are_like():
    x, m = {"w": torch.ones(2, 3, dtype=torch.bfloat16)}, {"w": torch.ones(2, 2)}
    assert tree.matrixwise(gram, x, m)["w"].dtype == torch.bfloat16
    assert tree.matrixwise(gram, x, m, like=(1,))["w"].dtype == torch.float32


def test_what_is_no_matrix_is_refused_by_path():
    with pytest.raises(ValueError, match=r"gram.*'b\.x' of shape \(3,\) is not a matrix"):
        tree.matrixwise(gram, {"b": {"x": torch.ones(3)}}, {"b": {"x": torch.ones(3)}})
    with pytest.raises(ValueError, match=r"'w' of shape \(2, 2\) is not a batch like \(4, 2, 3\)"):
        tree.matrixwise(gram, {"w": torch.ones(4, 2, 3)}, {"w": torch.ones(2, 2)})


def half_of_gram(x):
    return x @ x.mT @ x / 2


@tree.record
class cubes(core.Stateless):
    def apply(self, updates, params):
        return tree.matrixwise(half_of_gram, updates)


def test_fused_it_is_one_event_for_each_shape():
    params = leaves({"a": (2, 3), "b": (4, 3), "c": (2, 3)})
    tx = optfx.chain(optfx.scale(2.0), cubes(), optfx.scale(-0.1))
    opt = optfx.fuse(tx)
    mine, state = opt.init(params)
    assert opt.explain().count("half_of_gram, as it is, for it multiplies matrices: 2 times") == 1
    updates, _ = tx.update(params, tx.init(params), params)
    mine, state = opt.step(params, state, mine)
    assert tree.allclose(mine, optfx.apply_updates(params, updates))


def test_under_vmap_and_compile():
    params = leaves({"a": (4, 2, 3), "b": (4, 2, 3)})
    batched = torch.func.vmap(lambda x: tree.matrixwise(half_of_gram, x))(params)
    assert tree.allclose(batched, tree.matrixwise(half_of_gram, params))
    compiled = torch.compile(lambda x: tree.matrixwise(half_of_gram, x), fullgraph=True, backend="aot_eager")(params)
    assert tree.allclose(compiled, batched)


@pytest.mark.parametrize(
    ("tiles", "dtype", "calls"), [(False, torch.bfloat16, 3), (True, None, 3), (True, torch.bfloat16, 1)]
)
def test_large_matrices_come_one_by_one_where_that_is_faster(monkeypatch, tiles, dtype, calls):
    from optfx.tree import matrices

    monkeypatch.setattr(matrices, "LARGE", 6)
    monkeypatch.setattr(matrices, "TILES", tiles)
    seen = []

    def squared(x, dtype):
        seen.append(x.shape)
        return x @ x.mT @ x

    leaves = {name: torch.randn(2, 3, dtype=torch.float64) for name in "abc"}
    found = tree.matrixwise(squared, leaves, dtype=dtype)
    assert len(seen) == calls
    for name, x in leaves.items():
        torch.testing.assert_close(found[name], x @ x.mT @ x, rtol=1e-12, atol=1e-12)
