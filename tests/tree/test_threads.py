"""Work side by side: in order, in threads of their own, and not where a thread would not know what this one does."""

import subprocess
import sys
import threading

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from optfx import tree
from optfx.tree.matrices import HUGE
from optfx.tree.threads import side_by_side


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def whose(x):
    return x, threading.current_thread().name.startswith("optfx"), torch.get_num_threads(), torch.is_grad_enabled()


def test_full_turns_are_taken_in_threads_of_one_and_what_is_left_over_by_all():
    with torch.no_grad():
        found = side_by_side(whose, [*range(5)])
    assert found == [*((k, True, 1, False) for k in range(4)), (4, False, 2, False)]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "inside",
    [
        torch.enable_grad,
        lambda: torch.device("cpu"),
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: FlopCounterMode(display=False),
    ],
)
def test_what_belongs_to_a_thread_keeps_it_here(inside):
    with torch.no_grad(), inside():
        assert not any(there for _, there, _, _ in side_by_side(whose, [*range(4)]))


def test_transforms_keep_it_here():
    names = []

    def f(x):
        names.extend(there for _, there, _, _ in side_by_side(whose, [*range(4)]))
        return x

    with torch.no_grad():
        torch.func.vmap(f)(torch.zeros(2))
    assert names == [False] * 4


def test_an_error_is_raised_here():
    with torch.no_grad(), pytest.raises(ValueError, match="no inverse"):
        side_by_side(lambda x: (_ for _ in ()).throw(ValueError("no inverse")), [1, 2])


FORKED = """
import os, threading, torch
from optfx.tree.threads import side_by_side
def there(x):
    return threading.current_thread().name.startswith("optfx")
torch.set_num_threads(2)
with torch.no_grad():
    assert all(side_by_side(there, [1, 2]))
    child = os.fork()
    if not child:
        os._exit(not all(side_by_side(there, [1, 2])))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_process_has_threads_of_its_own():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=120)


def at_work(x, y):
    names.add(threading.current_thread().name)
    return x @ y.adjoint(), x.sum(-1, keepdim=True)


names = set()


@pytest.mark.parametrize("shape", [(HUGE // 512, 512), (3, HUGE // 128, 128)])
def test_large_leaves_of_one_shape_have_the_numbers_they_have_alone(shape):
    x = {k: torch.randn(shape) for k in "abc"}
    names.clear()
    with torch.no_grad():
        products, sums = tree.matrixwise(at_work, x, x, outs=2)
    assert any(name.startswith("optfx") for name in names)
    for k, v in x.items():
        torch.testing.assert_close(products[k], v @ v.mT)
        torch.testing.assert_close(sums[k], v.sum(-1, keepdim=True))


def test_small_leaves_are_one_batch_here():
    names.clear()
    with torch.no_grad():
        tree.matrixwise(at_work, *(2 * [{k: torch.randn(8, 8) for k in "abc"}]), outs=2)
    assert names == {threading.current_thread().name}


def product(x, y):
    return x @ y.adjoint()


@pytest.mark.parametrize("grad", [True, False])
def test_compiled_as_one_graph(grad):
    x = {k: torch.randn(HUGE // 512, 512) for k in "abc"}
    compiled = torch.compile(lambda x: tree.matrixwise(product, x, x), backend="aot_eager", fullgraph=True)
    with torch.set_grad_enabled(grad):
        products = compiled(x)
    for k, v in x.items():
        torch.testing.assert_close(products[k], v @ v.mT)
