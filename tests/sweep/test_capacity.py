"""How many members fit: what is counted, and what follows from it."""

import gc

import pytest
import torch

import optfx
from optfx import sweep
from optfx.sweep import capacity
from optfx.sweep.capacity import LiveBytes, available_bytes, fitting, peak_bytes

KB = 1024


def block(n=1):
    return torch.zeros(n * KB, dtype=torch.uint8)


def test_live_bytes():
    outside = block(7)
    with LiveBytes() as live:
        a = block(4)
        b = a + 1
        assert live.now == 8 * KB
        view = a[::2]
        assert live.now == 8 * KB
        del b
        assert live.now == 4 * KB
        del a
        assert live.now == 4 * KB  # the view keeps it
        del view
        assert live.now == 0
        outside.add_(1)
        assert live.now <= 7 * KB
        assert live.peak == 8 * KB


def test_live_bytes_of_data_of_a_wrapped_tensor():
    with LiveBytes() as live:
        torch.func.grad(lambda x: (x.data * x).sum())(torch.zeros(KB))
    assert live.peak >= 4 * KB


def test_live_bytes_inside_function_transforms():
    x = torch.zeros(5, 4 * KB)

    def loss(row):
        return (row.sin() * row.cos()).sum()

    with LiveBytes() as live:
        grads = torch.func.vmap(torch.func.grad(loss))(x)
        assert live.now == grads.nbytes
    assert live.peak >= 4 * x.nbytes  # sin, cos, and what the backward pass makes of them
    del grads
    gc.collect()
    assert live.now == 0


def test_peak_bytes_of_members():
    def run(m):
        work = [block(3 * m) for _ in range(2)]
        del work
        return block(10)

    one, two = peak_bytes(run, 1), peak_bytes(run, 2)
    assert (one, two) == (10 * KB, 12 * KB)


@pytest.mark.parametrize(
    ("one", "two", "free", "expected"),
    [(100, 150, 1000, 19), (100, 200, 1000, 10), (100, 200, 99, 0), (100, 200, 100, 1), (100, 200, -5, 0)],
)
def test_fitting(one, two, free, expected):
    assert fitting(one, two, free) == expected


def test_available_bytes_on_this_machine():
    assert 2**20 < available_bytes(torch.device("cpu")) < 2**50
    with pytest.raises(ValueError, match=r"meta.*give chunk_size"):
        available_bytes(torch.device("meta"))


def problem(n):
    def loss_fn(w, batch):
        return (batch * w).sin().square().mean()

    return {
        "make_optimizer": lambda c: optfx.adam(c["rate"]), "configs": {"rate": torch.linspace(0.01, 0.1, n)},
        "loss_fn": loss_fn, "init": torch.ones(1000), "batches": [torch.ones(20, 1000)], "steps": 2, "compile": False,
    }  # fmt: skip


def test_chunks_follow_from_the_memory_that_is_free(monkeypatch):
    """What a sweep uses, measured the same way, stays within what it was told is free."""
    sizes = []
    for megabytes in (3, 6, 40):
        monkeypatch.setattr(capacity, "available_bytes", lambda device, free=megabytes * 2**20: free)
        with LiveBytes() as live:
            result = sweep.fit(**problem(30))
        assert live.peak <= megabytes * 2**20
        sizes.append(result.chunk_size)
    assert 1 < sizes[0] < sizes[1] < sizes[2] == 30


def test_one_member_that_does_not_fit_is_an_error(monkeypatch):
    monkeypatch.setattr(capacity, "available_bytes", lambda device: 1000)
    with pytest.raises(MemoryError, match="one member needs"):
        sweep.fit(**problem(3))
    assert len(sweep.fit(**problem(3), chunk_size=2)) == 3  # whoever names a size is believed


def test_a_batch_is_asked_for_once_however_many_are_tried(monkeypatch):
    """`batches` may go through a file."""
    monkeypatch.setattr(capacity, "available_bytes", lambda device: 3 * 2**20)
    asked = []

    def batches(step):
        asked.append(step)
        return torch.ones(20, 1000)

    given = problem(2) | {"batches": batches}
    configs, steps = given.pop("configs"), given.pop("steps")
    trainer = sweep.Trainer(**given)
    trainer.train(trainer.start(configs), steps)
    assert 1 < trainer.training.size(50) < 50  # two were tried
    assert asked == [0, 1]
