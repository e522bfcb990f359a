"""What the library is for: many optimizers at once, eager and compiled, and derivatives with respect to them."""

import pytest
import torch
from torch.func import functional_call, grad, grad_and_value, hessian, vmap

import optfx
from optfx import core, tree

N = 64


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    x[:, 3] = 0  # an input that is always zero: some gradients are
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    params = tree.map(torch.clone, optfx.params(model))

    def loss(p):
        return (functional_call(model, p, (x.to(p["0.bias"].dtype),)) - y.to(p["0.bias"].dtype)).square().mean()

    return params, loss


def stepper(loss):
    def step(tx, params, state):
        grads, value = grad_and_value(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return optfx.apply_updates(params, updates), state, value

    return step


def sweep():
    return optfx.adamw(torch.logspace(-4, -1, N), weight_decay=torch.linspace(0, 0.1, N))


@pytest.mark.parametrize("backend", [None, "aot_eager", "inductor"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_sixty_four_optimizers_in_one_equal_sixty_four_runs(problem, backend, dtype, fresh_dynamo):
    if backend == "inductor" and dtype == torch.bfloat16:
        dtype = torch.float32
    params, loss = problem
    params, step = tree.cast(params, dtype), stepper(loss)
    alone = []
    for lr, wd in zip(torch.logspace(-4, -1, N), torch.linspace(0, 0.1, N), strict=True):
        tx, p = optfx.adamw(lr, weight_decay=wd), params
        state = tx.init(p)
        for _ in range(5):
            p, state, _ = step(tx, p, state)
        alone.append(p)
    alone = tree.map(lambda *xs: torch.stack(xs), *alone)

    many = tree.map(lambda x: torch.stack([x] * N), params)
    txs = sweep()
    state = tree.map(torch.Tensor.contiguous, vmap(lambda tx, p: tx.init(p))(txs, many))
    run = optfx.donate(vmap(step), argnums=(1, 2)) if backend == "inductor" else vmap(step)
    run = run if backend is None else torch.compile(run, fullgraph=True, backend=backend)
    for _ in range(5):
        many, state, _ = run(txs, many, state)
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 5e-2}[dtype]
    for k in many:
        torch.testing.assert_close(many[k], alone[k], rtol=tolerance, atol=tolerance)
    if backend is not None:
        assert fresh_dynamo["stats"]["unique_graphs"] == 1


def test_derivatives_of_a_training_run_with_respect_to_the_optimizer(problem):
    params, loss = problem
    params, step = tree.cast(params, torch.float64), stepper(loss)

    def outcome(tx):
        p, state = params, tx.init(params)
        for _ in range(5):
            p, state, _ = step(tx, p, state)
        return loss(p)

    def scalar(v):
        return torch.tensor(v, dtype=torch.float64)

    tx = optfx.adamw(scalar(1e-2), b1=scalar(0.9), b2=scalar(0.99), eps=scalar(1e-8), weight_decay=scalar(0.1))
    g = grad(outcome)(tx)
    assert isinstance(g, optfx.chain)
    assert len(tree.leaves(g)) == 5
    assert all(torch.isfinite(x) for x in tree.leaves(g))
    h = hessian(outcome)(tx)
    assert len(tree.leaves(h)) == 25
    assert all(torch.isfinite(x) for x in tree.leaves(h))

    # against finite differences
    for name, value, delta in (("learning_rate", 1e-2, 1e-6), ("b1", 0.9, 1e-6), ("weight_decay", 0.1, 1e-6)):

        def at(x, name=name):
            return core.with_numbers(tx, {p: scalar(x) for p in core.numbers(tx) if p.endswith(f".{name}")})

        numeric = (outcome(at(value + delta)) - outcome(at(value - delta))) / (2 * delta)
        exact = next(getattr(s, name) for s in g.steps if hasattr(s, name))
        torch.testing.assert_close(exact, numeric, rtol=1e-5, atol=1e-9)


def test_a_step_compiles_once_for_all_float_tensors_and_a_fresh_optimizer(problem, fresh_dynamo):
    params, loss = problem
    step = torch.compile(stepper(loss), fullgraph=True, backend="aot_eager")
    state = optfx.adamw(1e-3).init(params)
    for lr in (1e-3, 2e-3, 3e-3):
        params, state, _ = step(optfx.adamw(torch.tensor(lr)), params, state)
    assert fresh_dynamo["stats"]["unique_graphs"] == 1
