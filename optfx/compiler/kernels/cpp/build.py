"""C++ sources as functions: compiled side by side, once on this machine, and kept on disk."""

from __future__ import annotations

import contextlib
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

from optfx.compiler.kernels.binding import Unsupported

FLAGS = (
    "-march=native -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=off -fno-exceptions "
    "-std=c++17 -shared -fPIC -w"
)


@functools.cache
def compiler() -> tuple[str, str]:
    """The C++ compiler, `$CXX` or `g++`, and its version.

    Raises:
        Unsupported: there is none.
    """
    path = shutil.which(os.environ.get("CXX", "g++"))
    said = None if path is None else subprocess.run([path, "--version"], capture_output=True, text=True)
    if path is None or said is None or said.returncode:
        raise Unsupported("a kernel, for want of a compiler,")
    return path, said.stdout


def check_compiler() -> None:
    """Raise where there is none, for whoever cannot do without."""
    try:
        compiler()
    except Unsupported:
        name = os.environ.get("CXX", "g++")
        raise RuntimeError(f"{name!r} is no C++ compiler here: install g++, or name another one in $CXX") from None


def flags() -> list[str]:
    """Those for the compiler. It would make vectors of half of what they may hold, and GCC would compute ahead on one
    side of a choice, and then make no vectors of it."""
    wide = ["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []
    return [*FLAGS.split(), *wide, *(["-fno-tree-pre"] if _is_gcc() else [])]


def libraries() -> list[str]:
    """Those that kernels are linked with. To look through the library of C++ takes longer than all other linking."""
    return ["-nodefaultlibs", "-lgomp", "-lm", "-lc", "-lgcc"] if _is_gcc() else []


def _is_gcc() -> bool:
    return "Free Software Foundation" in compiler()[1]


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


class Library:
    """The function `run` of a C++ source."""

    run: Any  # from `finish` on

    def __init__(self, source: str, effort: str, *takes: Any, gives: Any = None):
        name, version = compiler()
        command = [name, effort, *flags(), "run.cpp", "-o", "run.so", *libraries()]
        key = hashlib.sha256("\n".join((source, *command, version, processor())).encode()).hexdigest()[:32]
        self.path, self.takes = folder() / f"{key}.so", takes
        self.gives = gives
        self.process: subprocess.Popen[str] | None = None
        if not self.path.exists():
            self.work = Path(tempfile.mkdtemp(dir=folder()))
            (self.work / "run.cpp").write_text(source)
            self.process = subprocess.Popen(command, cwd=self.work, stderr=subprocess.PIPE, text=True)

    def finish(self) -> None:
        """Wait for the compiler, and load what it made."""
        if self.process is not None:
            _, words = self.process.communicate()
            if self.process.returncode:
                raise RuntimeError(f"the compiler failed on {self.work / 'run.cpp'}:\n{words}")
            os.replace(self.work / "run.so", self.path)  # whole or not at all: others may be at the same work
            shutil.rmtree(self.work)
        self.run = ctypes.CDLL(str(self.path)).run
        self.run.restype, self.run.argtypes = self.gives, self.takes


class Compilers:
    """The C++ compilers that are at work."""

    def __init__(self) -> None:
        self._at_work: list[Library] = []

    def library(self, source: str, effort: str, *takes: Any, gives: Any = None) -> Library:
        """A source whose compiler starts now, and whose function is there after `finish`."""
        self._at_work.append(Library(source, effort, *takes, gives=gives))
        return self._at_work[-1]

    def finish(self) -> None:
        """Wait for the compilers.

        Raises:
            RuntimeError: with what a compiler said.
        """
        with contextlib.ExitStack() as all_of_them:  # also where one fails
            while self._at_work:
                all_of_them.callback(self._at_work.pop().finish)


def pointers(tensors: list[Tensor]) -> Any:
    """The addresses of tensors as an array for C, which keeps the tensors alive."""
    addresses = (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))
    addresses.tensors = tensors  # type: ignore[attr-defined]
    return addresses
