"""One kernel for all leaves of a chain."""

from optfx.compiler.fused import fuse

__all__ = ["fuse"]
