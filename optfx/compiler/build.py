"""Compiled C++ by its source: built once on this machine, in the background, and kept on disk."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

FLAGS = "-O3 -march=native -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=off -std=c++17 -shared -fPIC -w"


@functools.cache
def compiler() -> tuple[str, str] | None:
    """The C++ compiler (`$CXX` or `g++`) and its version; None where there is none."""
    path = shutil.which(os.environ.get("CXX", "g++"))
    if path is None:
        return None
    return path, subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def folder() -> Path:
    """Where compiled code is kept: `$OPTFX_CACHE_DIR`, or `optfx` in the user's folder for caches."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("OPTFX_CACHE_DIR") or Path(home) / "optfx")
    path.mkdir(parents=True, exist_ok=True)
    return path


class Library:
    """The function `run` of a C++ source."""

    def __init__(self, source: str, *takes: Any):
        self.takes = takes
        found = compiler()
        assert found is not None
        name, version = found
        key = hashlib.sha256("\n".join((source, FLAGS, version, _processor())).encode()).hexdigest()[:32]
        self.path = folder() / f"{key}.so"
        self.process: subprocess.Popen[str] | None = None
        if not self.path.exists():
            self.work = Path(tempfile.mkdtemp(dir=folder()))
            (self.work / "run.cpp").write_text(source)
            command = [name, *FLAGS.split(), "run.cpp", "-o", "run.so"]
            self.process = subprocess.Popen(command, cwd=self.work, stderr=subprocess.PIPE, text=True)

    @functools.cached_property
    def run(self) -> ctypes._CFuncPtr:  # type: ignore[name-defined]
        """The compiled function; waits for the compiler.

        Raises:
            RuntimeError: with what the compiler said.
        """
        if self.process is not None:
            _, words = self.process.communicate()
            if self.process.returncode:
                raise RuntimeError(f"the compiler failed in {self.work}:\n{words}")
            os.replace(self.work / "run.so", self.path)  # whole or not at all: others may be at the same work
            shutil.rmtree(self.work)
        function = ctypes.CDLL(str(self.path)).run
        function.restype, function.argtypes = None, self.takes
        return function


@functools.cache
def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        import platform

        return platform.processor() or platform.machine()
    return "\n".join(sorted({x for x in lines if x.startswith(("flags", "model name", "Features", "CPU part"))}))
