"""Kernels by Inductor: the way of accelerators, and on the CPU that of operations which are not written in C++."""

import os

import pytest
import torch

import optfx
from optfx import select, tree
from optfx.compiler import fused
from optfx.compiler.kernels import inductor
from tests.compiler.harness import distance, eager, grads, params, units
from tests.compiler.harness import fused as run_fused


def test_a_recipe_with_packed_leaves(no_cpp, monkeypatch):
    monkeypatch.setattr(fused, "SMALL", 1000)
    tx = optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.scale_by_adam(),
        optfx.masked(optfx.add_decayed_weights(0.1), select.ndim(min=2)),
        optfx.scale_by_learning_rate(optfx.cosine_decay_schedule(0.1, 10)),
    )
    got, opt = run_fused(tx, params())
    assert distance(got, eager(tx, params())) < 1e-6
    assert {unit.kernel.by for unit in units(opt)} == {"Inductor, for anything is not written in C++"}
    assert sorted(unit.calls for unit in units(opt)) == [1, 1, 2, 2]
    q, state = got
    small = [x for x in tree.leaves(q) if 0 < x.numel() < 1000 and x.ndim < 2]
    assert len({x.untyped_storage().data_ptr() for x in small}) == 1  # they lie in one buffer
    before = [x.data_ptr() for x in tree.leaves((q, state))]
    q, state = opt.step(grads(9, torch.bfloat16), state, q)  # read anew, and left where it lies
    assert [x.data_ptr() for x in tree.leaves((q, state))] == before


def test_a_number_from_outside_is_packed_when_it_is_there(no_cpp):
    """Scalar work of the same stage gives it; and it changes between two steps."""
    p = {"s": torch.tensor(0.5), "v": torch.ones(2), "w": torch.ones(2, 3)}
    outside = {k: torch.full_like(x, 0.8) for k, x in p.items()}
    tx = optfx.stateless(lambda u, p: tree.elementwise(blend, outside, p, u, outs=2, beta=0.25)[0])
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    for k in range(2):
        for x in outside.values():
            x.fill_(0.3 + k)
        updates, _ = tx.update(p, (), dict(q))
        expected = optfx.apply_updates(q, updates)
        q, state = opt.step(p, state, q)
        assert distance(q, expected) < 1e-6


def blend(u, p, q, beta):
    return u + beta * (q - p), p


def test_rotations(no_cpp):
    """Inductor 2.13 compiles `prev.copy_(p); p.copy_(n)` wrongly; see `fresh`."""

    def update(updates, state, params=None):
        a, _, count = state
        updates, _ = tree.elementwise(blend, updates, params, a, outs=2, beta=0.3)
        return updates, (params, a, count + 1)

    tx = optfx.core.from_functions(lambda p: (tree.scale(2.0, p), tree.scale(3.0, p), optfx.core.counter(p)), update)
    assert distance(run_fused(tx, params())[0], eager(tx, params())) < 1e-6


def rooted(x, weight):
    return weight * torch.lgamma(x)


def test_an_operation_that_is_not_written_in_cpp():
    def update(updates, state, params=None):
        size = tree.norm(updates)
        return tree.elementwise(rooted, updates, weight=size), tree.add(state, updates)

    tx = optfx.chain(optfx.core.from_functions(tree.zeros_like, update), optfx.centralize(), optfx.sgd(0.1))
    got, opt = run_fused(tx, params())
    assert distance(got, eager(tx, params())) < 1e-4
    assert any("lgamma" in unit.kernel.by for unit in units(opt))
    assert "Inductor, for aten." in opt.explain()


def test_numbers_written_in_the_code_of_a_step(no_cpp):
    tx = optfx.stateless(lambda u, p: tree.scale(torch.tensor(0.5) * torch.tensor(3.0), u))
    for p in (params(), {"w": torch.ones(3)}):
        q, state = (opt := optfx.fuse(tx)).init(p)
        q, state = opt.step(p, state, q)
        assert distance(q, tree.scale(2.5, p)) < 1e-6


def test_inductor_skips_its_probes_until_the_guess_was_wrong():
    from torch._inductor import config
    from torch._inductor.exc import CppCompileError

    seen = []

    def compile():
        seen.append((config.cpp.vec_isa_ok, os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        if len(seen) == 1:
            raise RuntimeError("lowering failed") from CppCompileError(["g++"], "no such instruction")
        return "done"

    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    assert inductor.as_guest(compile) == "done"
    assert [ok for ok, _ in seen] == [True, None]
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == before

    def wrong():
        seen.append(None)
        raise ValueError("the user's own")

    with pytest.raises(ValueError, match="the user's own"):
        inductor.as_guest(wrong)
    assert len(seen) == 3
