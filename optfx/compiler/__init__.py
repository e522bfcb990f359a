"""One kernel for all leaves of a chain: `fuse`."""

from optfx.compiler.fused import fuse

__all__ = ["fuse"]
