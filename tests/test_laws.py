"""The laws of DESIGN: what holds for every transform, checked for every row of the registry."""

import copy
import pickle
import sys

import pytest
import torch
from torch.func import vmap

import optfx
from optfx import tree
from optfx.interop.groups import Knobs
from optfx.tree import verbs
from optfx.tree.nodes import nodes
from optfx.tree.recording import recording
from tests.harness import (
    DTYPES,
    Asked,
    assert_close,
    constants,
    describe,
    each,
    grads,
    hyper_rows,
    params,
    parts,
    rows,
    run,
    schedules,
    tensors,
)

# ---- 1: pure ------------------------------------------------------------------------------------


def storages(t):
    return {x.untyped_storage().data_ptr(): x for x in tree.leaves(t) if isinstance(x, torch.Tensor) and x.numel()}


@rows
def test_update_changes_nothing_and_shares_no_memory(row):
    p, tx = params(), row.make(**tensors(row))
    state = tx.init(p)
    assert not storages(state).keys() & (storages(p).keys() | storages(tx).keys())
    for step in range(2):
        g = grads(step)
        given = (p, g, state, tx)
        before = [(x.clone(), x._version) for x in tree.leaves(given)]
        result = tx.update(g, state, p, **row.extra)
        for x, (old, version) in zip(tree.leaves(given), before, strict=True):
            assert torch.equal(x, old)
            assert x._version == version
        owners = {x.data_ptr(): x for x in tree.leaves(given) if x.numel()}
        shared = storages(given)
        for x in tree.leaves(result):
            if x.numel() and x.untyped_storage().data_ptr() in shared:  # the same value, passed through
                assert x.shape == owners[x.data_ptr()].shape
                assert torch.equal(x, owners[x.data_ptr()])
        _, state = result


# ---- 2, 3, 4: what a state and updates look like ------------------------------------------------


def keep_their_form(row, dtype, grad_dtype):
    p, tx = params(dtype), row.make(**row.hypers)
    state = tx.init(p)
    form, structure = describe(state), tree.flatten(state)[1]
    for step in range(3):
        g = grads(step, grad_dtype)
        updates, state = tx.update(g, state, p, **row.extra)
        assert describe(updates) == describe(g)
        assert tree.flatten(updates)[1] == tree.flatten(g)[1]
        assert describe(state) == form
        assert tree.flatten(state)[1] == structure
        p = optfx.apply_updates(p, updates)
        assert tree.all_finite(p)


@rows
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_states_and_updates_keep_their_form(row, dtype):
    for grad_dtype in DTYPES:  # not tests of their own: a report of each takes as long as one of these
        keep_their_form(row, dtype, grad_dtype)


@rows
def test_every_leaf_of_a_state_is_a_tensor(row):
    state = row.make(**row.hypers).init(params())
    for path, node in nodes(state):
        assert node is not None, path
        if path and path[-1] == "count" and not isinstance(node, tree.Hole):
            assert (node.shape, node.dtype) == ((), torch.int64)
    assert all(isinstance(x, torch.Tensor) and not x.requires_grad for x in tree.leaves(state))


# ---- 5: compiled ---------------------------------------------------------------------------------


@parts
def test_one_graph_for_all_steps_and_all_values(row, fresh_dynamo, monkeypatch):
    # torch would trace twice, to find out that no float is among the inputs
    monkeypatch.setenv("TENSORIFY_PYTHON_SCALARS", "0")
    few = lambda t: {"w": t["w"], "b": t["b"]}  # Dynamo takes longer for each leaf
    p = few(params(torch.float32))

    def step(tx, g, state, p):
        updates, state = tx.update(g, state, p, **extra)
        return optfx.apply_updates(p, updates), updates, state, tx.init(p)

    extra = {k: few(x) if isinstance(x, dict) else x for k, x in row.extra.items()}
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    q, state, mine = p, row.make(**tensors(row)).init(p), row.make(**tensors(row)).init(p)
    for k in range(3):
        tx, g = (
            row.make(**{name: value * (1 - 0.1 * k) for name, value in tensors(row).items()}),
            few(grads(k, torch.float32)),
        )
        q, updates, state, begun = compiled(tx, g, state, q)
        p, expected, mine, again = step(tx, g, mine, p)
        assert_close(updates, expected, 1e-5, 1e-6)
        assert_close(state, mine, 1e-5, 1e-6)
        assert_close(begun, again, 1e-5, 1e-6)
    assert fresh_dynamo["stats"]["unique_graphs"] == 1


# ---- 6: vmapped ----------------------------------------------------------------------------------

TOLERANCE = {torch.float32: (2e-5, 1e-6), torch.bfloat16: (2e-2, 2e-2)}


def stacked(trees):
    return tree.map(lambda *xs: torch.stack(xs), *trees)


@rows
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_vmap_over_params_and_state_is_a_loop(row, dtype):
    tx, many = row.make(**tensors(row)), [params(dtype, seed) for seed in (0, 50, 60)]

    def train(p):
        out, state = run(row, tx, p)
        return out, state

    assert_close(vmap(train)(stacked(many)), stacked([train(p) for p in many]), *TOLERANCE[dtype])
    state = vmap(tx.init)(stacked(many))  # states made, kept and given back from outside
    updates, state = vmap(lambda s, p: tx.update(grads(0, dtype), s, p, **row.extra))(state, stacked(many))
    alone = [tx.update(grads(0, dtype), tx.init(p), p, **row.extra) for p in many]
    assert_close((updates, state), stacked(alone), *TOLERANCE[dtype])


@hyper_rows
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_vmap_over_each_hyperparameter_is_a_loop(row, dtype):
    p = params(dtype)
    for name, value in row.hypers.items():
        values = torch.tensor([value, 0.5 * value, 0.9 * value])

        def train(x, name=name):
            return run(row, row.make(**{**row.hypers, name: x}), p)

        assert_close(vmap(train)(values), stacked([train(x) for x in values]), *TOLERANCE[dtype])


# ---- 7: a float, a tensor, a schedule ------------------------------------------------------------


@hyper_rows
def test_float_tensor_and_schedule_agree(row):
    expected = run(row, row.make(**row.hypers), params())
    for kind in (tensors, schedules):
        out = run(row, row.make(**kind(row)), params())
        assert tree.flatten(out[1])[1] == tree.flatten(expected[1])[1]
        assert_close(out, expected, 1e-12, 1e-13)
    assert_close(run(row, row.make(**tensors(row, torch.float32)), params()), expected, 1e-3, 1e-5)


@hyper_rows
def test_a_schedule_sees_the_count_before_the_step(row):
    for name, value in row.hypers.items():
        table = torch.tensor([value, 0.5 * value, 0.7 * value], dtype=torch.float64)
        tx = row.make(**{**row.hypers, name: lambda count, table=table: table[count]})
        state, p = tx.init(params()), params()
        reached = row.make(**row.hypers).init(params())
        for step in range(3):
            one = row.make(**{**row.hypers, name: float(table[step])})
            updates, state = tx.update(grads(step), state, p, **row.extra)
            expected, reached = one.update(grads(step), reached, p, **row.extra)
            assert_close(updates, expected, 1e-12, 1e-13)


# ---- 8: nothing, zero, and holes --------------------------------------------------------------------


@rows
def test_zero_gradients_are_harmless(row):
    for dtype in DTYPES:
        p, tx = params(dtype), row.make(**row.hypers)
        state = tx.init(p)
        for _ in range(2):
            updates, state = tx.update(tree.zeros_like(p), state, p, **row.extra)
            assert tree.all_finite(updates), dtype
            assert not any(x.isnan().any() for x in tree.leaves(state)), dtype


@rows
def test_trees_without_leaves_pass_through(row):
    for empty in ({}, {"a": None}, {"a": optfx.tree.Hole(), "b": []}):
        tx = row.make(**row.hypers)
        updates, state = tx.update(empty, tx.init(empty), empty, **row.extra)
        assert updates == empty
        assert describe(tx.update(empty, state, empty, **row.extra)[1]) == describe(state), empty


@rows
def test_none_and_holes_are_no_leaves(row):
    tx, p = row.make(**row.hypers), {"w": params()["w"], "none": None, "hole": tree.Hole()}
    g = {"w": grads(0)["w"], "none": None, "hole": tree.Hole()}
    updates, _ = tx.update(g, tx.init(p), p, **row.extra)
    bare, _ = tx.update({"w": g["w"]}, tx.init({"w": p["w"]}), {"w": p["w"]}, **row.extra)
    assert updates["none"] is None
    assert updates["hole"] == tree.Hole()
    assert torch.equal(updates["w"], bare["w"])


@rows
def test_an_all_false_mask_is_the_identity(row):
    tx, p = optfx.masked(row.make(**row.hypers), False), params()
    state = tx.init(p)
    assert all(x.numel() <= 1 for x in tree.leaves(state))
    updates, _ = tx.update(grads(0), state, p, **row.extra)
    assert_close(updates, grads(0), 0)


@rows
def test_a_missing_or_misshapen_gradient_is_an_error_that_names_the_path(row):
    tx, p = row.make(**row.hypers), params()
    state = tx.init(p)
    before = tree.map(torch.clone, (p, state))
    lacking = {k: v for k, v in grads(0).items() if k != "w"} | {"w": None}
    misshapen = grads(0) | {"w": torch.zeros(2, 3, dtype=torch.float64)}
    for bad in (lacking, misshapen):
        with pytest.raises(ValueError, match=r"'w'|the structure"):
            optfx.apply_updates(p, tx.update(bad, state, p, **row.extra)[0])
    assert_close((p, state), before, 0)


# ---- 9: derivatives ------------------------------------------------------------------------------


@rows
@pytest.mark.parametrize("zero", [False, True], ids=["gradients", "zero gradients"])
def test_derivatives_are_finite(row, zero):
    p = params()

    def outcome(hypers, p, scale):
        tx = row.make(**hypers)
        state, total = tx.init(p), 0.0
        for step in range(2):
            g = tree.scale(scale, grads(step))
            updates, state = tx.update(g, state, p, **row.extra)
            p = optfx.apply_updates(p, updates)
            total = total + tree.vdot(p, grads(9))
        return total

    hypers = tensors(row) or {}
    scale = torch.tensor(0.0 if zero else 1.0, dtype=torch.float64)
    derivative = torch.func.grad(outcome, argnums=(0, 1, 2))(hypers, p, scale)
    for path, x in zip(tree.paths(derivative), tree.leaves(derivative), strict=True):
        assert torch.isfinite(x).all(), path


# ---- 11: data --------------------------------------------------------------------------------------


@rows
@pytest.mark.parametrize("kind", [constants, tensors, schedules])
def test_repr_pickle_and_copy(row, kind):
    tx = row.make(**kind(row))
    names = (
        vars(optfx.schedules) | vars(optfx.core) | vars(optfx) | vars(optfx.select) | {"torch": torch, "optfx": optfx}
    )
    names |= vars(sys.modules["tests.registry"])
    again, printed = eval(repr(tx), names), eval(str(tx), names)
    expected = run(row, tx, params())
    for other in (again, printed, pickle.loads(pickle.dumps(tx)), copy.deepcopy(tx)):
        assert repr(other) == repr(tx)
        assert_close(tree.leaves(other), tree.leaves(tx), 0)
        assert_close(run(row, other, params()), expected, 0)


@rows
def test_a_state_survives_a_dict_bitwise(row, tmp_path):
    tx = row.make(**row.hypers)
    _, state = run(row, tx, params())
    torch.save(tree.to_dict(state), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    again = tree.from_dict(tx.init(params()), loaded)
    assert_close(again, state, 0)
    assert_close(run(row, tx, params(), state=again), run(row, tx, params(), state=state), 0)


@rows
def test_a_number_has_one_path(row):
    """In `hyperparams`, in an injected state, and for the knobs of groups."""
    tx, p = row.make(**row.hypers), params()
    numbers, now = optfx.core.numbers(tx), optfx.hyperparams(tx, tx.init(p))
    transforms = {path for path, _ in each(tx)}
    for path, value in numbers.items():
        if path.rpartition(".")[0] in transforms:  # else it is a schedule's, which `hyperparams` evaluates
            assert float(now[path]) == pytest.approx(float(value), rel=1e-12), path
    for value in row.hypers.values():
        assert value in numbers.values()
    injected = optfx.inject_hyperparams(tx)
    state = injected.init(p)
    assert list(state.hyperparams) == list(numbers)
    assert list(optfx.hyperparams(injected, state)) == list(now)
    assert_close(run(row, injected, p)[0], run(row, tx, p)[0], 1e-12, 1e-13)
    if any(isinstance(part, optfx.inject_hyperparams) for _, part in each(tx)):
        return  # each number is in the state twice now, and groups have none
    for path in numbers:
        changed = tree.set(state, {path: 0.125})
        assert tree.get(changed, path) == 0.125
        if path in now:
            assert optfx.hyperparams(injected, changed)[path] == 0.125
    knobs = {path for knob in Knobs(tx).found.values() for path in knob.paths}
    assert knobs == numbers.keys() & now.keys()


# ---- where the model is evaluated --------------------------------------------------------------------

AROUND = {
    "chain": lambda tx: optfx.chain(tx),
    "masked": lambda tx: optfx.masked(tx, True),
    "partition": lambda tx: optfx.partition({"all": tx}, "all"),
    "inject_hyperparams": optfx.inject_hyperparams,
    "apply_if_finite": lambda tx: optfx.apply_if_finite(tx, 3),
}


def averages(tx):
    """Whether a transform, or one inside it, says itself where to evaluate."""
    own = optfx.core.GradientTransformation.eval_params
    return any(type(part).eval_params is not own and not getattr(part, "partial", False) for _, part in each(tx))


@rows
def test_the_model_is_evaluated_at_params_or_an_average_of_them(row):
    tx, p = row.make(**row.hypers), params()
    found = tx.eval_params(run(row, tx, p)[1], p)
    assert tree.flatten(found)[1] == tree.flatten(p)[1]
    assert describe(found) == describe(p)
    assert averages(tx) or all(x is y for x, y in zip(tree.leaves(found), tree.leaves(p), strict=True))
    for name, around in AROUND.items():
        outer = around(tx)
        through = outer.eval_params(run(row, outer, p)[1], p)
        assert tree.flatten(through)[1] == tree.flatten(p)[1], name
        assert_close(through, found, 1e-12, 1e-13)


# ---- the verbs and the contract of their functions ---------------------------------------------------


class Leaf(torch.Tensor):
    """A leaf that only the verbs may touch."""

    open = False

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", str(function))
        assert cls.open or name == "__get__" or "ndim" in name or name in ("numel", "dim", "size"), (
            f"{name} on a leaf outside the verbs"
        )
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))


def as_leaves(t):
    return tree.map(lambda x: x.as_subclass(Leaf) if x.ndim else x, t)


def as_tensors(xs):
    return tuple(x.as_subclass(torch.Tensor) for x in xs)


class Opening(Asked):
    """Opens leaves for the verbs, and closes what they return."""

    def run_leaf(self, f, xs, scalars, outs, whole):
        Leaf.open = True
        try:
            ys = super().run_leaf(f, as_tensors(xs), scalars, outs, whole)
            return [y.as_subclass(Leaf) if isinstance(x, Leaf) else y for x, y in zip(xs, ys, strict=False)]
        finally:
            Leaf.open = False

    def run_matrices(self, f, rows, scalars, like):
        Leaf.open = True
        try:
            found = super().run_matrices(f, [as_tensors(xs) for xs in rows], scalars, like)
            return [[y.as_subclass(Leaf) for y in ys] for ys in found]
        finally:
            Leaf.open = False

    def reduce(self, f, combine, rows, scalars):
        Leaf.open = True
        try:
            return super().reduce(f, combine, [as_tensors(xs) for xs in rows], scalars)
        finally:
            Leaf.open = False


LOOKS = {
    "flatten": "it makes one leaf of all",
    "viewed": "it shows leaves in another shape",
    "scale_by_apollo": "it makes smaller leaves",
    "scale_by_galore": "it makes smaller leaves",
    "stored": "it makes leaves of another dtype, and of another shape",
    "reset_every": "it makes a state anew, as `init` does",
}


@rows
def test_only_the_verbs_touch_leaves(row):
    if row.name in LOOKS:
        pytest.skip(LOOKS[row.name])
    tx, p = row.make(**tensors(row)), params()
    given = [as_leaves(t) for t in (grads(0), tx.init(p), p)]
    with recording(Opening()):
        updates, _ = tx.update(*given, **row.extra)
    assert tree.flatten(updates)[1] == tree.flatten(p)[1]


def is_module_level(f):
    if isinstance(f, type(torch.add)) or getattr(torch, getattr(f, "__name__", ""), None) is f:
        return True
    home = sys.modules.get(f.__module__)
    return getattr(home, f.__qualname__, None) is f


@rows
def test_the_contract_of_leaf_functions(row):
    seen, checked = Asked(), set()
    with recording(seen):
        run(row, row.make(**tensors(row)), params(), steps=2)
    for f, xs, scalars, outs, whole, like in seen.calls:
        assert is_module_level(f), f
        hash(f)
        if xs[0].numel() < 2 or (f, outs) in checked:
            continue
        checked.add((f, outs))
        xs = verbs.lift(xs, verbs.computation_dtype([x.dtype for x in xs]))

        def call(*xs, f=f, scalars=scalars):
            ys = f(*xs, **scalars)
            return ys if isinstance(ys, tuple) else (ys,)

        ys = call(*xs)
        wide = {k: torch.tensor(v, dtype=torch.float64) if type(v) is float else v for k, v in scalars.items()}
        for a, b in zip(ys, call(*xs, scalars=wide), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        assert len(ys) == outs
        for k, y in zip(like, ys, strict=True):
            assert xs[k].shape == y.shape, f
        if not whole:
            for k, x in enumerate(xs):
                if not x.is_floating_point():
                    continue
                moved = x.clone(memory_format=torch.contiguous_format)
                moved.view(-1)[0] += 0.7
                zs = call(*(moved if i == k else other for i, other in enumerate(xs)))
                for y, z in zip(ys, zs, strict=True):
                    assert torch.equal(y.reshape(-1)[1:], z.reshape(-1)[1:]), f"{f} looks across elements"
            flat = call(*(x.reshape(-1) for x in xs))
            for y, z in zip(ys, flat, strict=True):
                assert torch.equal(y.reshape(-1), z)
