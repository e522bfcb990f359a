"""How the benchmarks measure: two things in turn, in one process, so that a busy machine slows both alike.

A ratio is the median over rounds of B's time over A's in the same round; the quartiles beside it say how far rounds
differ. Milliseconds are medians too, but they belong to the machine and its load, and ratios much less.
Each benchmark writes its tables into its own section of docs/benchmarks.md, or of another page.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

# OpenMP's threads spin for some milliseconds after their work; what is timed next must not share a core with them.
PAUSE = 0.01


def seconds(f: Callable[[], Any]) -> float:
    """The time of one call. `f` returns when its work is done: what runs asynchronously waits inside it."""
    time.sleep(PAUSE)
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


class Paired(NamedTuple):
    """The times of A and of B, round by round."""

    a: list[float]  # (rounds,) seconds
    b: list[float]  # (rounds,) seconds

    @property
    def ratios(self) -> list[float]:
        return [b / a for a, b in zip(self.a, self.b, strict=True)]

    def ratio(self) -> str:
        """B over A: the median, and the quartiles."""
        low, _, high = quantiles(self.ratios)
        return f"{median(self.ratios):.2f} ({low:.2f} to {high:.2f})"


def paired(a: Callable[[], Any], b: Callable[[], Any], rounds: int = 15, steps: int = 1, warm: int = 1) -> Paired:
    """Time A B B A A B ... after both are warm.

    Args:
        a: what B is measured against, a function without arguments that returns when its work is done.
        b: the other one.
        rounds: how many times each is timed, 15 or more.
        steps: how many calls are timed together.
        warm: how many calls of each come before.
    """
    if rounds < 15:
        raise ValueError(f"{rounds} rounds are too few for a median on a shared machine, 15 are the least")

    def several(f: Callable[[], Any]) -> Callable[[], None]:
        return lambda: [f() for _ in range(steps)] and None

    for _ in range(warm):
        a()
        b()
    times = []
    for k in range(rounds):
        first, second = (a, b) if k % 2 else (b, a)
        one, other = seconds(several(first)) / steps, seconds(several(second)) / steps
        times.append((one, other) if k % 2 else (other, one))
    return Paired(*map(list, zip(*times, strict=True)))


def milliseconds(times: Sequence[float]) -> str:
    """The median, without its unit."""
    return f"{1e3 * median(times):.1f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table, the first column to the left and the others to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(*packages: str) -> str:
    """The machine, its load and the versions, in a sentence. Call it first: later the load is the benchmark's own."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", *packages))
    return (
        f"Measured on {datetime.date.today()}: {processor()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads for torch, load average {os.getloadavg()[0]:.1f} before the start; "
        f"Python {platform.python_version()}, {versions}."
    )


def processor() -> str:
    """The name of the processor model."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return named[1] if named else platform.processor() or platform.machine()


def write(section: str, text: str, page: Path = PAGE) -> None:
    """Put `text` between `<!-- section:begin -->` and `<!-- section:end -->` of a page.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- {section}:begin -->", f"<!-- {section}:end -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page.name} has no section between {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")
