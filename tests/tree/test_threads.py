"""Work side by side: in order, in threads of their own, and not where a thread would not know what this one does."""

import os
import threading

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from optfx import tree
from optfx.tree.matrices import LARGE
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


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    with torch.no_grad():
        side_by_side(whose, [1, 2])
        child = os.fork()
        if not child:
            os._exit(0 if [there for _, there, _, _ in side_by_side(whose, [1, 2])] == [True, True] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def at_work(x, y):
    names.add(threading.current_thread().name)
    return x @ y.adjoint(), y.sum(-1, keepdim=True)


names = set()


def test_large_leaves_of_one_shape_have_the_numbers_they_have_alone():
    x = {k: torch.randn(LARGE // 512, 512) for k in "abc"}
    names.clear()
    with torch.no_grad():
        products, sums = tree.matrixwise(at_work, x, x, outs=2)
    assert threading.current_thread().name in names
    assert len(names) > 1
    for k, v in x.items():
        torch.testing.assert_close(products[k], v @ v.mT)
        torch.testing.assert_close(sums[k], v.sum(-1, keepdim=True))
