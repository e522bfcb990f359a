"""Members train in blocks, side by side, with the same bits whatever the blocks and the workers."""

import contextlib
import dataclasses
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import optfx
from optfx import random, sweep, tree
from optfx.sweep.members import grad_and_value

STEPS = 12
MODEL = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
SPACE = {"rate": sweep.log_uniform(1e-3, 0.3), "b1": sweep.uniform(0.5, 0.95), "limit": sweep.log_uniform(0.1, 10.0)}


def make_optimizer(config):
    return optfx.chain(
        optfx.clip_by_global_norm(config["limit"]),
        optfx.scale_by_adam(b1=config["b1"]),
        optfx.add_decayed_weights(0.1),
        optfx.scale_by_learning_rate(optfx.cosine_decay_schedule(config["rate"], STEPS)),
    )


def init(key):
    keys = random.split(key, 2)
    return {
        "0.weight": random.normal(keys[0], (7, 5)),
        "0.bias": torch.zeros(7),
        "2.weight": random.normal(keys[1], (3, 7)) / 3,
        "2.bias": torch.zeros(3),
    }


def loss_fn(params, batch):
    return cross_entropy(functional_call(MODEL, params, batch[0]), batch[1])


def batches(step):
    g = torch.Generator().manual_seed(step)
    return torch.randn(9, 5, generator=g), torch.randint(3, (9,), generator=g)


def fit(n=11, *, threads=None, start=None, **options):
    before, configs = torch.get_num_threads(), sweep.sample(SPACE, n)
    torch.set_num_threads(threads or before)
    start = start or sweep.stacked(torch.func.vmap(init)(random.split(random.key(5), n)))
    given = {"configs": configs, "loss_fn": loss_fn, "batches": batches, "steps": STEPS, "progress": False} | options
    try:
        return sweep.fit(make_optimizer, init=start, **given)
    finally:
        torch.set_num_threads(before)


def part(configs, start, index):
    return {
        "configs": {k: x[index] for k, x in configs.items()},
        "start": sweep.stacked(tree.map(lambda x: x[index], start)),
    }


def same(a, b):
    return torch.equal(a.losses, b.losses) and all(map(torch.equal, tree.leaves(a.params), tree.leaves(b.params)))


def test_it_is_the_eager_sweep():
    wide = lambda f: lambda *args: tree.map(lambda x: x.double() if x.is_floating_point() else x, f(*args))
    start = sweep.stacked(wide(torch.func.vmap(init))(random.split(random.key(5), 11)))
    found, expected = (fit(start=start, batches=wide(batches), compile=c, threads=2) for c in (True, False))
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found.params, expected.params, rtol=1e-10, atol=1e-11)


def test_the_bits_of_a_member_are_the_same_everywhere():
    start, configs = torch.func.vmap(init)(random.split(random.key(5), 11)), sweep.sample(SPACE, 11)
    whole = fit(threads=2)
    assert same(whole, fit(threads=2))
    assert same(whole, fit(threads=1))
    assert same(whole, fit(threads=3))
    assert same(whole, fit(threads=2, chunk_size=4))
    for index in (torch.tensor([7]), torch.tensor([3, 10]), torch.arange(11).flip(0), torch.arange(11).repeat(8)):
        some = fit(threads=2, **part(configs, start, index))
        assert torch.equal(some.losses, whole.losses[:, index])
        assert all(
            torch.equal(x, y[index]) for x, y in zip(tree.leaves(some.params), tree.leaves(whole.params), strict=True)
        )


def test_the_bits_of_a_member_alone():
    """Large products, which several threads would share out."""
    start = {"w": torch.sin(torch.arange(400.0 * 300).view(400, 300)), "v": torch.cos(torch.arange(300.0))}
    rows = torch.sin(torch.arange(256.0 * 400)).view(256, 400)
    loss = lambda p, batch: ((batch[0] @ p["w"]).tanh() @ p["v"] / 30 - batch[1]).square().mean()
    options = {"loss_fn": loss, "batches": lambda step: (rows + step, rows[:, 0]), "steps": 3}
    configs = sweep.sample(SPACE, 3)
    whole = fit(start=start, configs=configs, threads=2, **options)
    for i in range(3):
        alone = fit(start=start, configs={k: x[i : i + 1] for k, x in configs.items()}, threads=2, **options)
        assert torch.equal(alone.losses[:, 0], whole.losses[:, i])


def test_batches_of_other_sizes_come_between():
    """All of one size, then some windows of two other sizes, then the first size again: steps as calls of C functions
    take turns with steps that Python takes part in."""

    def batches(step):
        g, n = torch.Generator().manual_seed(step), (9, 5, 7)[step % 2 + 1 if 3 <= step < 7 else 0]
        return torch.randn(n, 5, generator=g), torch.randint(3, (n,), generator=g)

    found, expected = (fit(batches=batches, steps=20, compile=compile) for compile in (True, False))
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)


def test_any_number_of_members_compiles_once(tmp_path, monkeypatch):
    from optfx.compiler.kernels.cpp import build

    monkeypatch.setattr(build, "folder", lambda: tmp_path)
    fit(20)
    files = sorted(tmp_path.iterdir())
    for n in (7, 3, 150):
        fit(n)
    assert sorted(tmp_path.iterdir()) == files


def test_nothing_imports_dynamo():
    """Which takes longer than all else before the first losses."""
    program = """
import sys
import torch, optfx
from torch.nn.functional import cross_entropy
optfx.sweep.fit(
    lambda config: optfx.adamw(config["rate"]), {"rate": torch.tensor([0.1, 0.2])},
    lambda p, batch: cross_entropy(batch[0] @ p["w"], batch[1]), {"w": torch.zeros(4, 3)},
    [(torch.ones(5, 4), torch.zeros(5, dtype=torch.long))], steps=3)
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_gradient_is_that_of_torch():
    params, batch = {"w": torch.randn(5, 3), "unused": torch.randn(2)}, (torch.randn(4, 5), torch.zeros(4).long())
    for loss in (
        lambda p, b: cross_entropy(b[0] @ p["w"], b[1]),
        lambda p, b: torch.func.grad(lambda w: cross_entropy(b[0] @ w, b[1]))(p["w"]).square().sum(),
    ):
        ours, theirs = grad_and_value(loss)(params, batch), torch.func.grad_and_value(loss)(params, batch)
        assert all(torch.equal(x, y) for x, y in zip(tree.leaves(ours), tree.leaves(theirs), strict=True))
        assert not any(x.requires_grad for x in tree.leaves(ours))
    for loss in (lambda p, b: p["w"].detach().sum(), lambda p, b: torch.tensor(1.0)):
        with pytest.raises(ValueError, match="the loss does not depend on params"):
            grad_and_value(loss)(params, batch)


def test_no_thread_is_left_behind_and_torch_has_its_threads():
    before = threading.active_count(), torch.get_num_threads()

    def failing(step):
        if step == 7:
            raise OSError("no such file")
        return batches(step)

    with pytest.raises(OSError, match="no such file"):
        fit(batches=failing)
    fit()
    assert (threading.active_count(), torch.get_num_threads()) == before


def test_a_loss_that_cannot_be_captured_runs_under_vmap():
    def branching(params, batch):
        return loss_fn(params, batch) * (2.0 if float(batch[0].sum()) > 0 else 1.0)

    expected = fit(loss_fn=branching, compile=False)
    with pytest.warns(UserWarning, match="loss_fn is not captured, and runs under vmap"):
        found = fit(loss_fn=branching)
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)


def test_a_loss_that_asks_whether_a_tensor_is_a_conjugate():
    def asking(params, batch):
        z = torch.view_as_complex(batch[0][:, :4].reshape(-1, 2)).conj()
        return loss_fn(params, batch) * (2.0 if z.is_conj() else 1.0)

    expected = fit(loss_fn=asking, compile=False)
    with pytest.warns(UserWarning, match="is_conj depends on a view"):
        found = fit(loss_fn=asking)
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", [
    lambda x, y: (x.T.contiguous().T, y),
    lambda x, y: (x[:, ::2].repeat_interleave(2, 1)[:, :5], y.flip(0)[::1]),
    lambda x, y: (torch.cat([x, x], 1)[:, :5], torch.stack([y, y], 1)[:, 0]),  # as tokens and the next ones often are
    lambda x, y: (x[:1].expand(9, 5), y[:1].expand(9)),
], ids=["transposed", "steps", "slices", "expanded"])  # fmt: skip
@pytest.mark.parametrize("own", [False, True], ids=["shared", "of each member"])
def test_batches_may_lie_in_memory_in_any_way(form, own):
    """In some steps, and not in others."""

    drawn = [batches(step) for step in range(STEPS)]

    def strange(step, key=None):
        x, y = drawn[step]
        x = x if key is None else x + random.uniform(key, x.shape)
        return form(x, y) if step % 3 != 1 else tuple(z.contiguous() for z in form(x, y))

    given = (lambda step, key: strange(step, key)) if own else (lambda step: strange(step))
    flat = lambda params, batch: loss_fn(params, (batch[0].flatten().view(9, 5), batch[1].flatten()))  # a copy, or none
    expected, found = (fit(loss_fn=flat, batches=given, compile=compile) for compile in (False, True))
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_another_one_at_each_call():
    def counting():
        calls = []

        def loss(params, batch):
            calls.append(None)
            return loss_fn(params, batch) * (1.0 + 0.1 * len(calls))

        return loss

    with pytest.warns(UserWarning, match="it does something else the second time"):
        fit(loss_fn=counting())


def test_values_of_the_first_batch_are_no_part_of_a_program():
    """Torch does not tell of `torch.Tensor([x])`."""
    loss = lambda params, batch: loss_fn(params, batch[:2]) * torch.Tensor([batch[2][0]])[0]
    weighted = lambda step: (*batches(step), torch.tensor([1.0 + step]))
    with pytest.warns(UserWarning, match="it does something else with another batch"):
        found = fit(loss_fn=loss, batches=weighted)
    expected = fit(loss_fn=loss, batches=weighted, compile=False)
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("captured", [True, False])
def test_no_batch_is_drawn_before_a_step_that_may_see_it(captured):
    """`batches` changes a number that the loss reads, which is seen with the second batch."""
    scale = [0.0]

    def changing(step):
        scale[0] = 1.0 + step
        return batches(step)

    def scaled(params, batch):
        return loss_fn(params, batch) * scale[0] * (1.0 if captured else float(batch[1].sum() * 0 + 1))

    with pytest.warns(UserWarning, match="loss_fn is not captured"):
        found = fit(loss_fn=scaled, batches=changing, threads=2)
    expected = fit(loss_fn=scaled, batches=changing, compile=False)
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)


def test_one_batch_is_drawn_at_a_time_where_the_loss_is_not_captured_any_more():
    scale = [1.0]

    def changing(step):
        scale[0] = 1.0 + max(0, step - 5)
        x, y = batches(step)
        return (x, y) if step < 6 else (x.numpy(), y)

    def scaled(params, batch):
        return loss_fn(params, (torch.as_tensor(batch[0]), batch[1])) * scale[0]

    losses = []
    for compile in (True, False):
        trainer = sweep.Trainer(make_optimizer, scaled, init, changing, compile=compile)
        population, _ = trainer.train(trainer.start(sweep.sample(SPACE, 5)), 6)
        with pytest.warns(UserWarning, match="not captured") if compile else contextlib.nullcontext():
            losses.append(trainer.train(population, 6)[1])
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)


def test_a_batch_of_something_else():
    loss = lambda params, batch: loss_fn(params, (torch.from_numpy(batch[0]), batch[1]))
    arrays = lambda step: (batches(step)[0].numpy(), batches(step)[1])
    with pytest.warns(UserWarning, match="a batch holds a ndarray; dicts, .* are captured"):
        found = fit(loss_fn=loss, batches=arrays)
    torch.testing.assert_close(found.losses, fit(compile=False).losses, rtol=1e-4, atol=1e-5)


def test_a_batch_of_a_class_of_the_user_is_named_and_a_record_is_captured():
    @dataclasses.dataclass
    class Batch:
        x: torch.Tensor
        y: torch.Tensor

    loss = lambda params, batch: loss_fn(params, (batch.x, batch.y))
    with pytest.warns(UserWarning, match="a batch holds a Batch; .*optfx.tree.record"):
        fit(loss_fn=loss, batches=lambda step: Batch(*batches(step)))

    @tree.record
    class Recorded:
        x: torch.Tensor
        y: torch.Tensor

    assert same(fit(loss_fn=loss, batches=lambda step: Recorded(*batches(step))), fit())


def test_the_bits_of_a_convolution():
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    start = tree.map(lambda x: x + 0.1 * torch.sin(torch.arange(40.0)).view(-1, *[1] * x.ndim), optfx.params(model))
    images = lambda step: (torch.cos(step + torch.arange(8.0 * 2 * 6 * 6)).view(8, 2, 6, 6), torch.arange(8) % 3)
    loss = lambda params, batch: cross_entropy(functional_call(model, params, batch[0]), batch[1])
    configs = sweep.sample(SPACE, 40)
    whole = fit(loss_fn=loss, batches=images, start=sweep.stacked(start), configs=configs, threads=2)
    for index in (torch.tensor([5]), torch.arange(33), torch.arange(40).flip(0)):
        some = fit(loss_fn=loss, batches=images, threads=1, **part(configs, start, index))
        assert torch.equal(some.losses, whole.losses[:, index])


def test_a_loss_that_changes_late_is_told():
    scale = [1.0]

    def changing(step):
        scale[0] = 1.0 if step < 8 else 2.0
        return batches(step)

    with pytest.warns(UserWarning, match="when it was captured"):
        fit(loss_fn=lambda params, batch: loss_fn(params, batch) * scale[0], batches=changing)


def test_tensors_from_outside_are_read_at_each_step():
    scale = torch.tensor(1.0)

    def changing(step):
        scale.fill_(1.0 + step)
        return batches(step)

    scaled = lambda params, batch: loss_fn(params, batch) * scale
    found = [fit(loss_fn=scaled, batches=changing, compile=c, threads=2) for c in (True, False)]
    torch.testing.assert_close(found[0].losses, found[1].losses, rtol=1e-4, atol=1e-5)

    def changing_late(step):
        if step > 7:
            scale.fill_(2.0)
        return batches(step)

    with pytest.raises(RuntimeError, match="batches changes a tensor that loss_fn reads"):
        fit(loss_fn=scaled, batches=changing_late, threads=2)


def test_a_batch_may_be_filled_again():
    x, y = torch.empty(9, 5), torch.empty(9, dtype=torch.int64)

    def filling(step):
        for own, new in zip((x, y), batches(step), strict=True):
            own.copy_(new)
        return x, y

    assert same(fit(batches=filling, threads=2), fit(threads=2))


def test_batches_of_several_shapes_and_with_numbers():
    def several(step):
        x, y = batches(step)
        return x[: 5 + step % 3], y[: 5 + step % 3], 1.0 + step % 2

    scaled = lambda params, batch: loss_fn(params, batch[:2]) * batch[2]
    found, expected = (fit(loss_fn=scaled, batches=several, compile=c) for c in (True, False))
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="more than 8 kinds of batches"):
        many = fit(loss_fn=scaled, batches=lambda step: (*batches(step), 1.0 + step), compile=True)
    expected = fit(loss_fn=scaled, batches=lambda step: (*batches(step), 1.0 + step), compile=False)
    torch.testing.assert_close(many.losses, expected.losses, rtol=1e-4, atol=1e-5)


def test_code_of_the_user_runs_in_one_thread_at_a_time():
    """`functional_call` changes its module for a while."""
    inside = []

    def exclusive(params, batch):
        assert not inside
        inside.append(threading.get_ident())
        time.sleep(0.001)
        loss = loss_fn(params, batch[:2]) * batch[2]
        inside.clear()
        return loss

    with pytest.warns(UserWarning, match="more than 8 kinds of batches"):
        fit(loss_fn=exclusive, batches=lambda step: (*batches(step), 1.0 + step), threads=2, steps=24)


def test_an_optimizer_that_is_not_fused_runs_under_vmap(monkeypatch):
    def refuse(self, params, state):
        raise TypeError("nothing of the kind")

    monkeypatch.setattr(optfx.fuse, "init", refuse)
    with pytest.warns(UserWarning, match="is not fused, and runs under vmap, which is slower: nothing of the kind"):
        found = fit()
    torch.testing.assert_close(found.losses, fit(compile=False).losses, rtol=1e-4, atol=1e-5)


def test_value_and_noise_and_plateau():
    def make(config):
        return optfx.chain(
            optfx.add_noise(config["rate"], 0.5, 0),
            optfx.adam(config["rate"], b1=config["b1"]),
            optfx.reduce_on_plateau(patience=2, factor=0.5),
            optfx.clip(config["limit"]),
        )

    start = sweep.stacked(torch.func.vmap(init)(random.split(random.key(5), 11)))
    found, expected = (
        sweep.fit(make, sweep.sample(SPACE, 11), loss_fn, start, batches, steps=STEPS, progress=False, compile=c)
        for c in (True, False)
    )
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-3, atol=1e-4)
