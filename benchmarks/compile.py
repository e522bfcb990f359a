"""The time until a fused optimizer has taken its first step, and the memory that a step takes.

Each figure is of a process of its own: *cold* finds no compiled code on disk, *warm* what the cold one left there. The
clock starts after `import torch, optfx`; what is imported on the way (the tracer) counts, and is given beside.

    python benchmarks/compile.py                    # rewrites its section of the page
    python benchmarks/compile.py --sizes blocks148 --runs 1
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import measure
from sizes import SIZES

MEMORY = ("big4", "small1000")


def child(what: str, size: str) -> None:
    """In a process of its own: print the figure."""
    import resource

    import torch
    from sizes import gradients, parameters

    import optfx

    shapes = SIZES[size][1]
    params, grads = parameters(shapes), gradients(shapes, 1)
    if what.startswith("compile"):
        start = time.perf_counter()
        import torch._inductor  # brings the tracer; what optfx imports beyond it takes milliseconds

        imported = time.perf_counter() - start
        import recipe  # whose own imports do not count

        tx = optfx.adamw(1e-3) if what == "compile adamw" else recipe.chain()
        start = time.perf_counter()
        opt = optfx.fuse(tx)
        params, state = opt.init(params)
        opt.step(grads, state, params)
        print(imported + time.perf_counter() - start, imported)
    elif what == "torch.compile":
        own = [p.requires_grad_() for p in params.values()]
        for p, g in zip(own, grads.values(), strict=True):
            p.grad = g
        step = torch.compile(torch.optim.AdamW(own, lr=1e-3).step)
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, 0.0)
    else:
        # what is there before the first step: params, gradients, state; the rest of the peak is the step's own
        if what == "fuse":
            opt = optfx.fuse(optfx.adamw(1e-3))
            params, state = opt.init(params)
            step = lambda: opt.step(grads, state, params)
            step()
        elif what == "eager":
            tx = optfx.adamw(1e-3)
            state = tx.init(params)
            step = lambda: optfx.apply_updates(params, tx.update(grads, state, params)[0])
        else:
            own = [p.requires_grad_() for p in params.values()]
            for p, g in zip(own, grads.values(), strict=True):
                p.grad = g
            optimizer = torch.optim.AdamW(own, lr=1e-3, **{what: True})
            optimizer.step()  # makes the state
            step = optimizer.step
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew here
        before = int(next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x).split()[1])
        for _ in range(3):
            step()
        status = Path("/proc/self/status").read_text().splitlines()
        peak = int(next(x for x in status if "VmHWM" in x).split()[1])
        print((peak - before) / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measured(what: str, size: str, cache: str) -> tuple[float, float]:
    env = os.environ | {"OPTFX_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor"}
    command = [sys.executable, __file__, "--child", what, size]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    first, second = map(float, run.stdout.split()[-2:])
    return first, second


def compile_row(what: str, size: str, runs: int) -> list[str]:
    cold, warm, imports = [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(measured(what, size, cache)[0])
            seconds, imported = measured(what, size, cache)
            warm.append(seconds)
            imports.append(imported)
    return [f"{median(cold):.1f}", f"{median(warm):.1f}", f"{median(imports):.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--torch", action="store_true", help="torch.compile at every size: minutes for each")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    parts, rows = [measure.machine("optfx")], []
    for size in args.sizes:
        for what, name in (("compile adamw", "`fuse(adamw)`"), ("compile recipe", "`fuse`, the recipe")):
            rows.append([SIZES[size][0].split(",")[0], name, *compile_row(what, size, args.runs)])
            print(rows[-1], flush=True)
        if args.torch or size == "big4":
            with tempfile.TemporaryDirectory() as cache:
                cold, warm = (measured("torch.compile", size, cache)[0] for _ in range(2))
            rows.append([SIZES[size][0].split(",")[0], "`torch.compile(AdamW.step)`", f"{cold:.1f}", f"{warm:.1f}", ""])
            print(rows[-1], flush=True)
    parts.append(measure.table(("leaves", "", "cold, s", "warm, s", "of it imports, s"), rows))
    rows = []
    for size in MEMORY:
        with tempfile.TemporaryDirectory() as cache:
            for what in ("fuse", "fused", "foreach", "eager"):
                name = {"fuse": "optfx, `fuse`", "eager": "optfx, eager"}.get(what, f"`AdamW({what}=True)`")
                extra = median(measured(what, size, cache)[0] for _ in range(args.runs))
                rows.append((SIZES[size][0].split(",")[0], name, f"{extra:.1f}"))
                print(rows[-1], flush=True)
    parts.append("Memory beyond params, gradients and state, at the peak of a step:")
    parts.append(measure.table(("leaves", "", "MiB"), rows))
    if set(SIZES) <= set(args.sizes):
        measure.write("compile", "\n\n".join(parts))


if __name__ == "__main__":
    main()
