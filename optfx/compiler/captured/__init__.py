"""A function of trees of tensors as a list of calls that is fast on one thread: `capture`.

| file | its part |
|---|---|
| `trace.py` | the function runs once: a graph of ATen operations, and where in memory each value lies |
| `rows.py` | operations over short rows in smaller words |
| `cleaning.py` | the graph without what need not be done |
| `groups.py` | which operations share a kernel |
| `nest.py` | the C++ of a kernel |
| `tiles.py` | the C++ of a kernel of rows |
| `streams.py` | the C++ of sums along long rows |
| `program.py` | the calls in their order, and the compiler |
| `memory.py` | where results lie |
| `bound.py` | a program with memory of its own, which can be called |
"""

from optfx.compiler.captured.bound import Bound
from optfx.compiler.captured.program import Program, capture
from optfx.compiler.captured.trace import NotCaptured, trace

__all__ = ["Bound", "NotCaptured", "Program", "capture", "trace"]
