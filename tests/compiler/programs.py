"""Programs that users might write: transforms as source code, drawn by Hypothesis and run in every way."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import torch
from hypothesis import strategies as st
from torch.func import vmap

import optfx
from optfx import core, tree
from optfx.compiler.kernels import cpp, mapped
from optfx.compiler.kernels.binding import Bound, seen

STEPS = 3
os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which is later


@dataclasses.dataclass
class Program:
    """A program, and what it does beside computing."""

    source: str
    reads: bool  # whether it branches on values, or is not for vmap otherwise
    changes: bool  # whether what lies outside changes between steps

    def __repr__(self) -> str:
        return f"\n{self.source}"


HEAD = """
def t(*shape, dtype=torch.float64):
    g = torch.Generator().manual_seed(7 + sum(shape) + 3 * len(shape))
    return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)

Pair = NamedTuple("Pair", [("left", Any), ("right", Any)])

def blend(x, p, a):
    return a * x + (1 - a) * torch.tanh(p)

def across(x, a):
    return x / (a + x.abs().sum())

def closed(x):
    return x * K + 0.1
"""

TREES = [
    "{'a': t(3), 'b': t(2, 3)}",
    "{'a': t(3)}",
    "{'z': [t(2), t()], 'y': (t(2, 3), t(1))}",
    "{'a': t(4, 3), 'b': t(2, 2, 3), 'c': t(1, 6)}",
    "Pair(t(3), {'q': t(2, 2)})",
    "[t(0, 2), t(1), t(4)]",
    "t(4)",
    "{'a': t(3, dtype=torch.float32), 'b': t(2, 3, dtype=torch.float32)}",
    "{'a': t(3, dtype=torch.float32), 'b': t(2), 'c': t(5, dtype=torch.bfloat16)}",
    "{'a': t(3, dtype=torch.complex128), 'b': t(2)}",
]

LEAF = [
    "{a} * 0.5 + {b}",
    "{a} - {b}",
    "{a} * {b}",
    "torch.tanh({a})",
    "-{a}",
    "{a}.abs()",
    "{a} / (1 + {b}.abs())",
    "{a}.mul(0.9).add({b}, alpha=0.1)",
    "torch.lerp({a}, {b}, 0.25)",
    "{n} * {a}",
    "{a} / (2 + {n}.abs())",
    "torch.where({a} > {b}, {a}, 0.3 * {b})",
    "{a}.clamp(-1, 1)",
    "torch.maximum({a}, {b})",
    "{a} * ({b} > 0)",
    "{a}.flip(0) if {a}.ndim else {a}",
    "{a} - {a}.mean()",
    "{a} - {a}.mean(-1, keepdim=True) if {a}.ndim else {a}",
    "{a} / (1 + {b}.abs().sum(0))  if {b}.ndim else {a}",
    "{a} * ({a}.square().mean(-1, keepdim=True) * {b}.square().mean(0) + 1).rsqrt() if {a}.ndim else {b}",
    "{a} - 0.1 * torch.linalg.vector_norm({b}, dim=-1).unsqueeze(-1) if {b}.ndim else {b}",
    "({a}.reshape(-1, 2) - {b}.reshape(-1, 2).mean(1, keepdim=True)).view({a}.shape) if {a}.numel() % 2 == 0 else {a}",
    "{b} * {a}.view(3, -1).sum(1, True).expand(3, {a}.numel() // 3).view({a}.shape) if {a}.numel() % 3 == 0 else {a}",
    "{a} / (1 + {a}.norm())",
    "{a}.reshape(-1).cumsum(0).view({a}.shape)",
    "{a}.clone().mul_(0.5).add_({b})",
    "{a}.abs().max() * {b}",
    "torch.sort({a}.flatten()).values.view({a}.shape)",
    "{a} + {a}.sum() * 0.1",
    "torch.zeros_like({a}) + {b}",
    "torch.stack([{a}, {b}]).sum(0)",
    "{a}.to(torch.float32) * 0.5",
    "{a}.T @ {b} @ {a}.T if {a}.ndim == 2 and {a}.shape == {b}.shape and {a}.shape[0] == {a}.shape[1] else {a}",
    "({a}.square() + 0.1).sqrt()",
    "{a}.sign() * {b}",
    "torch.cat([{a}.flatten(), {b}.flatten()])[: {a}.numel()].view({a}.shape)",
]
NUMBERS = [
    "0.5",
    "K",
    "torch.tanh(n)",
    "1 / (1.0 + i)",
    "tree.norm(updates)",
    "row.sum()",
    "row[0]",
    "torch.where(flag, 0.3, 0.7)",
    "1 / (1 + tree.norm(params))",
    "(0.5 * torch.tanh(K) + n.abs()).clamp(max=1.0)",
    "torch.tensor(0.25)",
    "value",
    "torch.sigmoid(tree.max(updates))",
    "tree.leaves(updates)[0].abs().sum().clamp(max=2)",
]
CONDITIONS = ["frozen", "bool(n > 0.2)", "int(i) % 2", "float(tree.norm(updates)) > 1"]
NEW_M = [
    "m",
    "updates",
    "tree.map(lambda m, u: 0.9 * m + u, m, updates)",
    "tree.map(lambda m, p: p, m, params)",
    "tree.map(lambda m, u: torch.lerp(m, u.to(m.dtype), 0.1), m, updates)",
    "tree.scale(0.5, m)",
    "tree.map(lambda m: m.flip(0) if m.ndim else m, m)",
]
LIBRARY = [
    "optfx.sgd(0.1)",
    "optfx.scale_by_adam()",
    "optfx.clip_by_global_norm(1.0)",
    "optfx.trace(0.9)",
    "optfx.scale(-0.1)",
    "optfx.add_decayed_weights(0.1)",
    "optfx.scale_by_schedule(optfx.cosine_decay_schedule(1.0, 5))",
    "optfx.scale_by_rms()",
    "optfx.centralize()",
    "optfx.clip(1.0)",
    "optfx.adamw(0.1)",
    "optfx.ema(0.9)",
]


@st.composite
def leaves(draw, names, depth=2):
    """An expression of leaves."""
    if depth == 0 or (draw(st.booleans()) and depth < 2):
        return draw(st.sampled_from(names))
    form = draw(st.sampled_from(LEAF))
    a, b = (draw(leaves(names, depth - 1)) for _ in range(2))
    return "(" + form.format(a=a, b=b, n="n") + ")"


@st.composite
def statements(draw):
    """A line or two of a step."""
    kind = draw(st.integers(0, 9))
    number = draw(st.sampled_from(NUMBERS))
    if kind <= 2:
        return f"updates = tree.map(lambda x, p, m: {draw(leaves(['x', 'p', 'm']))}, updates, params, m)"
    if kind == 3:
        return f"updates = tree.map(lambda x, c: {draw(leaves(['x', 'c']))}, updates, C)"
    if kind == 4:
        return f"updates = tree.scale({number}, updates)"
    if kind == 5:
        return f"updates = tree.elementwise(blend, updates, params, a={number})"
    if kind == 6:
        return f"updates = tree.leafwise(across, updates, a={number})"
    if kind == 7:
        what = draw(st.sampled_from(["tree.mul(updates, C)", "tree.add(updates, m)", "tree.sub(updates, params)"]))
        return f"updates = {what}"
    if kind == 8:
        return draw(
            st.sampled_from(["updates = tree.elementwise(closed, updates)", "updates = tree.map(torch.clone, updates)"])
        )
    condition = draw(st.sampled_from(CONDITIONS))
    return f"if {condition}:\n            updates = tree.scale(0.5, updates)"


@st.composite
def transforms(draw, number):
    """The source of a transform of a user."""
    body = "\n        ".join(draw(st.lists(statements(), min_size=1, max_size=3)))
    new_m = draw(st.sampled_from(NEW_M))
    new_n = draw(st.sampled_from(["n", "0.5 * n + 0.1 * ({})", "n + torch.tanh(torch.as_tensor({}).double())"]))
    new_flag = draw(st.sampled_from(["flag", "~flag", "n > 0.1"]))
    new_row = draw(st.sampled_from(["row", "0.5 * row", "row.flip(0) + n", "torch.stack([n, row[0]])"]))
    return f"""
@tree.record
class T{number}(core.GradientTransformation):
    needs_params = True
    takes = ("frozen", "value")

    def begin(self, params):
        return {{
            "m": tree.zeros_like(params),
            "n": torch.zeros((), dtype=torch.float64),
            "i": torch.zeros((), dtype=torch.int64),
            "flag": torch.tensor(True),
            "row": torch.tensor([0.5, 0.25], dtype=torch.float64),
        }}

    def step(self, updates, state, params, *, frozen=False, value=0.5, **extra):
        m, n, i, flag, row = (state[k] for k in ("m", "n", "i", "flag", "row"))
        {body}
        n_next = {new_n.format(draw(st.sampled_from(NUMBERS)))}
        return updates, {{"m": {new_m}, "n": n_next, "i": i + 1, "flag": {new_flag}, "row": {new_row}}}
"""


WRAPPERS = {
    "accumulate": """
        total = tree.map(lambda a, u: 0.5 * a + u, state[0], updates)
        ready = state[1] % 2 == 1
        new, inner = self.inner.run(total, state[2], params, extra)
        new = tree.map(lambda x: torch.where(ready, x, torch.zeros_like(x)), new)
        return new, (total, state[1] + 1, tree.map(lambda a, b: torch.where(ready, a, b), inner, state[2]))""",
    "skip": """
        ok = tree.norm(updates) < 2.0
        new, inner = self.inner.run(updates, state[2], params, extra)
        new = tree.map(lambda x: x * ok, new)
        return new, (state[0], state[1] + ok, tree.map(lambda a, b: torch.where(ok, a, b), inner, state[2]))""",
    "lookahead": """
        new, inner = self.inner.run(updates, state[2], params, extra)
        slow = tree.map(lambda s, p, u: s + 0.5 * (p + u - s), state[0], params, new)
        sync = (state[1] + 1) % 2 == 0
        new = tree.map(lambda s, p, u: torch.where(sync, s - p, u), slow, params, new)
        return new, (slow, state[1] + 1, inner)""",
    "alternate": """
        if int(state[1]) % 2:
            return tree.zeros_like(updates), (state[0], state[1] + 1, state[2])
        new, inner = self.inner.run(updates, state[2], params, extra)
        return new, (state[0], state[1] + 1, inner)""",
}


@st.composite
def programs(draw):
    """A program: params, transforms of a user, wrappers, and a chain of these and of the library's."""
    parts, chain = [], []
    for k in range(draw(st.integers(1, 2))):
        parts.append(draw(transforms(k)))
        chain.append(f"T{k}()")
    for _ in range(draw(st.integers(0, 2))):
        chain.insert(draw(st.integers(0, len(chain))), draw(st.sampled_from(LIBRARY)))
    tx = f"optfx.chain({', '.join(chain)})" if len(chain) > 1 else chain[0]
    if draw(st.booleans()):
        kind = draw(st.sampled_from(sorted(WRAPPERS)))
        parts.append(f"""
@tree.record
class wrapper(core.Wrapper):
    holds = "inner"
    inner: Any
    needs_params = True

    def begin(self, params):
        return tree.zeros_like(params), torch.zeros((), dtype=torch.int64), self.inner.begin(params)

    def step(self, updates, state, params, **extra):{WRAPPERS[kind]}
""")
        tx = f"wrapper({tx})"
        if draw(st.booleans()):
            tx = f"optfx.chain({tx}, {draw(st.sampled_from(LIBRARY))})"
    source = f"{HEAD}\nparams = {draw(st.sampled_from(TREES))}\nK = torch.tensor(0.7, dtype=torch.float64)\n"
    source += "C = tree.map(lambda p: torch.full_like(p, 0.8), params)\n" + "".join(parts) + f"\ntx = {tx}\n"
    reads = any(words in source for words in ("bool(", "int(", "float(", "mul_("))
    return Program(source, reads, draw(st.booleans()))


# ---- running one ------------------------------------------------------------------------------------


class Run:
    """One run of a program, from the start."""

    def __init__(self, program: Program):
        names: dict[str, Any] = {"torch": torch, "optfx": optfx, "tree": tree, "core": core}
        names |= {"Any": Any, "NamedTuple": NamedTuple}
        exec(compile(program.source, "program.py", "exec"), names)
        self.tx, self.params, self.names, self.changes = names["tx"], names["params"], names, program.changes
        told = 2 * program.source.count("takes = ")  # each step declares its arguments
        self.given = [k for k in ("frozen", "value") if len(re.findall(rf"\b{k}\b", program.source)) > told]

    def before(self, step: int) -> tuple[Any, dict[str, Any]]:
        """Gradients and extra arguments of a step; what lies outside has changed."""
        if self.changes:
            self.names["K"].fill_(0.3 + 0.2 * step)
            for x in tree.leaves(self.names["C"]):
                x.mul_(-0.9)
        g = tree.map(lambda p: torch.cos(p * (step + 1)), self.params)
        return g, {k: v for k, v in {"frozen": step == 1, "value": 0.5 / (step + 1)}.items() if k in self.given}

    def eager(self) -> Any:
        params, state = self.params, self.tx.init(self.params)
        for step in range(STEPS):
            g, extra = self.before(step)
            updates, state = self.tx.update(g, state, params, **extra)
            params = optfx.apply_updates(params, updates)
        return params, state

    def fused(self) -> Any:
        opt = optfx.fuse(self.tx)
        params, state = opt.init(self.params)
        for step in range(STEPS):
            g, extra = self.before(step)
            params, state = opt.step(g, state, params, **extra)
        return params, state

    def compiled(self) -> Any:
        def step(g, state, params, extra):
            updates, state = self.tx.update(g, state, params, **extra)
            return optfx.apply_updates(params, updates), state

        torch._dynamo.reset()
        compiled = torch.compile(step, backend="aot_eager", dynamic=False)
        params, state = self.params, self.tx.init(self.params)
        for k in range(STEPS):
            g, extra = self.before(k)
            params, state = compiled(g, state, params, extra)
        return params, state

    def mapped(self) -> Any:
        """The second of two members, of which the first has other gradients."""
        two = lambda t: tree.map(lambda x: torch.stack([x * 0.5, x]), t)
        params = tree.map(lambda x: torch.stack([x, x]), self.params)
        state = vmap(self.tx.init)(params)
        for k in range(STEPS):
            g, extra = self.before(k)

            def one(g, state, params, extra=extra):
                updates, state = self.tx.update(g, state, params, **extra)
                return optfx.apply_updates(params, updates), state

            params, state = vmap(one)(two(g), state, params)
        return tree.map(lambda x: x[1], (params, state))

    def members(self) -> Any:
        """The same, as one kernel for both."""
        two = lambda t: tree.map(lambda x: torch.stack([x * 0.5, x]), t)
        opt = optfx.fuse(tree.map(lambda x: torch.stack([x, x]), self.tx), members=2)
        params, state = opt.init(tree.map(lambda x: torch.stack([x, x]), self.params))
        for k in range(STEPS):
            g, extra = self.before(k)
            params, state = opt.step(two(g), state, params, **extra)
        return tree.map(lambda x: x[1], (params, state))


def outcome(run: Any) -> Any:
    """What a run gives: its numbers, or its error."""
    try:
        return run()
    except Exception as error:
        return error


def compare(expected: Any, got: Any, way: str) -> None:
    """Raise unless a run gave what eager code gave."""
    if isinstance(expected, Exception):
        assert isinstance(got, Exception), f"{way} hides an error: {expected!r}"
        return
    if isinstance(got, Exception):
        raise AssertionError(f"{way}: {type(got).__name__}: {got}") from got
    for path, x, y in zip(tree.paths(expected), tree.leaves(expected), tree.leaves(got), strict=True):
        assert x.shape == y.shape, f"{way}: {path} has the shape {tuple(y.shape)}, not {tuple(x.shape)}"
        if x.dtype.is_floating_point or x.dtype.is_complex:
            narrow = {d for p in tree.leaves(expected[0]) for d in [p.dtype]}
            tol = 0.1 if torch.bfloat16 in narrow else 3e-4 if torch.float32 in narrow else 1e-6
            wide = torch.complex128 if x.dtype.is_complex else torch.float64
            close = torch.allclose(x.to(wide), y.to(wide), rtol=tol, atol=tol, equal_nan=True)
        else:
            close = torch.equal(x, y)
        assert close, f"{way}: {path} is {y}, not {x}"


@contextlib.contextmanager
def interpreted():
    """Kernels as graphs that torch runs: what is recorded and planned is as always, and no compiler is waited for."""

    def launcher(loop, masks, k, compilers):
        n, is_flat = len(masks), all(map(all, masks))
        shapes = lambda sizes: [tuple(s if own else 1 for s, own in zip(sizes, m, strict=True)) for m in masks]
        if not is_flat:  # leaf by leaf, unless there is a number to be made of them all
            return before[0](loop, masks, k, compilers) if k else mapped.launcher(loop, shapes)
        written = {
            x.args[0] for x in loop.graph.nodes if x.op == "call_function" and x.target is torch.ops.aten.copy_.default
        }
        at = [x in written for x in [x for x in loop.graph.nodes if x.op == "placeholder"][:n]]

        def launch(owners, values, rebound, members):
            def run():
                for rows, _, scalars, partials in owners:
                    columns = [[seen(values[i], (-1,), members) for i in column] for column in zip(*rows, strict=True)]
                    joined = [torch.cat(column, -1) for column in columns]
                    members.run(loop, *joined, *(p[..., 0] for p in partials), *scalars)
                    for column, whole, stored in zip(columns, joined, at, strict=True):
                        for x, part in zip(column, whole.split([x.shape[-1] for x in column], -1), strict=True):
                            if stored:
                                x.copy_(part)

            return Bound(run, lambda: None)

        return launch

    def scalar_work(graph, args, compilers, members):
        return Bound(lambda: members.run(graph, *args), lambda: None)

    before = cpp.launcher, cpp.scalar_work
    cpp.launcher, cpp.scalar_work = launcher, scalar_work
    try:
        yield
    finally:
        cpp.launcher, cpp.scalar_work = before


@contextlib.contextmanager
def on_a_gpu():
    """Kernels in Triton, run by its interpreter."""
    from optfx.compiler.kernels import triton, workshop

    before, workshop.writer_for = workshop.writer_for, lambda device: triton
    try:
        yield
    finally:
        workshop.writer_for = before


def check(program: Program, number: int) -> None:
    """Run a program in every way: by C++ and by Triton each tenth time, compiled each fiftieth: these take seconds."""
    expected = outcome(lambda: Run(program).eager())
    with interpreted() if number % 10 else contextlib.nullcontext():
        compare(expected, outcome(lambda: Run(program).fused()), "fused")
    if not program.reads:
        compare(expected, outcome(lambda: Run(program).mapped()), "mapped")
        with interpreted() if number % 10 else contextlib.nullcontext():
            compare(expected, outcome(lambda: Run(program).members()), "members")
    if number % 10 == 5 and importlib.util.find_spec("triton") is not None:
        with on_a_gpu():
            compare(expected, outcome(lambda: Run(program).fused()), "Triton")
    if number % 50 == 0:
        compare(expected, outcome(lambda: Run(program).compiled()), "compiled")


def main(count: int, seed: int, file: Path) -> None:
    """Draw and check programs. The one that is running is in `file`, in case the process dies of it."""
    number = itertools.count(1)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(programs())
    def all_of_them(program: Program) -> None:
        k = next(number)
        file.write_text(f"# program {k}\n{program.source}")
        check(program, k)

    all_of_them()
    print(f"{next(number) - 1} programs, and nothing wrong")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
