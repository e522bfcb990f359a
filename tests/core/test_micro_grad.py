"""`micro_grad`: the same as all at once."""

import pytest
import torch

import optfx
from optfx import tree
from tests.harness import assert_close

P = {"w": torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
X = torch.randn(10, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = {"y": torch.randn(10, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)}


def loss(params, x, target, power=2.0):
    return ((x @ params["w"] - target["y"]).abs() ** power).mean()


@pytest.mark.parametrize("chunks", [1, 3, 10])
def test_it_is_the_gradient_of_the_mean(chunks):
    expected = torch.func.grad_and_value(loss)(P, X, Y, power=3.0)
    assert_close(optfx.micro_grad(loss, chunks, batch_argnums=(1, 2))(P, X, Y, power=3.0), expected, 1e-12)


def test_other_arguments():
    f = optfx.micro_grad(loss, 2, argnums=(0, 1), batch_argnums=(1, 2))
    with pytest.raises(ValueError, match=r"first dimensions \[4, 10\]"):
        f(P, X[:4], Y)
    with pytest.raises(ValueError, match="11 chunks of a batch of 10"):
        optfx.micro_grad(loss, 11, batch_argnums=(1, 2))(P, X, Y)
    with pytest.raises(ValueError, match="0 chunks, expected at least 1"):
        optfx.micro_grad(loss, 0)


def test_compiled_and_vmapped(fresh_dynamo):
    f = optfx.micro_grad(loss, 3, batch_argnums=(1, 2))
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    assert_close(compiled(P, X, Y), f(P, X, Y), 1e-12)
    many = tree.map(lambda x: torch.stack([x, 2 * x]), P)
    gradients, values = torch.func.vmap(f, in_dims=(0, None, None))(many, X, Y)
    assert_close((tree.map(lambda x: x[1], gradients), values[1]), f(tree.scale(2.0, P), X, Y), 1e-12)


def test_half_precision_is_rounded_once():
    p, x = {"w": torch.zeros((), dtype=torch.bfloat16)}, torch.tensor([256.0, 1.0, 1.0, 1.0]).to(torch.bfloat16)
    f = optfx.micro_grad(lambda p, x: (p["w"] * x).mean(), 4)
    gradient, value = f(p, x)
    assert gradient["w"].dtype == value.dtype == torch.bfloat16
    assert gradient["w"] == torch.tensor(259 / 4).to(torch.bfloat16)


def test_only_a_chunk_is_alive():
    """As many rows as there are in a chunk are seen at a time."""
    seen = []

    def f(p, x):
        seen.append(x.shape[0])
        return (p["w"][0, 0] * x).mean()

    optfx.micro_grad(f, 4)(P, X)
    assert seen == [2, 3, 2, 3]
