"""Trees: maps, paths, holes, prefixes, the verbs, the algebra, for any nesting."""

import copy
import pickle
from collections import OrderedDict, deque
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import optfx
from optfx import tree
from optfx.tree.holes import broadcast
from optfx.tree.record import children
from optfx.tree.words import difference


class Pair(NamedTuple):
    mu: object
    other: object


@tree.record
class Box:
    inside: object
    label: str = "box"


SHAPES = [(), (0,), (3,), (2, 3), (2, 0), (2, 1, 3, 1)]


def tensors(dtypes=(torch.float64,)):
    def make(shape, dtype, seed):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

    return st.builds(make, st.sampled_from(SHAPES), st.sampled_from(list(dtypes)), st.integers(0, 1000))


def nests(leaf):
    keys = st.text("ab.mu", min_size=1, max_size=3)
    return st.recursive(
        leaf | st.none() | st.just(tree.Hole()),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(keys, inner, max_size=3)
            | st.dictionaries(st.integers(0, 5), inner, max_size=3)
            | st.dictionaries(keys, inner, max_size=3).map(OrderedDict)
            | st.lists(inner, max_size=2).map(deque)
            | st.builds(Pair, inner, inner)
        ),
        max_leaves=8,
    )


many = settings(max_examples=100, deadline=None)


def same(a, b):
    assert tree.flatten(a)[1] == tree.flatten(b)[1]
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        assert torch.equal(x, y)
        assert x.dtype == y.dtype


@many
@given(nests(tensors()))
def test_leaves_come_back_in_their_places(t):
    leaves, structure = tree.flatten(t)
    assert len(tree.paths(t)) == len(leaves)
    same(tree.unflatten(structure, leaves), t)
    same(tree.unflatten_like(t, leaves), t)
    again = tree.unflatten_like(t, leaves)
    assert type(again) is type(t)
    numbered = tree.unflatten_like(t, range(len(leaves)))
    assert tree.leaves(numbered) == list(range(len(leaves)))


@many
@given(nests(tensors()), st.data())
def test_split_and_merge_are_inverse_and_keep_paths(t, data):
    keep = data.draw(st.lists(st.booleans(), min_size=len(tree.leaves(t)), max_size=len(tree.leaves(t))))
    a, b = tree.split(t, keep)
    same(tree.merge(a, b), t)
    assert tree.paths(a) == [p for p, k in zip(tree.paths(t), keep, strict=True) if k]
    assert len(tree.leaves(a)) + len(tree.leaves(b)) == len(tree.leaves(t))


@many
@given(nests(tensors()))
def test_broadcast_of_a_root_value_and_of_a_full_tree(t):
    n = len(tree.leaves(t))
    assert broadcast(True, t) == [True] * n
    full = tree.unflatten_like(t, [i % 2 == 0 for i in range(n)])
    assert broadcast(full, t) == [i % 2 == 0 for i in range(n)]


@many
@given(nests(tensors()))
def test_dict_round_trip_or_a_collision(t):
    if len(set(tree.paths(t))) < len(tree.paths(t)):
        with pytest.raises(ValueError, match="share the path"):
            tree.to_dict(t)
    else:
        same(tree.from_dict(t, tree.to_dict(t)), t)


@many
@given(nests(tensors()))
def test_reductions_are_those_of_the_flat_vector(t):
    flat = torch.cat([x.reshape(-1) for x in tree.leaves(t)] or [torch.zeros(0, dtype=torch.float64)])
    close = {"rtol": 1e-12, "atol": 1e-12, "check_dtype": False}
    torch.testing.assert_close(tree.norm(t), flat.norm(), **close)
    torch.testing.assert_close(tree.norm(t, squared=True), flat.square().sum(), **close)
    torch.testing.assert_close(tree.norm(t, 1), flat.abs().sum(), **close)
    torch.testing.assert_close(tree.sum(t), flat.sum(), **close)
    torch.testing.assert_close(tree.vdot(t, tree.scale(2.0, t)), 2 * (flat * flat).sum(), **close)
    assert tree.size(t) == flat.numel()
    assert tree.all_finite(t)
    if flat.numel():
        assert tree.max(t) == flat.max()
        assert tree.min(t) == flat.min()
        assert tree.norm(t, float("inf")) == flat.abs().max()


@many
@given(nests(tensors(dtypes=(torch.float16, torch.bfloat16, torch.float32, torch.float64))))
def test_arithmetic_keeps_structure_and_dtype(t):
    half = tree.scale(0.5, t)
    same(tree.add(half, half), t)
    same(tree.sub(t, tree.zeros_like(t)), t)
    same(tree.add_scale(tree.zeros_like(t), 1.0, t), t)
    same(tree.mul(t, tree.ones_like(t)), t)
    same(tree.div(t, tree.full_like(t, 1.0)), t)
    same(tree.where(torch.tensor(True), t, half), t)
    same(tree.where(tree.map(lambda x: torch.zeros_like(x, dtype=torch.bool), t), t, half), half)
    same(tree.cast_like(tree.cast(t, torch.float64), t), t)
    same(tree.real(t), t)
    same(tree.conj(t), t)
    assert all(x.abs().max() <= 0.25 for x in tree.leaves(tree.clip(t, -0.25, 0.25)) if x.numel())


@many
@given(nests(tensors()), nests(tensors()))
def test_trees_that_differ_are_an_error_in_words(a, b):
    words = difference(a, b)
    assert (words is None) == (tree.flatten(a)[1] == tree.flatten(b)[1])
    if words is not None:
        with pytest.raises(ValueError, match=r"add: argument 1 does not match argument 0: it (lacks|has)"):
            tree.add(a, b)


OPS = {
    "add": lambda m, x, y: m.add(x, y),
    "add three": lambda m, x, y: m.add(x, y, x),
    "sub": lambda m, x, y: m.sub(x, y),
    "mul": lambda m, x, y: m.mul(x, y),
    "div": lambda m, x, y: m.div(x, y),
    "scale": lambda m, x, y: m.scale(0.3, x),
    "add_scale": lambda m, x, y: m.add_scale(x, 0.3, y),
    "vdot": lambda m, x, y: m.vdot(x, y),
    "sum": lambda m, x, y: m.sum(x),
    "max": lambda m, x, y: m.max(x),
    "min": lambda m, x, y: m.min(x),
    "norm": lambda m, x, y: m.norm(x),
    "norm squared": lambda m, x, y: m.norm(x, squared=True),
    "norm inf": lambda m, x, y: m.norm(x, float("inf")),
    "norm 1": lambda m, x, y: m.norm(x, 1),
    "clip": lambda m, x, y: m.clip(x, -0.1, 0.2),
    "clip one side": lambda m, x, y: m.clip(x, None, 0.2),
    "ones_like": lambda m, x, y: m.ones_like(x),
    "full_like": lambda m, x, y: m.full_like(x, 7.0),
    "real": lambda m, x, y: m.real(x),
    "conj": lambda m, x, y: m.conj(x),
    "allclose": lambda m, x, y: m.allclose(x, y),
    "size": lambda m, x, y: m.size(x),
}
REAL_ONLY = {"max", "min", "clip", "clip one side"}


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_algebra_equals_optax(name, dtype):
    rng = np.random.default_rng(0)

    def draw(*shape):
        x = rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype == np.complex128 else 0)
        return np.asarray(x, dtype)

    x, y = ({"b": draw(3), "a": [draw(2, 2), draw()]} for _ in range(2))
    ours = [tree.map(torch.as_tensor, t) for t in (x, y)]
    if dtype == np.complex128 and name in REAL_ONLY:
        with pytest.raises(TypeError, match=r"no order.*'a\.0'"):
            OPS[name](tree, *ours)
        return
    mine = OPS[name](tree, *ours)
    theirs = OPS[name](optax.tree, *(jax.tree.map(jax.numpy.asarray, t) for t in (x, y)))
    for a, b in zip(tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-12)


def test_compiled_and_vmapped_like_eager(fresh_dynamo):
    t = {"b": torch.randn(4, 2), "a": [torch.randn(4)], "holed": tree.Hole()}  # vmap itself refuses None

    def f(t):
        mine, rest = tree.split(t, [p.startswith("b") for p in tree.paths(t)])
        mine = tree.scale(3.0, mine)
        merged = tree.merge(mine, rest)
        return tree.where(tree.norm(merged) > 1, merged, tree.zeros_like(merged)), tree.vdot(merged, t)

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    for run, other in ((f, compiled), (torch.func.vmap(f), torch.compile(torch.func.vmap(f), backend="aot_eager"))):
        for a, b in zip(tree.leaves(run(t)), tree.leaves(other(t)), strict=True):
            torch.testing.assert_close(a, b)
    row = tree.leaves(f(tree.map(lambda x: x[1], t)))
    for a, b in zip(tree.leaves(torch.func.vmap(f)(t)), row, strict=True):
        torch.testing.assert_close(a[1], b)


# ---- the verbs -----------------------------------------------------------------------------


def rotate(x, y, angle):
    return torch.cos(torch.as_tensor(angle)) * x - y, x + y


def test_dtypes_of_a_verb():
    x = {"w": torch.ones(2, dtype=torch.bfloat16)}
    y = {"w": torch.ones(2, dtype=torch.float64)}
    seen = []

    def spy(x, y, s):
        seen.append((x.dtype, y.dtype, s.dtype, s.device))
        return x + s, y + s

    a, b = tree.elementwise(spy, x, y, outs=2, s=torch.tensor(1.0, dtype=torch.float32))
    assert seen == [(torch.float64, torch.float64, torch.float64, torch.device("cpu"))]
    assert (a["w"].dtype, b["w"].dtype) == (torch.bfloat16, torch.float64)
    tree.elementwise(spy, x, x, outs=2, s=torch.tensor(1.0, dtype=torch.float64))
    assert seen[1][:3] == (torch.float32,) * 3


def test_complex_leaves_are_pairs_of_reals_for_elementwise():
    z = torch.tensor([3 + 4j, 1j], dtype=torch.complex128)
    square = tree.elementwise(torch.mul, {"z": z}, {"z": z})["z"]
    assert torch.equal(torch.view_as_real(square), torch.view_as_real(z) ** 2)
    assert torch.equal(tree.mul({"z": z}, {"z": z})["z"], z * z)
    with pytest.raises(TypeError, match="'z': complex and real leaves meet"):
        tree.elementwise(torch.mul, {"z": z}, {"z": z.real})


def misshapen(x, y):
    return x + y


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        ({"a": {"w": torch.ones(2)}}, ValueError, "lacks the leaf 'b'"),
        ({"a": {"w": torch.ones(2)}, "b": None}, ValueError, "lacks the leaf 'b'"),
        ({"a": {"w": torch.ones(2), "v": torch.ones(1)}, "b": torch.ones(())}, ValueError, "unexpected leaf 'a.v'"),
        ({"a": {"w": torch.ones(2, 1)}, "b": torch.ones(())}, ValueError, r"\(2, 1\) at 'a.w', expected \(2,\)"),
        ({"a": {"w": torch.ones(2)}, "b": torch.ones((), device="meta")}, ValueError, "on meta at 'b'"),
        ({"a": [torch.ones(2)], "b": torch.ones(())}, ValueError, "lacks the leaf 'a.w'"),
        (OrderedDict(a={"w": torch.ones(2)}, b=torch.ones(())), ValueError, "OrderedDict where a dict"),
    ],
)
def test_bad_trees_are_named(other, error, message):
    good = {"a": {"w": torch.ones(2)}, "b": torch.ones(())}
    before = copy.deepcopy(good)
    with pytest.raises(error, match="misshapen.*" + message):
        tree.elementwise(misshapen, good, other)
    same(good, before)


def test_a_result_that_its_leaf_cannot_hold_and_a_batched_scalar():
    with pytest.raises(TypeError, match=r"mul at 'n'.*float32.*int64"):
        tree.elementwise(torch.mul, {"n": torch.ones(2, dtype=torch.int64)}, other=0.5)
    with pytest.raises(ValueError, match=r"scalar 'other' has the shape \(3,\).*vmap"):
        tree.elementwise(torch.mul, {"w": torch.ones(3)}, other=torch.ones(3))
    with pytest.raises(TypeError, match="2 results where 1 were expected"):
        tree.elementwise(rotate, {"w": torch.ones(3)}, {"w": torch.ones(3)}, angle=0.1)


def test_empty_trees():
    for empty in ({}, (), None, tree.Hole(), {"a": None}):
        assert tree.elementwise(rotate, empty, empty, outs=2, angle=1.0) == (empty, empty)
        assert tree.norm(empty) == 0
        assert tree.sum(empty) == 0
        assert tree.all_finite(empty)
        assert tree.max(empty) == float("-inf")
        assert tree.paths(empty) == []
    for empty in (torch.zeros(0), torch.zeros(0, dtype=torch.int64)):
        assert int(tree.max({"a": empty, "b": torch.tensor([-3, -2])})) == -2
        assert int(tree.min({"a": empty, "b": torch.tensor([3, 2])})) == 2


def test_norm_has_a_finite_derivative_at_zero():
    zero = {"a": torch.zeros(2), "b": torch.zeros(())}
    for g in (torch.func.grad(tree.norm)(zero), torch.func.grad(lambda t: tree.norm(t, squared=True))(zero)):
        assert all((x == 0).all() for x in tree.leaves(g))


# ---- records ---------------------------------------------------------------------------------


def test_a_record_is_a_tree_of_its_tensors():
    box = Box((torch.ones(2), Box(torch.zeros(()))), "outer")
    assert tree.paths(box) == ["inside.0", "inside.1.inside"]
    assert children(Box(3.0)) == ()
    twice = tree.map(lambda x: x + 1, box)
    assert twice.label == "outer"
    assert torch.equal(twice.inside[0], torch.full((2,), 2.0))
    same(pickle.loads(pickle.dumps(box)), box)
    same(copy.deepcopy(box), box)
    assert tree.replace(box, label="new").label == "new"
    with pytest.raises(TypeError, match="no field"):
        tree.replace(box, lable="new")
    with pytest.raises(AttributeError):
        box.label = "frozen"
    with pytest.raises(TypeError, match="tensors and other values"):
        tree.leaves(Box([torch.ones(1), 2.0]))


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        float("inf"),
        float("nan"),
        3,
        None,
        True,
        "text",
        (1.0, (2,)),
        [1.0],
        {"a": 2.0},
        torch.float32,
        torch.tensor([1.0, float("-inf"), 0.1]),
        torch.tensor(0.1, dtype=torch.bfloat16),
        torch.tensor([], dtype=torch.int64),
        torch.tensor(1 + 2j),
        {"a": torch.tensor(True)},
    ],
)
def test_repr_reads_back(value):
    box = Box(value)
    again = eval(repr(box), {"Box": Box, "torch": torch, "nan": float("nan"), "inf": float("inf")})
    assert repr(again) == repr(box)
    for x, y in zip(tree.leaves(box), tree.leaves(again), strict=True):
        assert x.dtype == y.dtype
        assert torch.equal(x, y)


def test_vmap_and_grad_see_through_records():
    out = torch.func.vmap(lambda box: Box(box.inside * 2))(Box(torch.arange(3.0)))
    assert torch.equal(out.inside, 2 * torch.arange(3.0))
    g = torch.func.grad(lambda box: (box.inside**2).sum())(Box(torch.arange(3.0)))
    assert torch.equal(g.inside, 2 * torch.arange(3.0))


# ---- names in states ---------------------------------------------------------------------------


def test_get_and_set_where_optax_fails():
    params = {"mu": torch.ones(2), "count": torch.ones(()), "l1.weight": torch.ones(1)}
    tx = optfx.chain(optfx.scale_by_adam(), optfx.scale_by_adam(), optfx.scale_by_learning_rate(0.1))
    state = tx.init(params)
    assert list(tree.get_all(state, "count")) == ["0.count", "1.count", "2.count"]
    assert list(tree.get_all(state, "mu")) == ["0.mu", "1.mu"]
    with pytest.raises(KeyError, match=r"3 nodes are called 'count'.*0\.count.*2\.count"):
        tree.get(state, "count")
    with pytest.raises(KeyError, match="nothing is called 'nope'"):
        tree.get(state, "nope")
    assert tree.get(state, "1.mu.mu").shape == (2,)
    assert tree.get(state, "0.nu.l1.weight").shape == (1,)
    assert set(tree.get(state, "0.nu")) == {"mu", "count", "l1.weight"}

    new = tree.set(state, {"0.count": 5, "1.mu": params})
    assert (new[0].count, new[1].count) == (5, 0)
    assert new[0].count.dtype == torch.int64
    same(new[1].mu, params)
    same(new[0].mu, state[0].mu)
    with pytest.raises(KeyError, match="3 nodes"):
        tree.set(state, count=5)
    with pytest.raises(ValueError, match=r"'0\.nu' lacks the leaf 'count'"):
        tree.set(state, {"0.nu": {"mu": torch.ones(2)}})
    with pytest.raises(ValueError, match=r"'0\.nu\.mu' has the shape \(3,\), expected \(2,\)"):
        tree.set(state, {"0.nu.mu": torch.ones(3)})


def test_from_dict_lists_every_fault():
    like = {"a": torch.zeros(2), "b": torch.zeros(1), "c": torch.zeros(1), "d": torch.zeros(1)}
    flat = {"a": torch.zeros(3), "b": torch.zeros(1, dtype=torch.float64), "c": 1.0, "x": torch.zeros(1)}
    with pytest.raises(ValueError, match="does not fit the tree") as error:
        tree.from_dict(like, flat)
    for words in ("missing: d", "unexpected: x", "a: (3,)", "b: (1,) torch.float64", "c: a float"):
        assert words in str(error.value)


@pytest.mark.parametrize("empty", [{}, {"c": None}, {"c": tree.Hole()}, {"c": {"d": ()}}, None, (), [None]], ids=str)
def test_a_compiled_tree_with_a_part_without_leaves(empty, fresh_dynamo):
    t = {"b": torch.ones(2), "a": empty, "n": Pair({"w": torch.ones(3)}, empty)}

    def f(t):
        kept, rest = tree.split(tree.scale(2.0, t), [True, False])
        return tree.merge(tree.add(kept, kept), rest), tree.norm(t), tree.leaves(t), tree.cast(t, torch.float64)

    out, compiled = f(t), torch.compile(f, fullgraph=True, backend="aot_eager")(t)
    same(compiled, out)
    assert type(out[0]["a"]) is type(compiled[0]["a"]) is type(empty)


def test_a_compiled_difference_is_an_error_too(fresh_dynamo):
    def f(x, y):
        return tree.add(x, y)

    good, bad = {"a": torch.ones(2), "b": [torch.ones(1)]}, {"a": torch.ones(2), "b": (torch.ones(1),)}
    compiled = torch.compile(f, backend="aot_eager")
    same(compiled(good, good), f(good, good))
    with pytest.raises(Exception, match="a tuple where a list was expected"):
        compiled(good, bad)


def test_print_shows_code_in_brief_over_several_lines():
    tx = optfx.named_chain(("clip", optfx.clip(1.0)), ("adam", optfx.adam(0.1, nesterov=True)), ("b", optfx.trace(0.5)))
    assert (
        str(tx)
        == """\
named_chain(
    ('clip', clip(max_delta=1.0)),
    (
        'adam',
        chain(
            scale_by_adam(b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, nesterov=True),
            scale_by_learning_rate(learning_rate=0.1),
        ),
    ),
    ('b', trace(decay=0.5)),
)"""
    )
    assert repr(eval(str(tx), vars(optfx))) == repr(tx)
    assert str(optfx.scale(0.5)) == repr(optfx.scale(0.5))


def test_a_text_of_its_own_is_kept():
    @tree.record
    class Named:
        x: float

        def __repr__(self):
            return "mine"

    assert repr(Named(1.0)) == str(Named(1.0)) == "mine"
    assert repr(optfx.tree.replace(optfx.scale(1.0), step_size=Named(1.0))) == "scale(step_size=mine)"
