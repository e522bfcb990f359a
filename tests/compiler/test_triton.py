"""Kernels in Triton, run on the CPU by its interpreter: the numbers of eager code, for all that is fused."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import optfx
from optfx.combinators.codecs import four_bits
from optfx.tree.nibbles import UINT4
from tests.compiler import test_nibbles as nibbles
from tests.compiler import test_operations as operations
from tests.compiler import test_rows as rows
from tests.compiler.harness import distance, eager, events, fused, outputs, params, shorter, units
from tests.harness import parts

pytest.importorskip("triton")
from optfx.compiler.kernels import triton as writer
from optfx.compiler.kernels import workshop
from optfx.compiler.kernels.triton import build, loop, scalar

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, which interprets: 1 / 0 and log 0
BLOCKS = 2500  # elements, which take three blocks
KERNELS = ("run", "finish", "numbers")


@pytest.fixture(autouse=True)
def by_triton(monkeypatch):
    """Whatever is written in C++ is written in Triton."""
    monkeypatch.setattr(workshop, "writer_for", lambda device: writer)


@parts
def test_every_part_in_float64_is_eager(row):
    short = row.name == "stored"  # whose blocks are interpreted one by one
    tx, p = row.make(**row.hypers), shorter(params(torch.float64), 60 if short else BLOCKS)
    (q, state), opt = fused(tx, p, steps=2, **row.extra)
    limit = 1e-5 if "bf16" in row.id or "float32" in row.id else 1e-12
    if any("basis" in path for path in optfx.tree.paths(state)):
        limit = 1e-10  # where eigenvalues are close, a bit of the matrix moves its eigenvectors further
    assert distance((q, state), eager(tx, p, steps=2, **row.extra)) < limit
    assert all(unit.kernel.by == "Triton" for unit in units(opt))


@pytest.mark.parametrize("codec", [four_bits(block=18, least=2), nibbles.Sixteenths()], ids=["blocks", "no scales"])
def test_numbers_of_four_bits(codec):
    """With scales, and without: leaves that end within a block of 1024."""
    p = {"w": torch.randn(3, 720), "v": torch.randn(1062), "two": torch.randn(9, 2)}
    expected, found, opt = nibbles.steps(optfx.stored(optfx.trace(0.5), codec), p, 2, scale=0.5)
    nibbles.assert_equal(expected, found)
    assert not events(opt)
    assert any(UINT4 in unit.work.program.dtypes for unit in units(opt))
    assert all(unit.kernel.by == "Triton" for unit in units(opt))


@pytest.mark.parametrize("name", ["means of both", "the largest norm", "extremes", "any", "an outer product"])
def test_rows_and_columns(name):
    opt = rows.same(rows.of_leaves(rows.ROWS[name]), [*rows.SHAPES, (70, 40), (3, 50, 2)])
    assert all(unit.kernel.by == "Triton" and unit.calls == 1 for unit in units(opt))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("table", [operations.EXACT, operations.CLOSE], ids=["exact in C++", "close"])
def test_operations(table, dtype):
    """To rounding: compilers for GPUs make one operation of a product and a sum."""
    x, y = operations.pairs(dtype)
    f = lambda x, y, *rest, w: operations.all_of_them(table, x, y, w)
    found, eager = outputs(f, list(table), {"p": x}, {"p": y}, w=torch.tensor(0.25, dtype=torch.float64))
    for name in table:
        got, want = found[name]["p"], eager[name]["p"]
        # a float64 raised to another is found in float64
        limit = 1e-13 if name.startswith("pow") and dtype == torch.float64 else 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(
            got, want, rtol=limit, atol=0, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", ["adam", "adagrad", "adamax", "yogi", "adabelief", "clipped"])
def test_complex_leaves_are_pairs(name, dtype):
    clipped = optfx.chain(optfx.clip_by_global_norm(0.5), optfx.sgd(0.1, momentum=0.9))
    tx = clipped if name == "clipped" else getattr(optfx, name)(0.1)
    p = shorter(params(dtype), BLOCKS)
    (q, state), opt = fused(tx, p, steps=2)
    assert distance((q, state), eager(tx, p, steps=2)) < (1e-5 if dtype == torch.complex64 else 1e-12)
    assert all(unit.kernel.by == "Triton" for unit in units(opt))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "clipped, scheduled"])
def test_other_dtypes_have_the_numbers_of_cpp(name, dtype, monkeypatch):
    tx = {
        "adamw": optfx.adamw(0.1),
        "lamb": optfx.lamb(0.1),
        "lion": optfx.lion(0.01),
        "clipped, scheduled": optfx.chain(
            optfx.clip_by_global_norm(0.5), optfx.adamw(optfx.cosine_decay_schedule(0.1, 9))
        ),
    }[name]
    p = shorter(params(dtype), BLOCKS)
    mine = fused(tx, p)[0]
    monkeypatch.undo()
    assert distance(mine, fused(tx, p)[0]) < {torch.float32: 1e-6}.get(dtype, torch.finfo(dtype).eps)


def test_every_member_has_numbers_of_its_own():
    txs = optfx.lamb(torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64))
    p = {"w": torch.randn(3, 40, 30), "b": torch.randn(3, 5), "s": torch.randn(3)}
    g = optfx.tree.map(torch.sin, p)
    opt = optfx.fuse(txs, members=3)
    q, state = opt.init(p)
    for _ in range(3):
        q, state = opt.step(g, state, q)
    for j, rate in enumerate((0.1, 0.2, 0.05)):
        alone, tx = {k: x[j] for k, x in p.items()}, optfx.lamb(rate)
        s = tx.init(alone)
        for _ in range(3):
            updates, s = tx.update({k: x[j] for k, x in g.items()}, s, alone)
            alone = optfx.apply_updates(alone, updates)
        for k, x in alone.items():
            torch.testing.assert_close(q[k][j], x, rtol=1e-5, atol=1e-6)


def test_gradients_may_lie_elsewhere_in_each_step_and_params_may_move():
    tx, p = optfx.adamw(0.1), {"w": torch.randn(50), "b": torch.randn(())}
    opt = optfx.fuse(tx)
    q, state = opt.init(p)
    expected, s = p, tx.init(p)
    for k in range(3):
        g = {"w": torch.sin(p["w"] * k)[torch.arange(50)], "b": torch.cos(p["b"] * k)}
        updates, s = tx.update(g, s, expected)
        expected = optfx.apply_updates(expected, updates)
        q, state = opt.step(g, state, {k: x.clone() for k, x in q.items()})
    assert all(torch.allclose(q[k], x) for k, x in expected.items())


class _Launches:
    """In the place of a kernel: only counts."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def __getitem__(self, grid):
        return lambda *args: self.log.append((self.name, grid))


class _Nothing(TorchDispatchMode):
    """Torch is not asked for anything: nothing is allocated, copied or waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} in a step")


@pytest.mark.parametrize(
    "tx",
    [
        optfx.adamw(0.1),
        optfx.lamb(optfx.cosine_decay_schedule(0.1, 9)),
        optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(torch.tensor(0.1)), optfx.params_ema(0.9)),
    ],
    ids=["adamw", "lamb", "clipped, averaged"],
)
def test_a_step_is_launches_and_nothing_else(tx, monkeypatch):
    """So it can be captured as a graph, and the host is never waited for, nor waits."""
    log = []
    monkeypatch.setattr(build, "module", lambda source: SimpleNamespace(**{k: _Launches(k, log) for k in KERNELS}))
    for file in (loop, scalar):
        monkeypatch.setattr(file, "module", build.module)
    p = {"w": torch.randn(40, 60), "b": torch.randn(6)}
    g, opt = {k: torch.ones_like(x) for k, x in p.items()}, optfx.fuse(tx)
    q, state = opt.init(p)
    for _ in range(2):
        opt.step(g, state, q)
    log.clear()
    with _Nothing():
        opt.step(g, state, q)
    assert {"run", "numbers"} <= {name for name, _ in log}
    assert len(log) <= 3 * len(opt._plan.stages)  # numbers, blocks, what they give


def test_a_compiler_for_gpus_takes_the_kernels():
    here = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-m", "tests.compiler.ptx"], env=here, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[0]) > 20
