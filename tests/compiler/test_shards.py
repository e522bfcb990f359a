"""Fused steps on sharded leaves: the numbers of one process, and one collective a stage."""

from __future__ import annotations

import math

import pytest
import torch

import optfx
from optfx import tree
from optfx.combinators.codecs import eight_bits, four_bits, fp8, half
from optfx.tree.sharded import is_sharded
from tests.compiler.harness import units
from tests.interop import ranks
from tests.interop.test_sharded import compare, draw, layouts, run, whole
from tests.registry import ROWS


def fused(tx, params, grads, extra=None):
    opt = optfx.fuse(tx)
    params, state = opt.init(params, **(extra or {}))
    for g in grads:
        params, state = opt.step(g, state, params, **(extra or {}))
    return (params, state), opt


OTHERWISE = {"flatten", "stored"}  # the first refuses sharded leaves, the second keeps blocks of each part


def every_row(rank, world):
    """Each row on one of the layouts."""
    ways = [*layouts(world)]
    plain = [draw(k) for k in range(4)]
    rows = [row for row in (ROWS if world == 2 else ROWS[:: world - 1]) if row.name not in OTHERWISE]
    for k, row in enumerate(rows):
        name, lay = ways[k % len(ways)]
        spread, *grads = [{k: lay(k, x) for k, x in t.items()} for t in plain]
        tx = row.make(**row.hypers)
        mine, _ = fused(tx, spread, grads, row.extra)
        compare(f"{row.id}, {name}", tx, mine, run(tx, plain[0], plain[1:], row.extra), spread)
    return len(rows)


@pytest.mark.parametrize("world", [2, 4])
def test_every_transform(world):
    (n, *others) = ranks.run(every_row, world)
    assert others == [n] * (world - 1)
    assert n > 50


# ---- what is the same, and how often processes wait for each other ---------------------------------------------------


def moved(u, m, decay):
    m = decay * m + u
    return m, m


def adjusted(u, p):
    """A number of each leaf."""
    return u * p.norm() / (1 + u.norm())


def extremes(u, p):
    return u / (1 + u.abs().amax() - p.amin()) + p.sign() * (u > 0).any() * (p < 9).all()


RECIPE = optfx.chain(
    optfx.clip_by_global_norm(0.1),
    optfx.adamw(optfx.cosine_decay_schedule(1e-2, 20), weight_decay=0.1, mask=optfx.select.ndim(min=2)),
    optfx.params_ema(0.9),
)
LEAFWISE = optfx.stateless(lambda updates, params: tree.leafwise(adjusted, updates, params))
EXTREMES = optfx.stateless(lambda updates, params: tree.leafwise(extremes, updates, params))
MEAN = optfx.stateless(lambda updates, params: tree.map(lambda u: u - u.mean(), updates))
ALONE = optfx.chain(optfx.trace(0.9), optfx.add_decayed_weights(0.1), optfx.ema(0.5, debias=False), optfx.scale(-0.1))
CHAINS = {  # how many stages wait for others, and whether a matrix has an event that is not cut into as many rows each
    "alone": (ALONE, 0, 0),
    "recipe": (RECIPE, 1, 0),
    "leafwise": (optfx.chain(optfx.clip_by_global_norm(0.1), LEAFWISE, optfx.adam(0.1)), 2, 0),
    "lamb": (optfx.lamb(0.1), 1, 0),
    "extremes and tests": (optfx.chain(EXTREMES, optfx.zero_nans(), optfx.sgd(0.1)), 2, 0),
    "mean": (optfx.chain(MEAN, optfx.sgd(0.1)), 1, 0),
    "whole leaves": (optfx.chain(optfx.clip_by_global_norm(0.1), optfx.centralize(), optfx.sgd(0.1)), 1, 1),
}
WAYS = {"everywhere": 0, "grid": 2, "two meshes": 3}  # collectives a stage; one on other layouts


def in_equal_rows(x):
    parts = math.prod(x.device_mesh.size(k) for k, p in enumerate(x.placements) if p.is_shard())
    return all(p.is_shard(0) or p.is_replicate() for p in x.placements) and len(x) % parts == 0


def facts(rank, world):
    from torch.distributed.tensor.debug import CommDebugMode

    far = {}
    for what, (tx, stages, events) in CHAINS.items():
        plain = [draw(k, torch.float32) for k in range(4)]
        expected = run(tx, plain[0], plain[1:])
        for name, lay in layouts(world):
            spread, *grads = [{k: lay(k, x) for k, x in t.items()} for t in plain]
            opt = optfx.fuse(tx)
            params, state = opt.init(spread)
            matrices = sum(is_sharded(x) and x.ndim > 1 and not in_equal_rows(x) for x in tree.leaves(spread))
            assert sum(len(stage.events) for stage in opt._plan.stages) == events * matrices, opt.explain()
            with CommDebugMode() as collectives:
                for g in grads:
                    params, state = opt.step(g, state, params)
            if not events * matrices:
                assert collectives.get_total_counts() == 3 * stages * WAYS.get(name, 1), (what, name)
            if what == "alone":
                mine, eager = tree.leaves((params, state)), tree.leaves(run(tx, spread, grads))
                assert all(map(torch.equal, map(whole, mine), map(whole, eager)))
            for x, y in zip(tree.leaves((params, state)), tree.leaves(expected), strict=True):
                torch.testing.assert_close(whole(x), y, rtol=1e-6, atol=1e-6, msg=f"{what}, {name}: {{}}".format)
            far[what, name] = [x.tolist() if x.ndim == 0 else None for x in tree.leaves(state)]
    return far


@pytest.mark.parametrize("world", [1, 2, 4])
def test_one_collective_a_stage(world):
    """And every process has the same numbers."""
    first, *others = ranks.run(facts, world)
    assert all(other == first for other in others)


# ---- how leaves may lie ----------------------------------------------------------------------------------------------


def unlike(rank, world):
    """Gradients and states that do not lie as the parameters do: as in eager code."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    line = init_device_mesh("cpu", (world,))
    lay = lambda x, placement: distribute_tensor(x, line, [placement], src_data_rank=None)
    x, g = torch.arange(6.0).reshape(3, 2), torch.ones(3, 2)
    for tx in (RECIPE, optfx.chain(optfx.centralize(), optfx.adam(0.1)), optfx.lamb(0.1)):
        (params, state), _ = fused(tx, {"w": x.clone()}, [{"w": g}] * 2)
        for where in (Shard(0), Shard(1), Replicate()):
            pending = DTensor.from_local(g / world, line, [Partial()])
            for grad in (pending, lay(g, Replicate()), lay(g, Shard(1))):
                (mine, its_state), _ = fused(tx, {"w": lay(x, where)}, [{"w": grad}] * 2)
                assert mine["w"].placements == (where,)
                assert tree.get(its_state, "mu")["w"].placements == (where,)
                for a, b in zip(tree.leaves((mine, its_state)), tree.leaves((params, state)), strict=True):
                    torch.testing.assert_close(whole(a), b, rtol=1e-6, atol=1e-6)
    summed, _ = fused(
        optfx.sgd(0.1), {"w": DTensor.from_local(x / world, line, [Partial()])}, [{"w": lay(g, Shard(0))}]
    )
    torch.testing.assert_close(whole(summed[0]["w"]), x - 0.1)

    tx, params = optfx.adam(0.1), {"w": lay(x, Shard(0)), "n": torch.ones(2)}
    grads = {"w": lay(g, Shard(0)), "n": torch.ones(2)}
    as_params = lambda placement: tx.init({"w": lay(x, placement), "n": params["n"]})
    opt = optfx.fuse(tx)
    mine, state = opt.init(params, as_params(Replicate()))
    assert tree.get(state, "mu")["w"].placements == (Shard(0),)  # it is spread as that of `tx.init`
    mine, state = opt.step(grads, state, mine)
    as_is = tree.map(torch.clone, mine["w"].to_local())
    twice, state = opt.step(grads, state, {"w": lay(x, Shard(1)), "n": mine["n"]})  # copied in
    assert twice["w"] is mine["w"]
    torch.testing.assert_close(whole(twice["w"]), x - 0.1)
    assert torch.equal(twice["w"].to_local(), as_is)

    with pytest.raises(TypeError, match="fuse: the gradient at 'w': a plain leaf where a sharded one was expected"):
        opt.step(grads | {"w": g}, state, mine)
    with pytest.raises(TypeError, match="fuse: the gradient at 'n': a sharded leaf where a plain one was expected"):
        opt.step(grads | {"n": lay(torch.ones(2), Replicate())}, state, mine)
    with pytest.raises(TypeError, match="fuse: params at 'w': a plain leaf where a sharded one was expected"):
        opt.step(grads, state, mine | {"w": x})
    with pytest.raises(
        TypeError, match=r"fuse: the state at '0\.mu\.w': a plain leaf where a sharded one was expected"
    ):
        opt.init(params, tx.init({"w": x, "n": params["n"]}))
    with pytest.raises(ValueError, match=r"the tree .* has the shape \(2, 3\) at 'w', expected \(3, 2\)"):
        opt.step(grads | {"w": lay(g.T.contiguous(), Shard(0))}, state, mine)
    with pytest.raises(TypeError, match="fuse: the parameter at 'w' is a DTensor, expected a plain tensor"):
        optfx.fuse(optfx.sgd(torch.ones(3)), members=3).init(params)
    with pytest.raises(ValueError, match=r"fuse: the parameter at 'w' is a pending sum \(Partial\)"):
        opt.init({"w": DTensor.from_local(x, line, [Partial()])}, copy=False)
    other = init_device_mesh("cpu", (world, 1))
    elsewhere = distribute_tensor(g, other, [Shard(0), Replicate()], src_data_rank=None)
    with pytest.raises(TypeError, match=r"fuse: the gradient at 'w': a leaf on the mesh .* where one on .*"):
        opt.step(grads | {"w": elsewhere}, state, mine)
    return True


def test_what_lies_otherwise():
    assert ranks.run(unlike, 2) == [True, True]


def seen(rank, world):
    """User's code on whole leaves, values that are read, a given gradient, and what `explain` says of it."""
    _, lay = next(layouts(world))
    plain = [draw(k) for k in range(3)]
    spread, *grads = [{k: lay(k, x) for k, x in t.items()} for t in plain]
    half = optfx.stateless(lambda u, p: u if float(tree.norm(u)) < 1e-9 else tree.scale(0.5, u))
    flip = optfx.stateless(lambda u, p: tree.map(lambda x: x - x.flip(0), u))
    rows = optfx.stateless(lambda u, p: tree.map(lambda x: x - x.mean(0, keepdim=True), u))
    noise = optfx.add_noise(0.1, 0.5, key=3)
    drawn = optfx.stateless(lambda u, p: tree.add(u, optfx.random.random_like(optfx.random.key(3), u)))
    for tx in (half, flip, rows, noise, drawn):
        tx = optfx.chain(tx, optfx.adam(0.1))
        mine, _ = fused(tx, spread, grads)
        compare(str(tx), tx, mine, run(tx, plain[0], plain[1:]), spread)
    opt = optfx.fuse(CHAINS["whole leaves"][0])
    opt.init(spread)
    return opt.explain()


SAID = """5 leaves, 5 of them sharded, 3 stages
stage 0
    norm [C++]: bias, vector
    norm [C++]: kernel, w
    norm [C++]: square
    3 numbers of each of 2 processes, in 1 collective
stage 1
    mul [C++]: kernel, w
    mul > row mean [C++]: square
    center, as it is, for it sees whole leaves: 2 times
stage 2
    mul > mul > add [C++]: bias, vector
    mul > add [C++]: kernel, w
    mul > sub > mul > add [C++]: square"""


def test_what_is_said():
    assert ranks.run(seen, 2) == [SAID] * 2


# ---- rows of parts ---------------------------------------------------------------------------------------------------


def divided(u, p):
    """By numbers of rows, with and without their dimension, and by one of the leaf."""
    rows = u.square().sum(-1, keepdim=True).sqrt()
    return u / (1 + rows + u.norm()) + p * rows * (u.amax(-1, keepdim=True) > 0) / (1 + rows.norm())


def summed(u, p):
    """A number that is made of numbers of rows."""
    return u * (u.mean(-1).square().sum() + 1)


ON_ROWS = {  # how many stages wait for others
    "centralize": (optfx.chain(optfx.centralize(), optfx.adam(0.1)), 0),
    "centralize, and a norm": (optfx.chain(optfx.centralize(), optfx.clip_by_global_norm(0.1), optfx.sgd(0.1)), 1),
    "numbers of rows": (optfx.stateless(lambda u, p: tree.leafwise(divided, u, p)), 2),
    "a number of those": (optfx.stateless(lambda u, p: tree.leafwise(summed, u, p)), 1),
    "rows that do not fit blocks": (
        optfx.stored(optfx.chain(optfx.centralize(), optfx.clip_by_global_norm(1.0), optfx.trace(0.9)), eight_bits()),
        1,
    ),
}


def on_rows(rank, world):
    from torch.distributed.tensor.debug import CommDebugMode

    draws = [torch.Generator().manual_seed(k) for k in range(3)]
    shapes = {"w": (256, 48), "square": (8, 4), "kernel": (16, 3, 2)}
    plain = [{k: torch.randn(n, generator=g) for k, n in shapes.items()} for g in draws]
    for what, (tx, stages) in ON_ROWS.items():
        for name, lay in layouts(world):
            spread, *grads = [{k: lay(k, x) for k, x in t.items()} for t in plain]
            expected, _ = run(tx, spread, grads)
            opt = optfx.fuse(tx)
            params, state = opt.init(spread)
            with CommDebugMode() as collectives:
                for g in grads:
                    params, state = opt.step(g, state, params)
            if all(not is_sharded(x) or in_equal_rows(x) for x in tree.leaves(spread)):
                assert "as it is" not in opt.explain(), (what, name, opt.explain())
                assert collectives.get_total_counts() == 2 * stages * WAYS.get(name, 1), (what, name)
            for x, y in zip(tree.leaves(params), tree.leaves(expected), strict=True):
                torch.testing.assert_close(whole(x), whole(y), rtol=1e-5, atol=1e-5, msg=f"{what}, {name}: {{}}".format)
    return True


@pytest.mark.parametrize("world", [1, 2, 4])
def test_rows_of_parts(world):
    """Where every process has as many rows, each of them whole, no leaf is gathered for what is done with rows."""
    assert ranks.run(on_rows, world) == [True] * world


# ---- states in fewer bits --------------------------------------------------------------------------------------------

CODECS = {
    "eight bits": {"mu": eight_bits(), "nu": eight_bits(signed=False)},
    "floats": {"mu": half(), "nu": fp8()},
    "four bits": {"mu": four_bits(), "nu": eight_bits(signed=False)},
}


def in_bytes(rank, world):
    """Each process makes the codes of its own rows, in its kernels: those that one process makes."""
    draws = [torch.Generator().manual_seed(k) for k in range(3)]
    plain = [{k: torch.randn(64 if k == "w" else 65, 256, generator=g) for k in ("w", "uneven")} for g in draws]
    for what, codec in CODECS.items():
        tx = optfx.stored(optfx.adamw(0.1), codec)
        expected, _ = fused(tx, plain[0], plain[1:])
        for name, lay in layouts(world):
            spread, *grads = [{k: lay(k, x) for k, x in t.items()} for t in plain]
            mine, opt = fused(tx, spread, grads)
            assert "as it is" not in opt.explain(), (what, name, opt.explain())
            if name not in ("rows", "everywhere", "some plain"):
                torch.testing.assert_close(whole(mine[0]["w"]), expected[0]["w"], rtol=0.1, atol=0.05)
                continue
            for field in ("mu", "nu"):
                for part, of_plain in zip(mine[1], expected[1], strict=True):
                    got, want = (getattr(x[0], field)["w"] for x in (part, of_plain))
                    assert isinstance(want, tree.Hole) or torch.equal(whole(got), want), (what, name, field)
            assert torch.equal(whole(mine[0]["w"]), expected[0]["w"]), (what, name)
    return True


@pytest.mark.parametrize("world", [2, 4])
def test_states_in_fewer_bits(world):
    assert ranks.run(in_bytes, world) == [True] * world


# ---- rarer -----------------------------------------------------------------------------------------------------------


def backwards(x):
    """No kernel does this to many leaves as one."""
    return x.flip(0).sum()


def rarely(rank, world):
    from torch.distributed.tensor import Replicate, distribute_tensor

    from optfx.compiler.kernels import triton, workshop

    plain = [draw(k) for k in range(3)]
    _, lay = next(layouts(world))
    spread, *grads = [{k: lay(k, x) for k, x in t.items()} for t in plain]
    line = spread["w"].device_mesh

    total = optfx.stateless(lambda u, p: tree.scale(tree.reduce(backwards, torch.sum, u, empty=0.0), u))
    tx = optfx.chain(total, optfx.adam(0.1))
    compare("backwards", tx, fused(tx, spread, grads)[0], run(tx, plain[0], plain[1:]), spread)

    numbers = [{"w": t["w"], "n": t["bias"].reshape(())} for t in plain]
    on_line = lambda x: lay("w", x) if x.ndim else distribute_tensor(x, line, [Replicate()], src_data_rank=None)
    params, *some = [tree.map(on_line, t) for t in numbers]
    mine, _ = fused(RECIPE, params, some)  # a leaf () is whole on every process, and counts once
    assert type(mine[0]["n"]) is type(params["n"])
    for x, y in zip(tree.leaves(mine), tree.leaves(run(RECIPE, numbers[0], numbers[1:])), strict=True):
        torch.testing.assert_close(whole(x), y, rtol=1e-9, atol=1e-12)

    tx, before, calls = optfx.chain(optfx.clip_by_global_norm(0.1), optfx.sgd(0.1)), workshop.writer_for, {}
    for writer in (None, triton):  # Inductor, and the interpreter of Triton
        try:
            workshop.writer_for = lambda device, writer=writer: writer
            mine, opt = fused(tx, spread, grads)
        finally:
            workshop.writer_for = before
        compare(opt.explain(), tx, mine, run(tx, plain[0], plain[1:]), spread)
        (exchange,) = opt._plan.stages[0].exchanges
        calls["Inductor" if writer is None else "Triton"] = exchange.numbers, [u.calls for u in units(opt)]
    return calls


def test_what_is_rare():
    """The second process has no part of a leaf of one element, and still gives a number for it."""
    pytest.importorskip("triton")
    first, second = ranks.run(rarely, 2)
    assert first == {"Inductor": (5, [5, 5]), "Triton": (1, [1, 1])}
    assert second == {"Inductor": (5, [4, 4]), "Triton": (1, [1, 1])}
