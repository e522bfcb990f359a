"""The contract of transforms: extra arguments, bad input, modules, selectors, hyperparameters, batches."""

import gc

import pytest
import torch

import optfx
from optfx import select, tree


@pytest.fixture
def params():
    return {
        "l1": {"weight": torch.ones(3, 2), "bias": torch.ones(3)},
        "l2": {"weight": torch.ones(1, 3)},
        "s": torch.ones(()),
    }


@optfx.tree.record
class wants_value(optfx.core.GradientTransformation):
    needs, takes = ("value",), ("temperature",)

    def begin(self, params):
        return ()

    def step(self, updates, state, params, *, value, temperature=1.0):
        return tree.scale(value * temperature, updates), state


# ---- extra arguments ---------------------------------------------------------------------------


def test_the_vocabulary_is_accepted_by_all_and_typos_are_errors(params):
    tx = optfx.adamw(0.1)
    state = tx.init(params)
    tx.update(params, state, params, value=torch.tensor(1.0), grad=params, value_fn=lambda p: p)
    with pytest.raises(TypeError, match=r"unknown argument vlaue; known are .*value"):
        tx.update(params, state, params, vlaue=1.0)


def test_a_declared_argument_finds_its_transform_through_every_wrapper(params):
    assert wants_value().extra_args == {"value", "temperature"}
    inner = optfx.inject_hyperparams(optfx.masked(wants_value(), select.path("s")))
    tx = optfx.named_chain(
        ("a", optfx.chain(optfx.scale(1.0), optfx.apply_if_finite(inner, 3))),
        ("b", optfx.partition({"x": wants_value(), "y": optfx.identity()}, select.label({"x": select.path("s")}, "y"))),
    )
    updates, _ = tx.update(params, tx.init(params), params, value=2.0, temperature=3.0)
    assert updates["s"] == 36.0
    assert torch.equal(updates["l1"]["bias"], params["l1"]["bias"])
    with pytest.raises(TypeError, match=r"unknown argument colour; known are .*temperature"):
        tx.update(params, tx.init(params), params, value=2.0, colour=3.0)
    with pytest.raises(
        ValueError, match=r"wants_value needs the extra argument value .*: give value=\.\.\. to `update`"
    ):
        tx.update(params, tx.init(params), params)


def test_foreign_pairs(params):
    class Pair:
        def __init__(self, takes_any):
            self.seen = {}
            if takes_any:
                self.update = lambda u, s, p=None, **extra: (self.seen.update(extra) or u, s)
            else:
                self.update = lambda u, s, p=None: (u, s)

        def init(self, params):
            return ()

    for takes_any in (True, False):
        pair = Pair(takes_any)
        tx = optfx.chain(pair, optfx.sgd(1.0))
        updates, _ = tx.update(params, tx.init(params), value=3.0)
        assert updates["s"] == -1.0
        assert pair.seen == ({"value": 3.0} if takes_any else {})
    init, update = optfx.sgd(1.0)
    assert update(params, init(params))[0]["s"] == -1.0
    with pytest.raises(TypeError, match="expected a transform or a pair"):
        optfx.chain(lambda g: g)


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda g: {**g, "s": None},
            ValueError,
            "chain: the tree of updates does not fit params: it lacks the leaf 's'",
        ),
        (lambda g: {k: v for k, v in g.items() if k != "s"}, ValueError, "leaf 's'"),
        (lambda g: {**g, "extra": torch.ones(1)}, ValueError, "leaf 'extra'"),
        (lambda g: {**g, "l1": {"weight": torch.ones(3, 2), "bias": torch.ones(4)}}, ValueError, r"at 'l1.bias'"),
        (lambda g: {**g, "s": torch.ones((), device="meta")}, ValueError, "'s'"),
        (lambda g: {**g, "s": torch.ones((), dtype=torch.int64)}, TypeError, "at 's'.*int64"),
    ],
)
def test_bad_gradients_name_the_path_and_change_nothing(params, spoil, error, message):
    tx = optfx.chain(optfx.scale_by_adam(), optfx.add_decayed_weights(0.1), optfx.scale_by_learning_rate(0.1))
    state = tx.init(params)
    before = tree.map(torch.clone, (params, state))
    with pytest.raises(error, match=message):
        tx.update(spoil(params), state, params)
    assert tree.allclose(before, (params, state))


def test_bad_params(params):
    with pytest.raises(TypeError, match=r"'l1.n' is torch.int64"):
        optfx.adam(0.1).init({"l1": {"n": torch.ones(2, dtype=torch.int64)}})
    with pytest.raises(TypeError, match="'x' is a float, expected a tensor"):
        optfx.adam(0.1).init({"x": 1.0})
    with pytest.raises(ValueError, match="add_decayed_weights needs params"):
        optfx.adamw(0.1).update(params, optfx.adamw(0.1).init(params))
    with pytest.raises(ValueError, match=r"at 'l1.bias'"):
        optfx.apply_updates(params, {**params, "l1": {"weight": torch.ones(3, 2), "bias": torch.ones(3, 1)}})


def test_a_batch_of_rates_outside_vmap_is_an_error(params):
    tx = optfx.sgd(torch.tensor([0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match=r"shape \(3,\).*vmap"):
        tx.update(params, tx.init(params))


# ---- modules -----------------------------------------------------------------------------------


def test_params_share_storage_tied_once_frozen_left_out():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    params = optfx.params(model)
    assert list(params) == ["0.weight", "0.bias"]
    assert not any(p.requires_grad for p in params.values())
    assert params["0.weight"].data_ptr() == model[0].weight.data_ptr()


def test_stepping_a_module_after_backward_equals_torch():
    def train(step_with):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
        x = torch.randn(16, 4, dtype=torch.float64)
        step_with(model, lambda: model.zero_grad() or model(x).square().mean().backward())
        return optfx.params(model)

    def torch_way(model, backward):
        opt = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.01)
        for _ in range(10):
            backward()
            opt.step()

    def optfx_way(model, backward):
        tx = optfx.adamw(0.1, weight_decay=0.01)

        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optfx.apply_updates(params, updates), state

        step = optfx.donate(step, argnums=(0, 1))
        params = optfx.params(model)
        state = tx.init(params)
        for _ in range(10):
            backward()
            params, state = step(params, state, optfx.grads(model))
        assert model[0].weight.grad_fn is None

    a, b = train(torch_way), train(optfx_way)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-12, atol=1e-14)


def test_missing_gradients_are_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0](torch.ones(1, 2)).sum().backward()
    with pytest.raises(ValueError, match=r"no gradient for '1.weight', '1.bias'"):
        optfx.grads(model)


def test_live_parameters_are_caught_and_memory_is_constant():
    model = torch.nn.Linear(8, 8)
    tx = optfx.chain(optfx.add_decayed_weights(0.1), optfx.scale_by_adam(), optfx.scale_by_learning_rate(0.1))
    live = dict(model.named_parameters())
    state = tx.init(live)
    assert not any(x.requires_grad for x in tree.leaves(state))
    grads = tree.map(torch.ones_like, live)
    with pytest.raises(ValueError, match=r"'bias' is an nn.Parameter that requires grad.*optfx.params"):
        tx.update(tree.map(torch.detach, grads), state, live)
    with pytest.raises(ValueError, match=r"apply_updates.*'bias' is an nn.Parameter"):
        optfx.apply_updates(live, grads)

    params = optfx.params(model)
    grads = tree.map(torch.ones_like, params)

    def tensors_alive():
        gc.collect()
        return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    counts = []
    for _ in range(6):
        updates, state = tx.update(grads, state, params)
        params = optfx.apply_updates(params, updates)
        assert all(x.grad_fn is None for x in tree.leaves((params, state)))
        counts.append(tensors_alive())
    assert len(set(counts[2:])) == 1

    with torch.no_grad():  # recording is off: live parameters are harmless
        updates, _ = tx.update(grads, tx.init(live), live)
    clones = {name: p.clone() for name, p in live.items()}  # on purpose: a graph through the update
    updates, _ = tx.update(grads, tx.init(clones), clones)
    assert updates["weight"].requires_grad


def test_stacked_parameters_grow_no_graph():
    """`torch.func.stack_module_state` gives leaves that require grad and are no `nn.Parameter`s."""
    stacked, _ = torch.func.stack_module_state([torch.nn.Linear(2, 1) for _ in range(3)])
    tx = optfx.adamw(0.1)

    def step(p):
        updates, state = tx.update(tree.ones_like(p), tx.init(p), p)
        return optfx.apply_updates(p, updates), state

    for update in (step, torch.func.vmap(step)):
        with pytest.raises(ValueError, match="'bias' is a leaf that requires grad"):
            update(stacked)
        with torch.no_grad():
            params, _ = update(stacked)
        assert not any(x.requires_grad for x in tree.leaves(params))
    through = torch.func.grad(lambda p: tree.sum(step(p)[0]))(tree.map(torch.Tensor.detach, stacked))
    assert tree.all_finite(through)


# ---- selectors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (select.path("*.bias"), ["l1.bias"]),
        (select.path("l?.weight"), ["l1.weight", "l2.weight"]),
        (select.path("l[1].*"), ["l1.bias", "l1.weight"]),
        (select.path("weight"), []),
        (select.ndim(min=2), ["l1.weight", "l2.weight"]),
        (select.ndim(max=0), ["s"]),
        (select.ndim(min=1, max=1), ["l1.bias"]),
        (select.size(min=4), ["l1.weight"]),
        (select.size(max=1), ["s"]),
        (select.ndim(min=2) & ~select.path("l2*"), ["l1.weight"]),
        (select.path("s") | select.path("*.bias"), ["l1.bias", "s"]),
        (select.leaf(lambda path, x: x.shape[:1] == (1,)), ["l2.weight"]),
    ],
)
def test_selectors(params, rule, expected):
    mask = rule(params)
    assert [p for p, keep in tree.to_dict(mask).items() if keep] == expected
    if not isinstance(rule, select.leaf):
        assert repr(eval(repr(rule), vars(select))) == repr(rule)


def test_labels(params):
    labels = select.label({"bias": select.path("*bias"), "matrix": select.ndim(min=2), "any": ~select.path("")})
    assert tree.to_dict(labels(params)) == {"l1.bias": "bias", "l1.weight": "matrix", "l2.weight": "matrix", "s": "any"}
    with pytest.raises(ValueError, match=r"no rule selects the leaf at 'l1.bias'"):
        select.label({"matrix": select.ndim(min=2)})(params)
    assert select.label({"m": select.ndim(min=2)}, default="rest")(params)["s"] == "rest"


MASKS = {
    "selector": select.ndim(min=2),
    "tree": {"l1": {"weight": True, "bias": False}, "l2": {"weight": True}, "s": False},
    "prefix": {"l1": {"weight": True, "bias": False}, "l2": True, "s": False},
    "function": lambda p: tree.map(lambda x: x.ndim >= 2, p),
    "function to prefix": lambda p: {"l1": {"weight": True, "bias": False}, "l2": True, "s": False},
}


@pytest.mark.parametrize("kind", MASKS)
def test_every_form_of_mask_in_eager_compiled_and_vmapped(params, kind, fresh_dynamo):
    tx = optfx.masked(optfx.scale(3.0), MASKS[kind])

    def run(params):
        return tx.update(params, tx.init(params), params)[0]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for out in (run(params), compiled(params)):
        assert {p: x.flatten()[0].item() for p, x in tree.to_dict(out).items()} == {
            "l1.bias": 1.0,
            "l1.weight": 3.0,
            "l2.weight": 3.0,
            "s": 1.0,
        }
    batch = tree.map(lambda x: torch.stack([x, 2 * x]), params)
    out = torch.func.vmap(run)(batch)
    assert out["l1"]["weight"][1, 0, 0] == 6.0
    assert out["s"].tolist() == [1.0, 2.0]


def test_masks_are_computed_from_params_and_need_them(params):
    tx = optfx.masked(optfx.scale(3.0), MASKS["selector"])
    with pytest.raises(ValueError, match="masked needs params, which its mask"):
        tx.update(params, tx.init(params))
    fixed = optfx.masked(optfx.scale(3.0), MASKS["tree"])
    assert fixed.update(params, fixed.init(params))[0]["l2"]["weight"][0, 0] == 3.0
    tx = optfx.partition({"a": optfx.sgd(1.0)}, select.label({}, default="a"))
    with pytest.raises(ValueError, match="partition needs params"):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ({"l1": True, "l2": True}, ValueError, "lacks 's'"),
        ({"l1": True, "l2": True, "s": True, "x": False}, ValueError, r"names \['x'\]"),
        ({"l1": {"weight": True}, "l2": True, "s": True}, ValueError, "nothing of 'l1.bias'"),
        ({"l1": True, "l2": True, "s": {"deep": True}}, ValueError, "goes deeper than the tree at 's'"),
        ({"l1": [True, True], "l2": True, "s": True}, ValueError, "a list at 'l1', the tree a dict"),
        ({"l1": True, "l2": True, "s": 1.0}, TypeError, "mask at 's' is 1.0, expected a bool"),
        (lambda p: "yes", TypeError, "expected a bool"),
        (["l1"], ValueError, "masked: the tree of masks: .* a list at the root.*; rules .* optfx.select"),
    ],
)
def test_bad_masks_name_the_path(params, mask, error, message):
    with pytest.raises(error, match=message):
        optfx.masked(optfx.scale(1.0), mask).init(params)


def test_a_rule_for_one_parameter_is_told_that_it_gets_all(params):
    with pytest.raises(AttributeError) as error:
        optfx.masked(optfx.scale(1.0), lambda p: p.ndim > 1).init(params)
    assert "masked: a mask that is a function is called once, with the whole tree" in error.value.__notes__[0]


# ---- hyperparameters -----------------------------------------------------------------------------


def test_hyperparams_are_those_of_the_next_step(params):
    rate = optfx.linear_schedule(1.0, 0.0, 10)
    tx = optfx.named_chain(
        ("clip", optfx.clip_by_global_norm(2.0)),
        (
            "groups",
            optfx.partition(
                {"a": optfx.sgd(rate), "b": optfx.masked(optfx.adam(0.3), True)},
                select.label({"a": select.ndim(min=2)}, default="b"),
            ),
        ),
    )
    state = tx.init(params)
    for step in range(3):
        now = optfx.hyperparams(tx, state)
        assert now["clip.max_norm"] == 2.0
        assert now["groups.b.0.b1"] == 0.9
        assert now["groups.b.1.learning_rate"] == 0.3
        assert float(now["groups.a.0.learning_rate"]) == pytest.approx(1 - step / 10, abs=1e-15)
        before = params["l2"]["weight"]
        updates, state = tx.update(params, state, params)
        norm = tree.norm(params).clamp(min=2.0)
        torch.testing.assert_close(updates["l2"]["weight"], -before * (1 - step / 10) * (2 / norm))


def test_injected_hyperparams_are_read_and_set(params):
    tx = optfx.inject_hyperparams(optfx.adamw(optfx.linear_schedule(0.1, 0.0, 10), b1=torch.tensor(0.8)))
    state = tx.init(params)
    now = optfx.hyperparams(tx, state)
    assert now["0.b1"].dtype == torch.float64
    assert now["0.b2"] == 0.999
    state = tree.set(state, {"0.b1": 0.5})
    assert optfx.hyperparams(tx, state)["0.b1"] == 0.5
    state = tree.set(state, init_value=0.7)
    assert float(optfx.hyperparams(tx, state)["2.learning_rate"]) == pytest.approx(0.7)


def test_in_axes_maps_a_partly_batched_optimizer(params):
    tx = optfx.adamw(torch.tensor([0.1, 0.2]), b1=torch.tensor(0.8), weight_decay=0.1)

    def step(tx, params):
        return tx.update(params, tx.init(params), params)[0]

    both = torch.func.vmap(step, in_dims=(optfx.sweep.in_axes(tx), None))(tx, params)
    for i, lr in enumerate((0.1, 0.2)):
        alone = step(optfx.adamw(torch.tensor(lr), b1=torch.tensor(0.8), weight_decay=0.1), params)
        torch.testing.assert_close(both["l1"]["weight"][i], alone["l1"]["weight"])


# ---- updates ---------------------------------------------------------------------------------------


def test_incremental_update_equals_optax():
    import numpy as np
    import optax

    new, old = {"w": torch.randn(3, dtype=torch.float64)}, {"w": torch.randn(3, dtype=torch.float64)}
    theirs = [{"w": np.asarray(t["w"])} for t in (new, old)]
    np.testing.assert_allclose(
        optfx.incremental_update(new, old, 0.3)["w"], optax.incremental_update(*theirs, 0.3)["w"], rtol=1e-14
    )
    np.testing.assert_allclose(
        optfx.incremental_update(new, old, torch.tensor(0.3, dtype=torch.float64))["w"],
        optax.incremental_update(*theirs, 0.3)["w"],
        rtol=1e-14,
    )


def test_half_precision_updates_are_rounded_once():
    p = {"w": torch.tensor([1.0, 256.0], dtype=torch.bfloat16)}
    out = optfx.apply_updates(p, {"w": torch.tensor([2.0**-8 * 1.01, 0.4])})
    assert out["w"].dtype == torch.bfloat16
    assert out["w"].tolist() == [1.0078125, 256.0]


def test_a_declared_argument_compiles(params, fresh_dynamo):
    tx = optfx.chain(optfx.masked(wants_value(), True), optfx.sgd(1.0))
    step = torch.compile(
        lambda g, s, t: tx.update(g, s, g, value=1.0, temperature=t)[0], fullgraph=True, backend="aot_eager"
    )
    assert step(params, tx.init(params), torch.tensor(2.0))["s"] == -2.0


def test_hyperparameters_of_a_module_without_postponed_annotations(params):
    space = {}
    exec(
        "import optfx\n"
        "@optfx.tree.record\n"
        "class mine(optfx.core.Stateless):\n"
        "    rate: optfx.core.Hyper = 0.5\n"
        "    other: optfx.core.Hyper | None = 0.25\n"
        "    flag: bool = True\n"
        "    def apply(self, updates, params, rate, other):\n"
        "        return updates\n",
        space,
    )
    tx = space["mine"]()
    assert optfx.hyperparams(tx, tx.init(params)) == {"rate": 0.5, "other": 0.25}
