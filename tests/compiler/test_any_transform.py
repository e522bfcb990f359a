"""Transforms that nobody here has thought of: `fuse`, `vmap` and `torch.compile` give the numbers of eager code.

    python -m tests.compiler.programs 10000 SEED FILE

runs as many as one likes; FILE has the program that is running.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("seed", range(2))
def test_any_transform(seed, tmp_path):
    """In a process of its own: a program that brings it down is a failure, and is shown."""
    file = tmp_path / "program.py"
    command = [sys.executable, "-W", "ignore", "-m", "tests.compiler.programs", "75", str(seed), str(file)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}\nThe last program was\n{file.read_text()}"
