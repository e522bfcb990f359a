"""Spread a sweep over the workers of Ray, on this machine or on a cluster.

The members of a sweep are rows of a population, so any share of them may train anywhere. `executor=` says where; here
it is Ray, whose tasks are run again when a worker or a node dies. The result has the same bits as in one process, so it
does not matter how many nodes there were, or what became of them.

    python examples/ray_sweep.py

Needs `pip install "optfx[ray]"`. It starts Ray on this machine; with `address="auto"`, on a cluster's head node, the
members train on all nodes.
"""

from __future__ import annotations

import logging
import time

import ray
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import optfx
from optfx import sweep

BATCH = 128


def main(
    steps: int = 600,
    settings: int = 256,
    hidden: int = 64,
    parts: int = 8,
    address: str | None = None,
    compile: bool | str = True,
) -> dict[str, float]:
    torch.manual_seed(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float() / 16
    train, validation = torch.randperm(len(images)).split([1437, 360])
    order = train[torch.randint(len(train), (steps, BATCH))]
    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def loss_fn(params, batch) -> Tensor:
        return cross_entropy(functional_call(model, params, batch[0]), batch[1])

    space = {
        "rate": sweep.log_uniform(1e-4, 0.3),
        "b1": sweep.uniform(0.8, 0.98),
        "decay": sweep.log_uniform(1e-3, 1.0),
    }

    def fit(**where):
        return sweep.fit(
            lambda config: optfx.adamw(config["rate"], b1=config["b1"], weight_decay=config["decay"]),
            sweep.sample(space, settings),
            loss_fn,
            optfx.params(model),
            lambda t: (images[order[t]], labels[order[t]]),
            evaluate=lambda params: {"val_loss": loss_fn(params, (images[validation], labels[validation]))},
            rungs=[steps // 4, steps],
            policy=sweep.halve(2),
            compile=compile,
            **where,
        )

    began = time.perf_counter()
    ray.init(address=address, include_dashboard=False, logging_level=logging.ERROR)
    print(f"Ray: {time.perf_counter() - began:.1f} s to start, {ray.cluster_resources().get('CPU', 0):.0f} cores")
    spread = fit(executor=sweep.RayExecutor(num_cpus=1), parts=parts)
    ray.shutdown()
    print(f"{settings} settings in {parts} parts: {spread.seconds:.1f} s\n\n{spread.table(3)}\n")

    alone = fit()
    same = all(torch.equal(spread.params[name], alone.params[name]) for name in alone.params)
    print(f"in one process: {alone.seconds:.1f} s, and the same bits: {same}")
    return {"same": same, "val_loss": spread.best().metrics["val_loss"]}


if __name__ == "__main__":
    main()
