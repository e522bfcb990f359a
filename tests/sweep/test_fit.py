"""Many settings at once are each of them alone."""

import math
import sys

import pytest
import torch
from torch.func import functional_call, grad_and_value

import optfx
from optfx import select, sweep
from optfx.tree import leaves, map

STEPS = 12
CONFIGS = {
    "rate": torch.tensor([0.003, 0.01, 0.03, 0.1, 0.2, 0.05, 0.02], dtype=torch.float64),
    "b1": torch.tensor([0.8, 0.85, 0.9, 0.95, 0.5, 0.0, 0.7], dtype=torch.float64),
    "decay": torch.tensor([0.0, 0.1, 0.2, 0.3, 0.0, 0.5, 1.0], dtype=torch.float64),
}
N = 7


def make_optimizer(config):
    return optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.scale_by_adam(b1=config["b1"]),
        optfx.masked(optfx.add_decayed_weights(config["decay"]), select.ndim(min=2)),
        optfx.scale_by_learning_rate(optfx.warmup_cosine_decay_schedule(0.0, config["rate"], 3, STEPS)),
    )


@pytest.fixture
def task():
    """A small regression in float64: the loss, where it starts, three batches."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    x = torch.randn(30, 3, dtype=torch.float64)
    y = x.prod(1, keepdim=True)

    def loss_fn(params, batch):
        return (functional_call(model, params, batch[0]) - batch[1]).square().mean()

    start = map(torch.clone, optfx.params(model))
    return loss_fn, start, [(x[:10], y[:10]), (x[10:20], y[10:20]), (x[20:], y[20:])]


def alone(config, loss_fn, params, batches, steps=STEPS):
    """One setting in a plain loop, its numbers floats."""
    tx = make_optimizer({name: x.item() for name, x in config.items()})
    state, curve = tx.init(params), []
    for t in range(steps):
        grads, loss = grad_and_value(loss_fn)(params, batches[t % len(batches)])
        updates, state = tx.update(grads, state, params)
        params = optfx.apply_updates(params, updates)
        curve.append(loss)
    return params, torch.stack(curve)


def one(i):
    return {name: x[i] for name, x in CONFIGS.items()}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


@pytest.mark.parametrize("compile", [False, "aot_eager"])
def test_fit_is_separate_runs(task, compile):
    loss_fn, start, batches = task
    before = map(torch.clone, start)
    result = sweep.fit(make_optimizer, CONFIGS, loss_fn, start, batches, steps=STEPS, compile=compile)
    assert same(start, before)
    assert result.losses.shape == (STEPS, N)
    assert len(result) == N
    for i in range(N):
        params, curve = alone(one(i), loss_fn, start, batches)
        torch.testing.assert_close(result.losses[:, i], curve, rtol=1e-11, atol=1e-12)
        for name in start:
            torch.testing.assert_close(result.params[name][i], params[name], rtol=1e-10, atol=1e-11)
    assert not result.diverged.any()


def test_fit_equals_torch_optim(task):
    loss_fn, start, batches = task
    rates = torch.tensor([0.01, 0.03], dtype=torch.float64)
    result = sweep.fit(
        lambda c: optfx.adamw(c["rate"], weight_decay=0.1), {"rate": rates}, loss_fn, start, batches, steps=9,
        compile=False,
    )  # fmt: skip
    for i, rate in enumerate(rates.tolist()):
        params = {name: p.clone().requires_grad_() for name, p in start.items()}
        optimizer = torch.optim.AdamW(params.values(), lr=rate, weight_decay=0.1)
        for t in range(9):
            optimizer.zero_grad()
            loss_fn(params, batches[t % 3]).backward()
            optimizer.step()
        for name in start:
            torch.testing.assert_close(result.params[name][i], params[name].detach(), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("chunk_size", "used"), [(7, 7), (6, 4), (3, 3), (2, 2), (1, 1), (100, 7)])
def test_chunks_change_nothing(task, chunk_size, used):
    """7 members in chunks of 4, 3 or 2: the last is filled up, and what fills it is dropped."""
    loss_fn, start, batches = task
    seen = []

    def batch_at(step):
        seen.append(step)
        return batches[step % 3]

    def run(size):
        return sweep.fit(
            make_optimizer, CONFIGS, loss_fn, start, batch_at, steps=STEPS, compile=False, chunk_size=size,
            evaluate=lambda p: {"loss": loss_fn(p, batches[0])},
        )  # fmt: skip

    whole = run(None)
    seen.clear()
    parts = run(chunk_size)
    assert whole.chunk_size == N
    assert parts.chunk_size == used
    assert seen == list(range(STEPS)) * math.ceil(N / used)
    torch.testing.assert_close(parts.losses, whole.losses, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(parts.params, whole.params, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(parts.metrics, whole.metrics, rtol=1e-11, atol=1e-12)
    assert same(parts.configs, CONFIGS)


def test_one_graph_for_all_chunks_and_steps(task, fresh_dynamo):
    loss_fn, start, batches = task
    result = sweep.fit(make_optimizer, CONFIGS, loss_fn, start, batches, steps=STEPS, compile="aot_eager", chunk_size=3)
    assert result.chunk_size == 3
    assert fresh_dynamo["stats"]["unique_graphs"] == 1


def test_many_sweeps_in_one_process_compile_each(fresh_dynamo):
    """Dynamo gives up on a function that was compiled eight times; every sweep counts for itself."""
    for k in range(9):
        result = sweep.fit(
            lambda c: optfx.scale_by_learning_rate(c["rate"]), {"rate": torch.tensor([0.1, 0.2])},
            lambda w, batch, k=k: k * (w - batch).square(), torch.zeros(()), [torch.ones(())], steps=2, compile="eager",
        )  # fmt: skip
        assert result.losses[0].tolist() == [k, k]
    assert fresh_dynamo["stats"]["unique_graphs"] == 9


def test_a_member_that_diverges_is_marked_and_disturbs_nobody(task):
    loss_fn, start, batches = task
    rates = torch.tensor([0.01, 1e200, 0.1, float("nan")], dtype=torch.float64)

    def run(rates):
        return sweep.fit(
            lambda c: optfx.sgd(c["rate"]), {"rate": rates}, loss_fn, start, batches, steps=STEPS, compile=False,
            evaluate=lambda p: {"loss": loss_fn(p, batches[0]), "always_finite_error": torch.zeros(())},
        )  # fmt: skip

    mixed, healthy = run(rates), run(rates[[0, 2]])
    assert mixed.diverged.tolist() == [False, True, False, True]
    assert torch.equal(mixed.losses[:, [0, 2]], healthy.losses)
    assert same(map(lambda x: x[[0, 2]], mixed.params), healthy.params)
    assert sorted(mixed.ranking("always_finite_error")) == [0, 2]
    assert mixed.best().index in (0, 2)
    gone = run(rates[[1, 3]])
    with pytest.raises(ValueError, match="every one diverged"):
        gone.best()


def test_a_last_update_that_is_not_finite_is_divergence(task):
    """The loss is taken before the update, so the last one does not show it."""
    loss_fn, start, batches = task
    result = sweep.fit(
        lambda c: optfx.sgd(c["rate"]), {"rate": torch.tensor([0.1, float("inf")])}, loss_fn, start, batches, steps=1,
        compile=False,
    )  # fmt: skip
    assert result.losses.isfinite().all()
    assert result.diverged.tolist() == [False, True]


def test_a_step_that_was_skipped_is_no_divergence(task):
    loss_fn, start, batches = task
    bad = (torch.full_like(batches[0][0], float("nan")), batches[0][1])
    result = sweep.fit(
        lambda c: optfx.apply_if_finite(optfx.sgd(c["rate"]), 5), {"rate": torch.tensor([0.1, 0.2])}, loss_fn, start,
        [batches[0], bad, batches[1]], steps=3, compile=False,
    )  # fmt: skip
    assert result.losses[1].isnan().all()
    assert not result.diverged.any()


def test_init_is_a_function_of_a_key(task):
    loss_fn, start, batches = task

    def init(key):
        keys = optfx.random.split(key, len(start))
        return {
            name: optfx.random.normal(k, x.shape, x.dtype) for k, (name, x) in zip(keys, start.items(), strict=True)
        }

    def run(seed, **options):
        return sweep.fit(make_optimizer, CONFIGS, loss_fn, init, batches, steps=2, compile=False, seed=seed, **options)

    result, chunked, other = run(3), run(3, chunk_size=2), run(4)
    keys = optfx.random.split(optfx.random.key(3), N)
    for i in range(N):
        torch.testing.assert_close(result.losses[0, i], loss_fn(init(keys[i]), batches[0]))
    torch.testing.assert_close(chunked.losses, result.losses)
    assert len(set(result.losses[0].tolist())) == N
    assert not torch.isclose(other.losses[0], result.losses[0]).any()


def test_init_is_a_stack(task):
    loss_fn, start, batches = task
    many = map(lambda x: torch.stack([x * (1 + i) for i in range(N)]), start)
    before = map(torch.clone, many)
    result = sweep.fit(
        make_optimizer, CONFIGS, loss_fn, sweep.stacked(many), batches, steps=3, compile=False, chunk_size=3
    )
    assert same(many, before)
    for i in range(N):
        _, curve = alone(one(i), loss_fn, map(lambda x, i=i: x[i], many), batches, steps=3)
        torch.testing.assert_close(result.losses[:, i], curve)


def test_a_tree_that_can_be_called_is_a_tree(task):
    @optfx.tree.record
    class line:
        slope: torch.Tensor

        def __call__(self, x):
            return self.slope * x

    x = torch.linspace(0, 1, 5)
    result = sweep.fit(
        lambda c: optfx.sgd(c["rate"]), {"rate": torch.tensor([0.1, 0.2])},
        lambda f, batch: (f(batch) - 3 * batch).square().mean(), line(torch.zeros(())), [x], steps=40, compile=False,
    )  # fmt: skip
    assert isinstance(result.params, line)
    assert result.params.slope.shape == (2,)
    assert (result.losses[-1] < result.losses[0]).all()


def test_parameters_of_a_module_are_not_written_to(task):
    """nn.Parameters as they are, and a loss that closes over others that require grad."""
    model = torch.nn.Linear(3, 1)
    other = torch.nn.Linear(1, 1)
    before = model.weight.detach().clone()
    x = torch.randn(8, 3)

    def loss_fn(params, batch):
        return other(functional_call(model, params, batch)).square().mean()

    result = sweep.fit(
        lambda c: optfx.adam(c["rate"]), {"rate": torch.tensor([0.1, 0.2])}, loss_fn, dict(model.named_parameters()),
        [x], steps=5, compile=False,
    )  # fmt: skip
    assert torch.equal(model.weight, before)
    assert not any(x.requires_grad for x in [*leaves(result.params), result.losses])


def test_states_that_share_memory_are_told_apart(task, fresh_dynamo):
    """An init that returns one tensor twice, and params themselves: the donated step writes to neither twice."""
    loss_fn, start, batches = task

    def init(params):
        zero = torch.zeros(())
        return {"a": zero, "b": zero, "first": params}

    def update(updates, state, params=None):
        state = {"a": state["a"] + 1, "b": state["b"] + 2, "first": state["first"]}
        return map(lambda g: -0.1 * state["a"] * g, updates), state

    def run(compile):
        tx = lambda c: optfx.chain(optfx.core.from_functions(init, update), optfx.scale(c["rate"]))
        configs = {"rate": CONFIGS["rate"]}
        return sweep.fit(tx, configs, loss_fn, start, batches, steps=5, compile=compile, chunk_size=4)

    torch.testing.assert_close(run("aot_eager").params, run(False).params)


def test_the_loss_reaches_the_transforms(task):
    loss_fn, start, batches = task

    def update(updates, state, params=None, *, value, grad):
        return map(lambda g, first: -value * (g + first), updates, grad), state

    result = sweep.fit(
        lambda c: optfx.chain(optfx.scale(c["rate"]), optfx.core.from_functions(lambda p: (), update)),
        {"rate": torch.tensor([0.5], dtype=torch.float64)}, loss_fn, start, batches, steps=1, compile=False,
    )  # fmt: skip
    grads, loss = grad_and_value(loss_fn)(start, batches[0])
    for name in start:
        torch.testing.assert_close(result.params[name][0], start[name] - 1.5 * loss * grads[name])


def test_an_optimizer_may_ignore_its_setting(task):
    loss_fn, start, batches = task
    result = sweep.fit(
        lambda c: optfx.sgd(0.1),
        {"scale": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        lambda params, batch, config: config["scale"] * loss_fn(params, batch),
        start,
        batches,
        steps=2,
        compile=False,
    )
    assert torch.equal(2 * result.losses[0, 0], result.losses[0, 1])


def test_integer_settings(task):
    loss_fn, start, batches = task
    result = sweep.fit(
        lambda c: optfx.sgd(optfx.linear_schedule(0.1, 0.0, c["length"])), {"length": torch.tensor([2, 4])}, loss_fn,
        start, batches, steps=6, compile=False,
    )  # fmt: skip
    assert result.best().config["length"] in (2, 4)
    for i, length in enumerate((2, 4)):
        tx = optfx.sgd(optfx.linear_schedule(0.1, 0.0, length))
        params, state = start, tx.init(start)
        for t in range(6):
            updates, state = tx.update(torch.func.grad(loss_fn)(params, batches[t % 3]), state, params)
            params = optfx.apply_updates(params, updates)
        torch.testing.assert_close(map(lambda x, i=i: x[i], result.params), params)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("progress", [False, True])
def test_progress_is_shown_only_on_a_terminal(task, capsys, monkeypatch, terminal, progress):
    loss_fn, start, batches = task
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: terminal, raising=False)
    sweep.fit(make_optimizer, CONFIGS, loss_fn, start, batches, steps=3, compile=False, progress=progress, chunk_size=4)
    shown = capsys.readouterr()
    assert shown.out == ""
    if terminal and progress:
        assert "6/6" in shown.err
        assert "steps/s x 4 members, best loss" in shown.err
    else:
        assert shown.err == ""


def test_progress_names_the_extra(task, monkeypatch):
    loss_fn, start, batches = task
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True, raising=False)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r'pip install "optfx\[sweep\]"'):
        sweep.fit(make_optimizer, CONFIGS, loss_fn, start, batches, steps=1, compile=False)


ONE = {"rate": torch.tensor([0.1, 0.2])}
OTHER = torch.nn.Linear(2, 1)
BAD = {
    "unequal lengths": ({"configs": {"a": torch.zeros(2), "b": torch.zeros(3)}}, ValueError, r"'b': \(3,\)"),
    "not one dimension": ({"configs": {"a": torch.zeros(2, 2)}}, ValueError, r"configs: .*\(2, 2\)"),
    "no numbers": ({"configs": {"a": None}}, TypeError, "configs: 'a' is NoneType"),
    "no numbers in a list": ({"configs": {"a": ["fast", 1]}}, ValueError, "configs: 'a': expected numbers or words"),
    "a name not read": ({"configs": {"rate": [0.1], "decay": 0.1}}, ValueError, "no function reads 'decay', so"),
    "a word not read": ({"configs": {"rate": [0.1], "kind": "a"}}, ValueError, "no function reads 'kind'"),
    "seeds for nothing": ({"configs": {"rate": [0.1, 0.1], "seed": [0, 1]}}, ValueError, "no function reads 'seed'"),
    "structure": ({"structure": ["width"]}, ValueError, "structure: 'width' is no name of configs"),
    "another metric": ({"metric": "loss"}, ValueError, "evaluate gives no 'loss'; it gives nothing"),
    "no rungs": ({"policy": sweep.halve(2)}, ValueError, "a policy acts at rungs, or every so many steps"),
    "rungs beyond": ({"rungs": [5]}, ValueError, r"rungs up to them.* rungs=\[5\]"),
    "fractions of steps": ({"steps": 1e3}, TypeError, r"steps, rungs and every are whole numbers, got 1000\.0"),
    "bools": ({"configs": {"a": torch.tensor([True])}}, TypeError, "configs: 'a' is torch.bool"),
    "a way": ({"mode": "up"}, ValueError, "mode is 'min' or 'max', got 'up'"),
    "no names": ({"configs": {}}, ValueError, "configs: no hyperparameters"),
    "no settings": ({"configs": {"a": torch.zeros(0)}}, ValueError, "configs: no settings"),
    "loss of a batch": ({"loss_fn": lambda p, b: b[1][:, 0]}, ValueError, r"loss_fn returned \(10,\)"),
    "loss is a float": ({"loss_fn": lambda p, b: 0.5}, ValueError, "loss_fn returned float"),
    "loss is an integer": ({"loss_fn": lambda p, b: torch.tensor(1)}, ValueError, "loss_fn returned .*int64"),
    "loss without params": ({"loss_fn": lambda p, b: b[1].square().mean()}, ValueError, "does not depend on"),
    "loss of other params": (
        {"loss_fn": lambda p, b: OTHER.weight.square().sum()}, ValueError, r"call the model with them, .*functional",
    ),
    "a list of settings": ({"configs": [{"rate": 0.1}]}, TypeError, "configs: expected {name: numbers}.* got a list"),
    "no transform": ({"make_optimizer": lambda c: c["rate"]}, TypeError, "make_optimizer: expected a transform"),
    "no name": ({"make_optimizer": lambda c: optfx.adam(c["lr"])}, KeyError, "reads 'lr'; configs has 'rate'"),
    "no batches": ({"batches": []}, ValueError, "batches: there are none"),
    "a batch as batches": (
        {"batches": (torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64))}, ValueError, r"batches: .* \[\(x, y\)\]",
    ),
    "none in a batch of a key": (
        {"batches": lambda step, key: (torch.zeros(8, 3), None)}, TypeError, "batches: '1' is NoneType; .* tensors",
    ),
    "an iterator": ({"batches": iter([1])}, TypeError, "batches: expected a sequence"),
    "no steps": ({"steps": 0}, ValueError, "at least 1"),
    "no chunk": ({"chunk_size": 0}, ValueError, "at least 1"),
    "no parameters": ({"init": {}}, ValueError, "init: there are no parameters"),
    "integer parameters": ({"init": {"w": torch.zeros(2, dtype=torch.int64)}}, TypeError, "init: 'w' is torch.int64"),
    "numbers as parameters": ({"init": {"w": 1.0}}, TypeError, "init: 'w' is float"),
    "none as a parameter": (
        {"init": {"layer": {"w": torch.zeros(2), "bias": None}}}, TypeError, "init: 'layer.bias' is NoneType, expected",
    ),
    "none in a stack": ({"init": sweep.stacked([torch.zeros(2), None])}, TypeError, "init: '1' is None"),
    "none of a key": ({"init": lambda key: {"w": torch.zeros(2), "bias": None}}, TypeError, "init: 'bias' is None"),
    "numbers of a key": ({"init": lambda key: {"w": 1.0}}, TypeError, "init: 'w' is float, expected a floating"),
    "a module": ({"init": torch.nn.Linear(1, 1)}, TypeError, r"init: a module .* optfx.params\(module\)"),
    "another number of members": (
        {"init": sweep.stacked({"w": torch.zeros(3, 2)})}, ValueError, "stacked for 3 members, and configs has 2",
    ),
    "no metrics": ({"evaluate": lambda p: torch.zeros(())}, TypeError, "evaluate returned a Tensor"),
    "metrics of a batch": ({"evaluate": lambda p: {"acc": torch.zeros(3)}}, ValueError, r"metric 'acc' is \(3,\)"),
    "metrics are numbers": ({"evaluate": lambda p: {"acc": 0.5}}, ValueError, "metric 'acc' is float"),
    "a metric's name": ({"evaluate": lambda p: {"rate": torch.zeros(())}}, ValueError, "no metric .* 'rate'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_before_anything_compiles(task, case, fresh_dynamo):
    loss_fn, start, batches = task
    changes, kind, words = BAD[case]
    arguments = {
        "make_optimizer": lambda c: optfx.adam(c["rate"]), "configs": ONE, "loss_fn": loss_fn, "init": start,
        "batches": batches, "steps": 2,
    }  # fmt: skip
    with pytest.raises(kind, match=words):
        sweep.fit(**{**arguments, **changes})
    assert not fresh_dynamo["stats"]


def test_members_are_evaluated_with_the_parameters_that_the_optimizer_says():
    def make_optimizer(config):
        return optfx.chain(optfx.sgd(config["rate"]), optfx.params_ema(0.5))

    def loss_fn(params, batch):
        return (params["w"] * batch).sum()

    result = sweep.fit(
        make_optimizer,
        {"rate": torch.tensor([1.0, 2.0])},
        loss_fn,
        {"w": torch.zeros(1)},
        [torch.ones(1)],
        steps=2,
        evaluate=lambda params: {"w": params["w"].sum()},
        mode="min",
        compile=False,
        progress=False,
    )
    # w goes 0, -1, -2 times the rate; its mean 0, -1/2, -5/4
    assert result.metrics["w"].tolist() == [-1.25, -2.5]
    assert result.params["w"].flatten().tolist() == [-1.25, -2.5]


def test_batches_that_differ_from_chunk_to_chunk():
    """Members of other chunks would see other data."""
    calls = iter(range(100))
    fit = lambda batches: sweep.fit(
        lambda config: optfx.sgd(config["rate"]),
        {"rate": torch.full((6,), 0.1)},
        lambda p, b: (p["w"] * b).sum(),
        {"w": torch.ones(3)},
        batches,
        steps=4,
        chunk_size=3,
        progress=False,
    )
    with pytest.warns(UserWarning, match="batches gave another batch for one step to each chunk"):
        fit(lambda step: torch.full((3,), float(next(calls))))
    assert len({*fit(lambda step: torch.full((3,), float(step))).losses[-1].tolist()}) == 1
