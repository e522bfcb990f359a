"""What people do to an optimizer, in any order: a few of the programs of `any_use`, in a process that may crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("runs", "how"), [(185, []), (15, ["--compile"])], ids=["eager", "compiled"])
def test_any_use(runs, how):
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "tests.interop.any_use",
        "--runs",
        str(runs),
        "--trace",
        *how,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=600)
    last = done.stderr.rpartition("---- begin")[2]  # what a crash, or a fault, came after
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{last}"
    assert f"{runs} programs, no fault" in done.stdout
