"""How many members a block has: found out while members train, and kept for the machine."""

import pytest
import torch

from optfx import sweep
from optfx.compiler.kernels.cpp import build
from optfx.sweep import blocks, sizes
from optfx.sweep.sizes import Sizes, block_size, most_by_rule
from tests.sweep import small


def test_a_block_has_at_least_two_members():
    assert [block_size(n, 2) for n in (1, 3, 4, 129, 256, 1000)] == [2, 2, 2, 22, 32, 32]


def test_members_that_are_large_train_in_smaller_blocks():
    assert [block_size(256, 2, most_by_rule(member)) for member in (1 << 10, 1 << 16, 1 << 18)] == [32, 32, 8]
    assert block_size(3, 2, most_by_rule(1 << 25)) == 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "folder", lambda: tmp_path)
    return tmp_path


def tried(found, time, turns):
    """The sizes of some windows in which a step takes `time(size)`."""
    seen = []
    for _ in range(turns):
        seen.append(found.turn())
        found.note(time(seen[-1]))
    return seen


@pytest.mark.parametrize(("best", "seen"), [
    (32, [32, 16, 64]),
    (16, [32, 16, 8]),
    (4, [32, 16, 8, 4, 2]),
    (128, [32, 16, 64, 128]),  # and no larger ones
])  # fmt: skip
def test_the_best_size_is_found_and_kept(folder, best, seen):
    found = Sizes("small members", 100)
    assert found.begin(1024, 2) == 32
    turns = tried(found, lambda size: 1.0 + 0.1 * abs(torch.tensor(size / best).log2().item()), 50)
    assert [*dict.fromkeys(turns)] == seen
    assert set(turns[-10:]) == {best}
    assert not found.trying
    again = Sizes("small members", 100)
    assert again.begin(1024, 2) == best
    assert not again.trying
    assert Sizes("others", 100).begin(1024, 2) == 32
    assert [file.suffix for file in folder.iterdir()] == [".json"]


def test_a_size_that_is_little_better_is_not_taken(folder):
    found = Sizes("members", 100)
    found.begin(1024, 2)
    assert set(tried(found, lambda size: 1.0 - 0.01 * (size != 32), 50)[-10:]) == {32}


def test_one_slow_window_decides_nothing(folder):
    found, windows = Sizes("members", 100), iter(range(50))
    found.begin(1024, 2)
    tried(found, lambda size: 1.0 + 9.0 * (next(windows) in (2, 9)), 50)
    assert found.begin(1024, 2) == 32


def test_few_members_leave_open_what_cannot_be_tried_with_them(folder):
    found = Sizes("members", 100)
    assert found.begin(20, 2) == 10  # in blocks of 16 too
    assert set(tried(found, lambda size: 1.0, 20)) == {10}
    assert Sizes("members", 100).begin(1024, 2) == 32
    found.begin(1024, 2)
    assert set(tried(found, lambda size: 1.0, 20)) == {32, 16, 64}


@pytest.mark.parametrize("text", ["", "[]", "null", '{"most": 32', '{"open": []}'])
def test_a_damaged_file_is_none(folder, text):
    found = Sizes("members", 100)
    found.begin(1024, 2)
    tried(found, lambda size: size, 50)
    next(folder.glob("*.json")).write_text(text)
    assert Sizes("members", 100).begin(1024, 2) == 32


def test_a_run_that_tries_sizes_has_the_same_bits(folder, monkeypatch):
    expected = small.trainer().run(small.trainer().start(small.configs(50)), 150, progress=False)
    assert not [*folder.glob("*.json")]  # a short run tries nothing
    made = []

    class Spy(blocks.Worker):
        def train(self, block, *args):
            made.append(len(self.own[0]))
            return super().train(block, *args)

    monkeypatch.setattr(blocks, "Worker", Spy)
    for name, value in {"PATIENCE": 0.0, "SHORT": 0.001}.items():
        monkeypatch.setattr(blocks, name, value)
    monkeypatch.setattr(sizes, "MOST", 8)
    found = small.trainer().run(small.trainer().start(small.configs(50)), 150, every=70, progress=False)
    assert len({*made}) > 2
    assert [*folder.glob("*.json")]
    assert torch.equal(found.losses, expected.losses)
    for name in found.params:
        assert torch.equal(found.params[name], expected.params[name])
    assert isinstance(found, sweep.Result)
