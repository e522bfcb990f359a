"""Results are written into the arguments, as if they had not been."""

import pytest
import torch

import optfx
from optfx import tree

PARAMS = {"b": torch.arange(3.0), "w": torch.arange(6.0).reshape(2, 3) + 1}
BACKENDS = [None, "aot_eager", "inductor"]


def copy(x):
    return tree.map(torch.clone, x)


def grow(p, s):
    return tree.scale(1.5, p), tree.add(s, p)


def previous(p, s):
    """The new state is the old params: the rotation that writing in order gets wrong."""
    return tree.add(p, s), p


def swap(p, s):
    return s, p


def previous_view(p, s):
    return tree.add(p, s), tree.map(lambda x: x.detach().view_as(x), p)


def previous_clone(p, s):
    return tree.add(p, s), tree.map(torch.clone, p)


def previous_slice(p, s):
    return tree.add(p, s), tree.map(lambda x: x[:], p)


def rotate_late(p, s):
    old = tree.map(lambda x: x.reshape(x.shape), p)
    p = tree.scale(2.0, s)
    return p, old


def untouched(p, s):
    return p, tree.add(s, p)


def flags(p, s):
    """bool and int leaves, rotated."""
    return tree.map(lambda x: ~x if x.dtype == torch.bool else x + 1, p), p


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "step", [grow, previous, swap, previous_view, previous_clone, previous_slice, rotate_late, untouched]
)
def test_equals_the_pure_step(step, backend, fresh_dynamo):
    p, s = copy(PARAMS), copy(tree.scale(0.1, PARAMS))
    pure_p, pure_s = copy(p), copy(s)
    run = optfx.donate(step, argnums=(0, 1))
    run = run if backend is None else torch.compile(run, fullgraph=True, backend=backend)
    buffers = tree.leaves((p, s))
    for _ in range(3):
        pure_p, pure_s = step(copy(pure_p), copy(pure_s))
        p, s = run(p, s)
        assert all(x is y for x, y in zip(tree.leaves((p, s)), buffers, strict=True))
        assert tree.allclose(p, pure_p)
        assert tree.allclose(s, pure_s)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bool_and_integer_leaves(backend, fresh_dynamo):
    p = {"flag": torch.tensor([True, False]), "count": torch.tensor(3)}
    s = {"flag": torch.tensor([False, False]), "count": torch.tensor(0)}
    run = optfx.donate(flags, argnums=(0, 1))
    run = run if backend is None else torch.compile(run, fullgraph=True, backend=backend)
    p, s = run(p, s)
    assert p["flag"].tolist() == [False, True]
    assert s["flag"].tolist() == [True, False]
    assert (p["count"], s["count"]) == (4, 3)


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_an_expanded_tensor_is_replaced_and_the_next_step_writes_in_place(backend, fresh_dynamo):
    count = torch.zeros(()).expand(4)
    run = optfx.donate(lambda c: c + torch.arange(4.0))
    run = run if backend is None else torch.compile(run, fullgraph=True, backend=backend)
    first = run(count)
    assert first is not count
    assert torch.equal(first, torch.arange(4.0))
    assert torch.equal(count, torch.zeros(4))
    again = run(first)
    assert again is first
    assert torch.equal(first, 2 * torch.arange(4.0))


def test_other_results_pass_through_and_a_lone_tree_comes_back_alone():
    p = copy(PARAMS)
    out = optfx.donate(lambda p: (tree.scale(2.0, p), "loss", 3))(p)
    assert out[0]["w"] is p["w"]
    assert out[1:] == ("loss", 3)
    state = (torch.zeros(()), torch.ones(()))  # a state that is itself a tuple
    new = optfx.donate(lambda s: (s[0] + 1, s[1] + 1))(state)
    assert new[0] is state[0]
    assert [x.item() for x in new] == [1.0, 2.0]


def test_under_vmap_inside():
    def inner(p):
        return optfx.donate(lambda p, s: (p + s, p), argnums=(0, 1))(p, p * 2)[0]

    assert torch.equal(torch.func.vmap(inner)(torch.arange(3.0)), 3 * torch.arange(3.0))


def test_parameters_that_require_grad_are_written_without_a_graph():
    w = torch.nn.Parameter(torch.ones(2))
    out = optfx.donate(lambda p: {"w": p["w"].detach() * 3})({"w": w})
    assert out["w"] is w
    assert w.grad_fn is None
    assert w.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"b": torch.zeros(3)}, "result 0 lacks the leaf 'w'"),
        ({**PARAMS, "x": torch.zeros(1)}, "unexpected leaf 'x'"),
        ({"b": torch.zeros(3), "w": torch.zeros(2, 2)}, r"\(2, 2\).*at 'w', expected \(2, 3\)"),
        ({"b": torch.zeros(3, dtype=torch.float64), "w": torch.zeros(2, 3)}, "float64.*at 'b'"),
    ],
)
def test_a_result_that_does_not_fit_is_an_error_and_nothing_is_written(result, message):
    p = copy(PARAMS)
    with pytest.raises(ValueError, match=message):
        optfx.donate(lambda p: (result,))(p)
    assert tree.allclose(p, PARAMS)


def test_too_few_results_and_a_tensor_donated_twice():
    x = torch.ones(2)
    with pytest.raises(ValueError, match="2 arguments are donated and the step returns 1"):
        optfx.donate(lambda a, b: (a,), argnums=(0, 1))(x, x.clone())
    with pytest.raises(ValueError, match="donated twice"):
        optfx.donate(lambda a, b: (a + 1, b + 2), argnums=(0, 1))(x, x)
    packed = torch.zeros(4)  # views into one buffer that do not overlap are fine
    left, right = optfx.donate(lambda a, b: (a + 1, b + 2), argnums=(0, 1))(packed[:2], packed[2:])
    assert packed.tolist() == [1.0, 1.0, 2.0, 2.0]
    assert left.tolist() == [1.0, 1.0]
    assert right.tolist() == [2.0, 2.0]
