"""Run a function in several processes that form a gloo group."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

PRELOADED = [
    "optfx",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.debug",
]


def _main(f: Callable[..., Any], rank: int, world: int, store: str, results: Any, args: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        wait = datetime.timedelta(seconds=120)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=wait)
        # by value: torch's own way to send a tensor needs the sender alive when it is read
        results.put((rank, pickle.dumps(f(rank, world, *args)), None))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        results.put((rank, None, traceback.format_exc()))
        results.close()
        results.join_thread()  # until it is sent
        os._exit(1)  # the others may be waiting for this one


def run(f: Callable[..., Any], world: int, *args: Any) -> list[Any]:
    """`[f(rank, world, *args) for rank in range(world)]`, each in a process of its own.

    Args:
        f: module-level function whose result pickles; it fails by raising.
        world: how many.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        processes = [
            context.Process(target=_main, args=(f, rank, world, store, results, args), daemon=True)
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        found: dict[int, Any] = {}
        for _ in processes:
            rank, result, error = results.get(timeout=300)
            if error is not None:
                for process in processes:
                    process.kill()
                raise AssertionError(f"rank {rank} of {world}:\n{error}")
            found[rank] = pickle.loads(result)
        for process in processes:
            process.join(timeout=60)
    return [found[rank] for rank in range(world)]
