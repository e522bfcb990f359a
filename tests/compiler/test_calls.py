"""Steps as calls of C functions in a row: the same bits as steps that Python takes part in."""

import pytest
import torch
from torch.func import vmap

import optfx
from optfx import tree
from optfx.compiler.captured import capture
from optfx.compiler.kernels.cpp.aten import copy, product
from optfx.compiler.kernels.cpp.calls import Calls, Copy, Moving

N = 3
NOTHING = torch.empty(1, 0, dtype=torch.int64)  # no address that moves
RATES = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_products_of_torch(dtype):
    a, b = torch.randn(4, 5, 3).to(dtype), torch.randn(4, 7, 5).to(dtype)
    out, wide = torch.empty(4, 7, 3, dtype=dtype), torch.empty(4, 7, 3, dtype=torch.float64)
    Calls([product(out, b, a), copy(wide, out)], 0).run(NOTHING)
    assert torch.equal(out, torch.bmm(b, a))
    assert torch.equal(wide, out.double())
    transposed = torch.empty(4, 3, 7, dtype=dtype)
    Calls([product(transposed, a.mT, b.mT)], 0).run(NOTHING)
    assert torch.equal(transposed, torch.bmm(a.mT, b.mT))


def test_addresses_that_move():
    given, noted, place = [torch.full((2,), float(k)) for k in range(3)], torch.zeros(3, 2), torch.zeros(2)
    copies = [Copy(place.data_ptr(), Moving(0), 8), Copy(Moving(1), place.data_ptr(), 8)]
    Calls(copies, 2).run(torch.tensor([[x.data_ptr(), row.data_ptr()] for x, row in zip(given, noted, strict=True)]))
    assert torch.equal(noted, torch.stack(given))


def begin(tx):
    opt = optfx.fuse(tx, members=N)
    params, state = opt.init({"w": torch.randn(N, 4, 2, generator=torch.Generator().manual_seed(0))})
    return opt, params, state, {"w": torch.linspace(-1, 1, N * 8).view(N, 4, 2).contiguous()}


def test_a_step_of_an_optimizer():
    for tx in (
        optfx.chain(optfx.clip_by_global_norm(RATES), optfx.adamw(RATES)),
        optfx.chain(optfx.sgd(RATES), optfx.reduce_on_plateau(patience=0)),  # which takes the losses
    ):
        (one, p, s, g), (other, q, t, _) = begin(tx), begin(tx)
        value = torch.tensor([3.0, 1.0, 2.0])
        calls = Calls(other.calls(g, value=value, grad=g), 0)
        for _ in range(4):
            p, s = one.step(g, s, p, value=value, grad=g)
        calls.run(NOTHING.expand(4, 0))
        assert all(map(torch.equal, tree.leaves((p, s)), tree.leaves((q, t))))


def test_a_step_that_python_takes_part_in():
    sees_all = optfx.stateless(lambda u, p: tree.map(lambda x: x.flip(0), u))
    opt, _, _, g = begin(optfx.chain(sees_all, optfx.sgd(RATES)))
    assert opt.calls(g) is None
    opt, _, _, g = begin(optfx.sgd(RATES))
    assert opt.calls({"w": g["w"].mT}) is None


def test_a_captured_program():
    f = lambda w, x: (x @ w).tanh().sum((1, 2))
    w, x = torch.randn(N, 4, 2), torch.randn(N, 5, 4)
    program = capture(f, w, x)
    program.finish()
    bound = program.bind()
    calls, (out,) = bound.calls(w, x), bound.outputs
    for _ in range(2):
        w.mul_(0.5)
        Calls(calls, 0).run(NOTHING)
        expected = program.bind()(w, x)
        assert torch.equal(out, expected)


def test_an_index_that_is_out_of_bounds():
    f = vmap(lambda x, i: torch.log_softmax(x, -1).gather(1, i[:, None]).sum(), in_dims=(0, None))
    x, i = torch.randn(N, 4, 3), torch.tensor([0, 1, 2, 0])
    program = capture(f, x, i)
    program.finish()
    calls = Calls(program.bind().calls(x, i), 0)
    calls.run(NOTHING)
    i[1] = 7
    with pytest.raises(IndexError, match="out of bounds"):
        calls.run(NOTHING)
