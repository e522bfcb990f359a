"""What every test may rely on: one thread per worker, no window, JAX in float64 and Triton on the CPU, a fixed seed."""

import gc
import os

# Read when the libraries are imported, which is after this file is.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TRITON_INTERPRET"] = "1"  # kernels of accelerators, on the CPU
# XLA compiles in a quarter of the time: its programs run a few times here
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


PROCESSES = ("any_transform", "data_parallel", "dcp", "sharded", "sharded_fused", "shards")


def pytest_collection_modifyitems(items):
    """What starts processes, and takes up to a minute, comes first, on one worker: one that came to it at the end would
    be alone with it."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in PROCESSES)


def pytest_collection_finish():
    """A million objects of libraries and of the collection stay: Python need not look at them again and again while
    Dynamo makes others."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(autouse=True)
def seed():
    """The same random numbers, whatever ran before and on whichever worker.

    `torch.manual_seed` would seed accelerators too, and formats the stack for each that is not there: half of what a
    small test takes.
    """
    torch.default_generator.manual_seed(0)


@pytest.fixture
def fresh_dynamo():
    """Dynamo with nothing compiled. Yields its counters, so that a test can count graphs."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture
def no_cpp(monkeypatch):
    """As where there is no C++ compiler, or on another device."""
    from optfx.compiler.kernels import cpp
    from optfx.compiler.kernels.binding import Unsupported

    def refused(*_):
        raise Unsupported("anything")

    monkeypatch.setattr(cpp, "launcher", refused)
    monkeypatch.setattr(cpp, "scalar_work", refused)
