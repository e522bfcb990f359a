"""Numbers of rows, columns and blocks, and leaves that are broadcast: in kernels, with the numbers of eager code."""

import pytest
import torch
from torch.nn import functional

import optfx
from optfx import tree
from optfx.compiler.record.spaces import cut, masked, refined
from tests.compiler.harness import distance, events, units

LIMITS = {torch.float64: 1e-12, torch.float32: 3e-6}
SHAPES = [(6, 4), (1, 5), (5, 1), (3, 4, 2), (2, 1, 3, 2), (0, 3), (3, 0), (1, 1)]
ROWS = {
    "sum": lambda x: x - 0.1 * x.sum(-1, keepdim=True),
    "mean": lambda x: x - x.mean(0),
    "means of both": lambda x: x - x.mean(0, keepdim=True) * x.mean(-1, keepdim=True),
    "a norm": lambda x: x / (1 + torch.linalg.vector_norm(x, dim=-1, keepdim=True)),
    "norms of other orders": lambda x: x / (1 + x.norm(1, 0) + torch.linalg.vector_norm(x, 1, 0)),
    "the largest norm": lambda x: x / (1 + torch.linalg.vector_norm(x, float("inf"), dim=0)) if x.numel() else x,
    "extremes": lambda x: (x - x.amin(0)) / (x.amax(-1, keepdim=True) + 9) if x.numel() else x,
    "any": lambda x: torch.where((x > 1).any(-1, keepdim=True), x, -x),
    "all": lambda x: x * (x > -1).all(0),
    "shares": lambda x: x * (x > 0).to(x.dtype).mean(0),
    "unsqueezed": lambda x: x * (1 + x.sum(-1).abs()).rsqrt().unsqueeze(-1),
    "of all but the first": lambda x: x - x.mean(tuple(range(1, x.ndim)), keepdim=True),
    "a mean of means": lambda x: x / (2 + x.square().mean(-1, keepdim=True).mean(0, keepdim=True)),
    "a number beside": lambda x: x / (x.norm() + 1) - x.mean(0),
    "one after the other": lambda x: (y := x - x.mean(-1, keepdim=True)) / (1 + y.square().mean(0)).sqrt(),
    "expanded": lambda x: x - x.mean(0, keepdim=True).expand_as(x).abs(),
    "the sum of what is expanded": lambda x: x - 0.01 * x.mean(0, keepdim=True).expand(x.shape).sum(-1, keepdim=True),
    "normalized": lambda x: functional.normalize(x, dim=-1),
    "an outer product": lambda x: x + (1 + (x.sum(-1, keepdim=True) * x.sum(0)).square()).rsqrt(),
}


def draw(shape, dtype, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def same(tx, shapes, dtype=torch.float64, steps=2, limit=None):
    """Take steps in eager code and fused, and compare all numbers."""
    p = {f"{k}": draw(shape, dtype, k) for k, shape in enumerate(shapes)}
    opt, last, s = optfx.fuse(tx), p, tx.init(p)
    q, state = opt.init(p)
    for step in range(steps):
        g = {k: draw(x.shape, dtype, 100 + step) for k, x in p.items()}
        updates, s = tx.update(g, s, last)
        last = optfx.apply_updates(last, updates)
        q, state = opt.step(g, state, q)
    assert distance((q, state), (last, s)) < (limit or LIMITS[dtype])
    return opt


def of_leaves(f):
    return optfx.stateless(lambda updates, params: tree.map(f, updates))


@pytest.mark.parametrize("f", ROWS.values(), ids=ROWS)
def test_rows_are_fused(f):
    opt = same(of_leaves(f), SHAPES)
    assert not events(opt)
    assert all(unit.kernel.by == "C++" and unit.calls == 1 for unit in units(opt))


@pytest.mark.parametrize("name", ["means of both", "a norm", "extremes", "all", "one after the other"])
def test_in_single_precision(name):
    assert not events(same(of_leaves(ROWS[name]), SHAPES, torch.float32))


@pytest.mark.parametrize("f", [ROWS["one after the other"], ROWS["means of both"]], ids=["rows", "rows and columns"])
def test_leafwise_functions_in_half_precision(f):
    tx = optfx.stateless(lambda updates, params: tree.leafwise(f, updates))
    for dtype in (torch.bfloat16, torch.float16):
        opt = same(tx, SHAPES, dtype, limit=2 * torch.finfo(dtype).eps)
        assert not events(opt)


def test_rows_of_complex_leaves_run_as_they_are():
    tx = optfx.chain(optfx.centralize(), optfx.sgd(0.1, momentum=0.9))
    p = {"w": torch.randn(3, 4, dtype=torch.complex128), "v": torch.randn(3, 4, dtype=torch.float64)}
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    q, state = opt.step(p, state, q)
    updates, expected = tx.update(p, tx.init(p), p)
    assert distance((q, state), (optfx.apply_updates(p, updates), expected)) < 1e-12
    assert len(events(opt)) == 1


def in_blocks(x, n=4):
    blocks = x.reshape(-1, n)
    return (blocks / blocks.abs().amax(-1, keepdim=True)).reshape(x.shape)


def test_blocks():
    assert not events(same(of_leaves(in_blocks), [(6, 4), (8,), (2, 8), (3, 2, 2)]))


def test_blocks_that_cut_rows():
    """Rows of 6 and blocks of 4 are no dimensions of one loop: it goes over copies."""
    every = lambda x: in_blocks(x) - x.mean(-1, keepdim=True)
    for f in (every, lambda x: every(in_blocks(every(x))), lambda x: in_blocks(x - x.mean(0)) - x.mean(-1, True)):
        opt = same(optfx.chain(of_leaves(f), optfx.sgd(0.1, momentum=0.9)), [(4, 6), (2, 4)])
        assert not events(opt)


def test_a_leaf_that_is_written_and_broadcast():
    """Who reads a row sees what it was before the step, wherever it is written."""

    def update(updates, state, params):
        new = {k: state[k] + updates[k].mean(0) for k in state}
        return {k: u - state[k] for k, u in updates.items()}, new

    tx = optfx.core.from_functions(lambda params: {k: p[0] * 0.5 for k, p in params.items()}, update)
    assert not events(same(tx, [(4, 3), (5, 7), (300, 200)]))
    p = {"row": draw((4,), torch.float64, 1), "w": draw((3, 4), torch.float64, 2)}
    tx = optfx.stateless(lambda u, p: {"row": u["row"] + u["w"].sum(0), "w": u["w"] * p["row"] + p["w"]})
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    expected = optfx.apply_updates(p, tx.update(p, (), p)[0])
    assert distance(opt.step(p, state, q)[0], expected) < 1e-12
    assert not events(opt)


@pytest.mark.parametrize("shape", [(700, 300), (3, 40000), (40000, 3), (50, 60, 70)])
def test_sums_do_not_depend_on_threads_and_are_as_good_as_torch(shape):
    f = lambda x: x - x.mean(0, keepdim=True) - x.sum(-1, keepdim=True)
    p, found = {"w": draw(shape, torch.float32, 0)}, []
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            opt = optfx.fuse(of_leaves(f))
            q, state = opt.init(p)
            found.append(opt.step(p, state, q)[0]["w"].clone())
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(x, found[0]) for x in found)
    exact = p["w"].double() + f(p["w"].double())
    theirs = p["w"] + f(p["w"])
    far = lambda x: float((x - exact).abs().max())
    assert far(found[0]) <= 1.1 * far(theirs)


@pytest.mark.parametrize("tx", [optfx.came(0.1), optfx.sm3(0.1), optfx.chain(optfx.adaptive_grad_clip(0.1))], ids=str)
def test_every_member_has_rows_of_its_own(tx):
    p = {"w": torch.randn(3, 40, 30), "c": torch.randn(3, 4, 2, 3), "b": torch.randn(3, 5)}
    g = tree.map(torch.sin, p)
    opt = optfx.fuse(tx, members=3)
    q, state = opt.init(p)
    for _ in range(3):
        q, state = opt.step(g, state, q)
    for j in range(3):
        last, one = {k: x[j] for k, x in p.items()}, {k: x[j] for k, x in g.items()}
        s = tx.init(last)
        for _ in range(3):
            updates, s = tx.update(one, s, last)
            last = optfx.apply_updates(last, updates)
        assert distance(tree.map(lambda x, j=j: x[j], q), last) < 3e-6
    assert not events(opt)


def test_two_largest_dimensions_of_a_kernel():
    """They are apart in memory, or beside each other in another order."""
    tx = optfx.scale_by_factored_rms(min_dim_size_to_factor=2)
    assert not events(same(tx, [(5, 2, 7), (2, 7, 5), (7, 5, 2), (3, 2, 2, 9), (8, 8, 3, 3)], steps=3))


def test_other_memory_in_each_step():
    tx, p = optfx.came(0.1), {"w": draw((30, 20), torch.float64, 0)}
    opt, last, s = optfx.fuse(tx), p, tx.init(p)
    q, state = opt.init(p)
    for step in range(3):
        g = {"w": draw((20, 30), torch.float64, step).T}
        updates, s = tx.update(g, s, last)
        last = optfx.apply_updates(last, updates)
        q, state = opt.step(g, tree.map(torch.clone, state), tree.map(torch.clone, q))
    assert distance((q, state), (last, s)) < 1e-12


def rooted(x):
    return torch.lgamma(x.abs() + 1)


def test_by_inductor(no_cpp):
    rows = of_leaves(lambda x: x / (1 + x.abs().mean(-1, keepdim=True)) - x.amax(0))
    opt = same(rows, [(6, 4), (3, 5, 2), (9, 7), (4, 4), (3, 3, 3), (2, 50, 2)], torch.float32)
    assert not events(opt)
    assert {unit.kernel.by for unit in units(opt)} == {"Inductor, for anything is not written in C++"}


def test_by_vmap_what_is_not_written_in_cpp():
    def step(updates, params):
        updates = tree.elementwise(rooted, updates)
        return tree.map(lambda x: x - x.mean(-1, keepdim=True), updates)

    tx, p = optfx.stateless(step), {"w": torch.randn(2, 4, 3), "v": torch.randn(2, 5, 6)}
    opt = optfx.fuse(tx, members=2)
    q, state = opt.init(p)
    q, state = opt.step(p, state, q)
    for j in range(2):
        one = {k: x[j] for k, x in p.items()}
        expected = optfx.apply_updates(one, tx.update(one, tx.init(one), one)[0])
        assert distance({k: x[j] for k, x in q.items()}, expected) < 1e-6
    assert any("vmap" in unit.kernel.by for unit in units(opt))


def test_what_is_elementwise_alone_may_not_look_along_rows():
    """An elementwise function that does is shown whole leaves, also in the loop of another that may."""
    for f in (ROWS["means of both"], lambda x: x.cumsum(0)):
        tx = optfx.stateless(lambda u, p, f=f: tree.map(ROWS["mean"], tree.elementwise(f, u)))
        same(tx, SHAPES)


def test_dimensions_in_common():
    assert refined((6, 4), ()) == (6, 4)
    assert refined((6, 4), (3, 8)) == (3, 2, 4)
    assert refined((6, 4), (4, 6)) is None
    assert refined((0, 4), (0, 4)) == (0, 4)
    assert cut((2, 3, 1, 4), (2, 3, 1, 1), (1, 1, 4)) == ((6, 4), [(True, False), (False, True)])
    assert masked((True, False), (6, 4), (3, 2, 4)) == (True, True, False)


SHORT_ROWS = {name: ROWS[name] for name in ("a norm", "unsqueezed", "normalized")} | {
    "twice": lambda x: (y := x - x.mean(-1, keepdim=True)) / (1 + y.square().mean(-1, keepdim=True)).sqrt(),
    "extremes": lambda x: (x - x.amin(-1, keepdim=True)) / (x.abs().amax(-1, keepdim=True) + 9),
    "of bools": lambda x: torch.where((x > 1).any(-1, keepdim=True), x, x * (x > 0).to(x.dtype).sum(-1, keepdim=True)),
    "of what is computed with care": lambda x: (y := (x.abs() + 1).log() / x.exp()) * y.mean(-1, keepdim=True),
}


@pytest.mark.parametrize("f", SHORT_ROWS.values(), ids=SHORT_ROWS)
@pytest.mark.parametrize("shape", [(70, 33), (3, 4, 200), (40, 1024)], ids=str)
def test_short_rows_are_used_where_they_are_made(f, shape):
    opt = same(of_leaves(f), [shape], torch.float32)
    assert not events(opt)
    assert any(uses_rows(unit.work.program) for unit in units(opt))


def test_long_rows_and_columns_are_gone_over_again():
    for f, shape in [(ROWS["a norm"], (3, 1025)), (ROWS["mean"], (40, 30)), (ROWS["an outer product"], (40, 30))]:
        opt = same(of_leaves(f), [shape])
        assert not any(uses_rows(unit.work.program) for unit in units(opt))


def uses_rows(program):
    """Whether it takes numbers of rows that it has made."""
    made = {store.value for store in program.rows}
    return any(value in made for call in program.calls for value in call.args)


def test_what_others_read_is_written_when_they_have_read_it():
    """The bias is moved by a row of the weights as they were, in a later stage than that of the weights' own norms."""

    def update(updates, state, params):
        w, b = params["w"], params["b"]
        rows = updates["w"] / (1 + torch.linalg.vector_norm(updates["w"], dim=-1, keepdim=True))
        return {"w": -rows, "b": -updates["b"] * w.abs().amax() * (1 + b.norm())}, state

    tx, g = optfx.core.from_functions(lambda params: (), update), torch.Generator().manual_seed(0)
    p = {"w": torch.randn(6, 4, generator=g), "b": torch.randn(4, generator=g)}
    opt, s = optfx.fuse(tx), tx.init(p)
    q, state = opt.init(p)
    for _ in range(3):
        grads = {k: torch.randn(x.shape, generator=g) for k, x in p.items()}
        updates, s = tx.update(grads, s, p)
        p = optfx.apply_updates(p, updates)
        q, state = opt.step(grads, state, q)
    assert distance(q, p) < LIMITS[torch.float32]
