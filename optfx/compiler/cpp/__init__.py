"""Kernels and scalar work in C++, for the CPU."""

from optfx.compiler.cpp.build import finish
from optfx.compiler.cpp.expressions import Unsupported
from optfx.compiler.cpp.loop import launcher
from optfx.compiler.cpp.scalar import scalar_work

__all__ = ["Unsupported", "finish", "launcher", "scalar_work"]
