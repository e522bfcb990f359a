"""Train with parameters that are spread over processes, by `fully_shard` (FSDP2).

Each of two processes holds half of every parameter and half of the optimizer's memory. The optimizer is written as for
one process: the norm that gradients are clipped by is that of all parts, masks go by name, and the state is spread as
the parameters are. The result is that of one process.

    python examples/fsdp2.py
"""

import multiprocessing
import os
import tempfile

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.fsdp import fully_shard

import optfx
from optfx import select

RANKS = 2


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 51), nn.ReLU(), nn.Linear(51, 10))


def train(net, steps):
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 16, torch.tensor(digit)
    tx = optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.adamw(optfx.cosine_decay_schedule(3e-3, steps), weight_decay=0.01, mask=select.ndim(min=2)),
    )

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optfx.apply_updates(params, updates), state

    step = optfx.donate(step, (0, 1))  # in place: into the module's own parameters
    params = optfx.params(net)
    state = tx.init(params)
    losses = []
    for k in range(steps):
        rows = torch.randint(len(x), (64,), generator=torch.Generator().manual_seed(k))
        net.zero_grad()
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])  # here all processes see the same rows
        loss.backward()
        params, state = step(params, state, optfx.grads(net))
        losses.append(loss.item())
    return losses, state


def process(rank, steps, folder, results):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    net = model()
    for layer in net:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(net)
    losses, state = train(net, steps)
    mine = sum(x.to_local().numel() if hasattr(x, "to_local") else x.numel() for x in optfx.tree.leaves(state))
    results.put((rank, losses, mine))
    dist.barrier()
    dist.destroy_process_group()


def main(steps: int = 100) -> dict[str, list[float]]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    alone, state = train(model(), steps)
    everything = sum(x.numel() for x in optfx.tree.leaves(state))
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        running = [context.Process(target=process, args=(rank, steps, folder, results)) for rank in range(RANKS)]
        for one in running:
            one.start()
        found = sorted(results.get() for _ in range(RANKS))
        for one in running:
            one.join()
    _, together, _ = found[0]
    print(f"loss: {together[0]:.4f} at first, {together[-1]:.4f} in the end; with one process {alone[-1]:.4f}")
    for rank, _, mine in found:
        print(f"process {rank} holds {mine} of the {everything} numbers in the state")
    return {"alone": alone, "together": together, "held": [mine / everything for *_, mine in found]}


if __name__ == "__main__":
    main()
