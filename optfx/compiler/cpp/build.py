"""C++ compiled by its source: once on this machine, several at a time, and kept on disk."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from optfx.compiler.cpp.expressions import Unsupported

FLAGS = "-O3 -march=native -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=off -std=c++17 -shared -fPIC -w"


@functools.cache
def compiler() -> tuple[str, str]:
    """The C++ compiler, `$CXX` or `g++`, and its version.

    Raises:
        Unsupported: there is none.
    """
    path = shutil.which(os.environ.get("CXX", "g++"))
    if path is None:
        raise Unsupported("there is no C++ compiler, so a kernel")
    return path, subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def folder() -> Path:
    """Where compiled code is kept: `$OPTFX_CACHE_DIR`, or `optfx` in the user's folder for caches."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("OPTFX_CACHE_DIR") or Path(home) / "optfx")
    path.mkdir(parents=True, exist_ok=True)
    return path


@functools.cache
def processor() -> str:
    """What `-march=native` depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    named = ("flags", "model name", "Features", "CPU part")
    return "\n".join(sorted({x for x in cpuinfo.read_text().splitlines() if x.startswith(named)}))


_at_work: list[Library] = []


class Library:
    """The function `run` of a C++ source; its compiler runs in the background until `finish`."""

    def __init__(self, source: str, *takes: Any):
        name, version = compiler()
        key = hashlib.sha256("\n".join((source, FLAGS, version, processor())).encode()).hexdigest()[:32]
        self.path, self.takes, self.run = folder() / f"{key}.so", takes, None
        self.process: subprocess.Popen[str] | None = None
        if not self.path.exists():
            self.work = Path(tempfile.mkdtemp(dir=folder()))
            (self.work / "run.cpp").write_text(source)
            command = [name, *FLAGS.split(), "run.cpp", "-o", "run.so"]
            self.process = subprocess.Popen(command, cwd=self.work, stderr=subprocess.PIPE, text=True)
        _at_work.append(self)

    def finish(self) -> None:
        if self.process is not None:
            _, words = self.process.communicate()
            if self.process.returncode:
                raise RuntimeError(f"the compiler failed on {self.work / 'run.cpp'}:\n{words}")
            os.replace(self.work / "run.so", self.path)  # whole or not at all: others may be at the same work
            shutil.rmtree(self.work)
        self.run: Any = ctypes.CDLL(str(self.path)).run
        self.run.restype, self.run.argtypes = None, self.takes


def finish() -> None:
    """Wait for the compilers.

    Raises:
        RuntimeError: with what the compiler said.
    """
    while _at_work:
        _at_work.pop().finish()


def pointers(tensors: list[Tensor]) -> Any:
    """Where tensors lie, for a function that is called more than once; they live as long as it."""
    places = (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))
    places.tensors = tensors  # type: ignore[attr-defined]
    return places
