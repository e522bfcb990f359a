"""A progress bar that seldom waits for the device, and stays quiet without a terminal."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import torch
from torch import Tensor

INTERVAL = 0.5  # seconds between refreshes, each of which waits for the losses


class Progress:
    """Shows steps, their rate, and the best loss so far.

    Args:
        members: how many settings train at once.
        show: whether to show a bar if stderr is a terminal.

    Raises:
        ImportError: a bar should be shown and tqdm is missing.
    """

    def __init__(self, members: int, show: bool) -> None:
        self.members, self.best, self.done, self.seen = members, math.inf, 0, ""
        self.bar = _bar() if show and sys.stderr.isatty() else None
        self.began = self.refreshed = time.perf_counter()

    def started(self) -> None:
        """The first step, which compiles, has been taken: count the rate from here."""
        if self.bar is not None:
            self.bar.set_description_str("training")
            self.began = self.refreshed = time.perf_counter()

    def expect(self, steps: int, members: int) -> None:
        """There are so many steps to come, with so many members at once."""
        if self.bar is not None:
            self.members, self.bar.total = members, self.bar.n + steps
            self.bar.refresh()

    def judged(self, metric: str, value: float) -> None:
        """Members were evaluated, and this is the best."""
        self.seen = f", {metric} {value:.4g}"

    def advance(self, steps: int, losses: Tensor) -> None:
        """Some steps are done, the last one with these losses, (members,)."""
        if self.bar is not None:
            self.done += steps
            self.bar.update(steps)
            if time.perf_counter() - self.refreshed > INTERVAL:
                self.refresh(losses)

    def refresh(self, losses: Tensor) -> None:
        """Bring the rate and the best loss up to date."""
        if self.bar is not None:
            self.best = min(self.best, *(x for x in losses.tolist() if math.isfinite(x)), math.inf)
            self.refreshed = time.perf_counter()
            rate = self.done / (self.refreshed - self.began)
            self.bar.set_postfix_str(
                f"{rate:.0f} steps/s x {self.members} members, best loss {self.best:.4g}{self.seen}"
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _bar() -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError('the progress bar needs tqdm: pip install "optfx[sweep]", or give progress=False') from None
    shape = "{desc} {percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    return tqdm(total=0, desc="compiling", dynamic_ncols=True, bar_format=shape)


def wait_for(x: Tensor) -> None:
    """Wait for the device of a tensor, before reading a clock."""
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
