"""Leaves in another shape, and rows as lengths and directions."""

import pytest
import torch

import optfx
from optfx import select, tree
from optfx.combinators import views

VIEWS = [views.as_matrix(), views.heads(2), views.merged(8), views.split(2), views.split(3, 1), views.blocks(2)]


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("view", VIEWS, ids=repr)
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2)], ids=str)
def test_whole_undoes_parts(view, shape):
    x = randn(*shape)
    assert torch.equal(view.whole(view.parts(x), x), x)


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_what_treats_elements_alike_sees_no_difference(view):
    params = {"w": randn(4, 3), "b": randn(5)}
    plain, tx = optfx.adamw(0.1), optfx.viewed(optfx.adamw(0.1), view, select.path("w"))
    states = plain.init(params), tx.init(params)
    for i in range(3):
        grads = {"w": randn(4, 3, seed=i), "b": randn(5, seed=i)}
        expected, first = plain.update(grads, states[0], params)
        updates, second = tx.update(grads, states[1], params)
        states = first, second
        assert tree.allclose(updates, expected, rtol=1e-14)


def polar(x):
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    return u @ v


def one(tx, g, name="w"):
    params = {name: torch.zeros_like(g)}
    return tx.update({name: g}, tx.init(params), params)[0][name]


def test_a_kernel_is_one_matrix():
    g = randn(4, 3, 2, 2)
    u = one(optfx.viewed(optfx.orthogonalize("svd"), views.as_matrix()), g)
    torch.testing.assert_close(u, polar(g.reshape(4, 12)).reshape(g.shape))


def test_queries_keys_and_values_are_three():
    g = randn(6, 4)
    u = one(optfx.viewed(optfx.orthogonalize("svd"), views.split(3)), g)
    torch.testing.assert_close(u, torch.cat([polar(part) for part in g.split(2)]))
    paths = tree.paths(optfx.viewed(optfx.trace(0.9), views.split(3)).init({"qkv": g}).trace)
    assert paths == ["qkv.0", "qkv.1", "qkv.2"]


def test_heads_are_a_batch():
    g = randn(6, 4)
    u = one(optfx.viewed(optfx.orthogonalize("svd"), views.heads(3)), g)
    torch.testing.assert_close(u, torch.cat([polar(part) for part in g.split(2)]))


def test_blocks_are_each_their_own():
    g = randn(4, 6)
    u = one(optfx.viewed(optfx.orthogonalize("svd"), views.blocks(3)), g)
    torch.testing.assert_close(u[:3, 3:], polar(g[:3, 3:]))
    torch.testing.assert_close(u[3:, :3], polar(g[3:, :3]))


def test_small_dimensions_merge():
    assert [tuple(views.merged(n).parts(randn(2, 3, 4, 5))[0].shape) for n in (1, 6, 24, 120)] == [
        (2, 3, 4, 5),
        (6, 4, 5),
        (24, 5),
        (120,),
    ]


def test_gradients_are_shown_likewise_and_masks_inside_see_parts():
    params = {"qkv": randn(6, 4), "b": randn(4)}
    inner = optfx.chain(optfx.masked(optfx.scale(0.0), select.path("qkv.0")), optfx.cautious())
    tx = optfx.viewed(inner, views.split(3), select.path("qkv"))
    updates, _ = tx.update(params, tx.init(params), params)
    assert not updates["qkv"][:2].any()
    assert (updates["qkv"][2:] != 0).all()


def test_a_view_that_does_not_fit_says_so():
    with pytest.raises(ValueError, match=r"split: 4 is not a multiple of 3, in the shape \(4, 3\)"):
        optfx.viewed(optfx.trace(0.9), views.split(3)).init({"w": randn(4, 3)})


def test_fused_another_shape_costs_no_event():
    params = {"k": randn(4, 3, 2, 2).float(), "b": randn(5).float()}
    tx = optfx.viewed(optfx.adamw(0.1), views.as_matrix(), select.path("k"))
    opt = optfx.fuse(tx)
    mine, state = opt.init(params)
    assert "as it is" not in opt.explain()
    updates, _ = tx.update(params, tx.init(params), params)
    mine, state = opt.step(params, state, mine)
    assert tree.allclose(mine, optfx.apply_updates(params, updates))


def without_the_last_bit(u, p):
    return tree.map(lambda x: 2 * (x.view(torch.int32) & ~1).view(torch.float32).view(-1).view(x.shape), u)


def test_fused_the_same_bits_as_another_dtype_are_not_the_same_leaf():
    params = {"k": randn(4, 3).float(), "b": randn(5).float()}
    tx = optfx.chain(optfx.stateless(without_the_last_bit), optfx.scale(-0.1))
    opt = optfx.fuse(tx)
    mine, state = opt.init(params)
    updates, _ = tx.update(params, tx.init(params), params)
    mine, state = opt.step(params, state, mine)
    assert tree.allclose(mine, optfx.apply_updates(params, updates))


# ---- weight_norm -----------------------------------------------------------------------------------


def test_gradients_of_lengths_and_directions_are_those_of_autograd():
    w, g = randn(4, 3), randn(4, 3, seed=1)
    length = w.norm(dim=1, keepdim=True).clone().requires_grad_()
    v = w.clone().requires_grad_()
    (length * v / v.norm(dim=1, keepdim=True) * g).sum().backward()
    tx = optfx.weight_norm(optfx.sgd(0.1), optfx.sgd(0.3))
    updates, state = tx.update({"w": g}, tx.init({"w": w}), {"w": w})
    v, length = (v - 0.1 * v.grad).detach(), (length - 0.3 * length.grad).detach()
    torch.testing.assert_close(w + updates["w"], length * v / v.norm(dim=1, keepdim=True))
    torch.testing.assert_close(state.lengths["w"], length)
    torch.testing.assert_close(state.norms["w"], v.norm(dim=1, keepdim=True))


def test_the_direction_alone_keeps_the_lengths():
    params = {"w": randn(4, 3)}
    tx = optfx.weight_norm(optfx.chain(optfx.scale_by_muon(), optfx.scale_by_learning_rate(0.1)), optfx.sgd(0.0))
    state, p = tx.init(params), params
    for i in range(5):
        updates, state = tx.update({"w": randn(4, 3, seed=i)}, state, p)
        p = optfx.apply_updates(p, updates)
    torch.testing.assert_close(p["w"].norm(dim=1), params["w"].norm(dim=1))
    assert not torch.allclose(p["w"], params["w"])


def test_a_leaf_that_does_not_fit_is_named():
    p = {"w": torch.zeros(4, 6), "b": torch.zeros(5)}
    for view in (views.blocks(2), views.heads(2)):
        with pytest.raises(ValueError, match=r"viewed: \w+\(.*\) does not fit 'b' of shape \(5,\): .*mask"):
            optfx.viewed(optfx.identity(), view).init(p)


def test_shampoo_in_blocks():
    """Each block is preconditioned as a matrix of its own, those at the edges too."""
    torch.manual_seed(0)
    p = {"w": torch.randn(7, 10, dtype=torch.float64)}
    cut = lambda x: {f"{i}{j}": x[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].clone() for i in range(2) for j in range(3)}
    inner, q = optfx.scale_by_shampoo(), cut(p["w"])
    tx = optfx.viewed(inner, views.blocks(4))
    state, each = tx.init(p), inner.init(q)
    for k in range(4):
        g = {"w": torch.sin((k + 2) * p["w"])}
        updates, state = tx.update(g, state, p)
        expected, each = inner.update(cut(g["w"]), each, q)
        for name, x in cut(updates["w"]).items():
            torch.testing.assert_close(x, expected[name], rtol=1e-12, atol=1e-12)
