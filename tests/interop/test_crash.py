"""Runs that are killed go on bit for bit from their last complete checkpoint (see `tests/interop/crash.py`)."""

from __future__ import annotations

import json
import subprocess
import sys


def test_killed_runs_go_on_bit_for_bit():
    command = [sys.executable, "-m", "tests.interop.crash", "--kills", "40"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    at_random = seen["random"]
    assert at_random["kills"] >= 40
    assert at_random["bit-equal"] == at_random["resumes"] > 0
    assert at_random["while saving"] > 0
    at_lines = seen["lines"]
    assert at_lines["lines"] > 100
    assert at_lines["old"] + at_lines["new"] == at_lines["lines"]
    assert at_lines["old"] > 0
    assert at_lines["new"] > 0  # after the move
    assert at_lines["with a draft left"] > 0
