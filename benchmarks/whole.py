"""The whole time of a sweep, from the call to the answer, compilation included, and what of it comes first.

Each figure is of a process of its own: *cold* finds no compiled code on disk, *warm* what the cold one left there, jax
in its persistent compilation cache. The clock starts after the imports, with the data in memory. All must agree.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import job
import measure
import ways

HERE = Path(__file__).parent
CACHES = ("cold", "warm")
KEPT = (256, 64, 16)  # members of each round of successive halving


def process(cache: str, file: str, *arguments: Any) -> str:
    """What a script of this folder prints, in a process of its own, with its compiled code in the folder `cache`."""
    env = os.environ | {
        "OPTFX_CACHE_DIR": f"{cache}/optfx",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        "JAX_COMPILATION_CACHE_DIR": f"{cache}/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have theirs compiled, and so has optfx then
    command = [sys.executable, str(HERE / file), *map(str, arguments)]
    run = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed, with what is above")
    return run.stdout


Runs = dict[tuple[str, str], job.Run]  # by way and caches


def once(members: int, hidden: int, steps: int) -> Runs:
    """A run of each way, with each of the caches where it has one. All find the same, or it raises."""
    found: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for cache in CACHES:
            for way in ways.WAYS if cache == "warm" else ways.COMPILED:
                out = f"{folder}/run.npz"
                process(f"{folder}/{way}", "ways.py", way, members, hidden, steps, "--out", out)
                found[way, cache] = ways.read(out)
    task = job.make(members, hidden, steps)
    for cache in CACHES:
        job.agree(task, {way: run for (way, at), run in found.items() if at == cache})
    return found


def seconds(times: Sequence[float]) -> str:
    return f"{median(times):.1f}"


def ratio(a: list[float], b: list[float]) -> str:
    return f"{median(measure.Paired(a, b).ratios):.2f}"


def titled(size: tuple[int, int]) -> str:
    return f"{size[0]} x 64-{size[1]}-10"


ANSWER = ["members", "steps", "caches", "optfx, s", "of it compiling, s", "jax, a loop, s", "jax, `scan`, s",
          "jax / optfx", "torch, s", "torch / optfx"]  # fmt: skip
FIRST = ["members", "caches", "optfx, s", "jax, a loop, s", "jax / optfx"]


def answer(size: tuple[int, int], steps: int, runs: Sequence[Runs]) -> list[list[str]]:
    """Rows of the table of whole times. `jax` is the faster of its two ways, in each run."""
    torch, rows = [job.for_all(run["torch", "warm"], size[0]) for run in runs], []
    for cache in CACHES:
        ours, loop, scan = ([run[way, cache].seconds for run in runs] for way in ways.COMPILED)
        compiling, jax = [run["optfx", cache].compiling for run in runs], list(map(min, loop, scan))
        times = [seconds(ours), seconds(compiling), seconds(loop), seconds(scan), ratio(ours, jax)]
        rows.append([titled(size), str(steps), cache, *times, seconds(torch), ratio(ours, torch)])
    return rows


def first(size: tuple[int, int], runs: Sequence[Runs]) -> list[list[str]]:
    """Rows of the table of first losses."""
    rows = []
    for cache in CACHES:
        ours, jax = ([run[way, cache].first for run in runs] for way in ("optfx", "jax"))
        rows.append([titled(size), cache, seconds(ours), seconds(jax), ratio(ours, jax)])
    return rows


# ---- successive halving -----------------------------------------------------------------------


def halve(kept: Sequence[int], hidden: int, steps: int) -> list[tuple[float, float]]:
    """Train, keep the best, train them on: the seconds of each fit, and those that it waited for compilers."""
    from optfx import sweep

    task = job.make(kept[0], hidden, steps)
    way = ways.Optfx(task)
    configs, init, times = way.configs, way.start, []
    for k, more in zip(kept, (*kept[1:], 1), strict=True):
        result = way.fit(configs, init, steps)
        if len(result) != k:
            raise AssertionError(f"{len(result)} members trained where {k} were to")
        times.append((result.seconds, result.compile_seconds))
        best = result.ranking()[:more]
        configs = {name: x[best] for name, x in configs.items()}
        init = sweep.stacked({name: x[best] for name, x in result.params.items()})
    return times


HALVING = ["successive halving", "caches", "optfx, s", "compiling, s"]


def halving(kept: Sequence[int], hidden: int, steps: int, runs: int) -> list[list[str]]:
    """Rows of its table, cold and warm, each in a process of its own."""
    times: dict[str, list[list[list[float]]]] = {cache: [] for cache in CACHES}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            for cache in CACHES:
                lines = process(folder, "whole.py", *kept, "--hidden", hidden, "--steps", steps).splitlines()
                times[cache].append([[float(x) for x in line.split()] for line in lines])
    return [
        [
            f"{i + 1}: {k} x 64-{hidden}-10, {steps} steps",
            cache,
            *(f"{median(run[i][j] for run in times[cache]):.1f}" for j in range(2)),
        ]
        for cache in CACHES
        for i, k in enumerate(kept)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Successive halving once: the seconds of each fit, and of compiling.")
    parser.add_argument("kept", nargs="*", type=int, default=KEPT)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    for seconds, compiling in halve(args.kept, args.hidden, args.steps):
        print(seconds, compiling)


if __name__ == "__main__":
    main()
