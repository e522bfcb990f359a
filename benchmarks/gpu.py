"""A first look at a GPU, in at most six minutes on a bare machine: what is right there, and one table of times.

It needs torch and optree, and no other package; apex and Triton are used if they are there. Each section stands alone:
one that fails says why, and the next goes on. What it finds is JSON, from which the page is written elsewhere.

    PYTHONPATH=. python benchmarks/gpu.py --out gpu.json     # on the machine with the GPU, or: make gpu
    PYTHONPATH=. python benchmarks/gpu.py --page gpu.json    # rewrites its section of the page
    PYTHONPATH=. python benchmarks/gpu.py --small            # to try it, on a CPU too
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import measure
import torch
from sizes import SIZES, squares, transformer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import optfx
from optfx import select, sweep
from optfx.interop import TorchOptimizer

ROOT = Path(__file__).parent.parent
ALL = 360.0  # seconds
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
LR, DECAY = 1e-3, 1e-2
BIG = {"big4": ("4 leaves of 8192 x 8192", squares(4, 8192))}
XL = ("1.6 billion parameters of GPT-2 XL", transformer(48, 1600, 50257, 1024))
Tensors = dict[str, Tensor]


def ready() -> None:
    """Wait for the device."""
    if GPU:
        torch.cuda.synchronize()


def ms(f: Callable[[], Any], rounds: int = 20, warm: int = 5) -> float:
    """The median time of a call, which waits for the device."""
    for _ in range(warm):
        f()
    times = []
    for _ in range(rounds):
        ready()
        start = time.perf_counter()
        f()
        ready()
        times.append(time.perf_counter() - start)
    return round(1e3 * median(times), 4)


def random_leaves(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> Tensors:
    return {name: 0.02 * torch.randn(shape, device=DEVICE, dtype=dtype) for name, shape in shapes.items()}


def copied(nbytes: int, rounds: int = 20) -> dict[str, float]:
    """A copy that reads and writes so many bytes in all."""
    one, other = (torch.empty(nbytes // 2, device=DEVICE, dtype=torch.uint8) for _ in range(2))
    took = ms(lambda: other.copy_(one), rounds)
    return {"copy": took, "copy, GB/s": round(nbytes / took / 1e6, 1)}


def recipe() -> Any:
    return optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.scale_by_adam(),
        optfx.masked(optfx.add_decayed_weights(DECAY), select.ndim(min=2)),
        optfx.scale_by_learning_rate(optfx.cosine_decay_schedule(LR, 1000)),
    )


# ---- what is right ------------------------------------------------------------------------------


def apart(a: Any, b: Any) -> float:
    """The largest difference, relative to what is above one."""
    pairs = zip(optfx.tree.leaves(a), optfx.tree.leaves(b), strict=True)
    far = lambda x, y: ((x - y).abs() / y.abs().clamp(min=1)).nan_to_num(0.0)
    wide = lambda x: x.cpu().to(torch.complex128 if x.is_complex() else torch.float64)
    return max((far(wide(x), wide(y)).max().item() for x, y in pairs if x.numel()), default=0.0)


def trained(step: Callable[..., Any], state: Any, params: Any, steps: int = 2) -> Any:
    for k in range(steps):
        params, state = step(optfx.tree.map(lambda x, k=k: torch.sin((k + 2) * x), params), state, params)
    return params, state


def eager(tx: Any, params: Any, extra: dict[str, Any]) -> Any:
    def step(grads: Any, state: Any, params: Any) -> Any:
        updates, state = tx.update(grads, state, params, **extra)
        return optfx.apply_updates(params, updates), state

    return trained(step, tx.init(params), params)


def laws(seconds: float, limit: float = 1e-9) -> dict[str, Any]:
    """Every optimizer and every part in float64: on the device as on the CPU, and fused as in eager code."""
    from tests.registry import ROWS

    began, found = time.perf_counter(), {"rows": len(ROWS), "checked": 0, "fused by": {}, "apart": {}, "failed": {}}
    torch.manual_seed(0)
    params = {"w": torch.randn(33, 7), "b": torch.randn(5), "s": torch.randn(()), "big": torch.randn(70, 40)}
    params = {name: x.double() for name, x in params.items()}
    for row in ROWS:
        if time.perf_counter() - began > seconds:
            break
        found["checked"] += 1
        try:
            tx, there = row.make(**row.hypers), {name: x.to(DEVICE) for name, x in params.items()}
            extra = {name: x.to(DEVICE) if isinstance(x, Tensor) else x for name, x in row.extra.items()}
            mine = eager(tx, there, extra)
            opt = optfx.fuse(tx)
            fused = trained(lambda *a, opt=opt, extra=extra: opt.step(*a, **extra), *reversed(opt.init(there, **extra)))
            for line in str(opt.explain()).splitlines():
                by = line[line.index("[") + 1 : line.index("]")] if "[" in line else "as it is"
                if line.startswith("    "):
                    found["fused by"][by] = found["fused by"].get(by, 0) + 1
            far = {"eager": apart(mine, eager(tx, params, row.extra)), "fuse": apart(fused, mine)}
            narrow = "bf16" in row.id or "float32" in row.id
            if wrong := {k: x for k, x in far.items() if not x <= (1e-2 if narrow else limit)}:
                found["apart"][row.id] = wrong
        except Exception as error:
            found["failed"][row.id] = f"{type(error).__name__}: {str(error)[:200]}"
    return found


def dtypes() -> dict[str, float]:
    """The recipe in narrow dtypes: fused beside eager code, the largest difference in units of their rounding."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        torch.manual_seed(0)
        params, opt = random_leaves({"w": (300, 7), "b": (7,), "s": ()}, dtype), optfx.fuse(recipe())
        fused = trained(opt.step, *reversed(opt.init(params)))[0]
        found[str(dtype)] = apart(fused, eager(recipe(), params, {})[0]) / torch.finfo(dtype).eps
    return found


def captured() -> dict[str, Any]:
    """A fused step neither waits for the device nor allocates, and a CUDA graph of it is the same step."""
    if not GPU:
        return {"left out": "there is no GPU"}
    params = random_leaves(transformer(2, 64))
    grads = {name: torch.randn_like(x) for name, x in params.items()}
    ours, theirs = optfx.fuse(recipe()), optfx.fuse(recipe())
    (p, s), (q, t) = ours.init(params), theirs.init(params)
    for _ in range(3):
        ours.step(grads, s, p)
        theirs.step(grads, t, q)
    ready()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        theirs.step(grads, t, q)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    allocated = torch.cuda.memory_stats()["allocation.all.allocated"] - before
    ours.step(grads, s, p)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours.step(grads, s, p)  # noted, and not run
    for _ in range(5):
        graph.replay()
        theirs.step(grads, t, q)
    ready()
    return {"allocations": allocated, "apart after 5 replays": apart((p, s), (q, t)), "replay, ms": ms(graph.replay)}


def of_torch() -> dict[str, Any]:
    """`TorchOptimizer(compile=True)` under a GradScaler: as `torch.optim`, with a step of infinite gradients in it."""
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).to(DEVICE) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [
        TorchOptimizer(models[0].parameters(), optfx.adamw(LR, weight_decay=DECAY), compile=True),
        torch.optim.AdamW(models[1].parameters(), lr=LR, weight_decay=DECAY),
    ]
    x, y = torch.randn(8, 16, device=DEVICE), torch.randint(4, (8,), device=DEVICE)
    scales = []
    for model, optimizer in zip(models, optimizers, strict=True):
        scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**12)
        for k in range(6):
            optimizer.zero_grad()
            loss = cross_entropy(model(x * (float("inf") if k == 3 else 1.0)), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        scales.append(scaler.get_scale())
    mine, theirs = (dict(model.named_parameters()) for model in models)
    far = max((mine[name] - theirs[name]).abs().max().item() for name in mine)
    return {"apart": far, "scales": scales}


# ---- times --------------------------------------------------------------------------------------


def step(shapes: dict[str, tuple[int, ...]], compiled: bool) -> dict[str, Any]:
    """One AdamW step, and one step of the recipe, in milliseconds."""
    torch.manual_seed(0)
    params = random_leaves(shapes)
    grads = {name: torch.randn_like(x) for name, x in params.items()}
    found: dict[str, Any] = copied(7 * 4 * sum(x.numel() for x in params.values()))  # 4 are read, 3 written
    own = [nn.Parameter(x.clone()) for x in params.values()]
    for p, g in zip(own, grads.values(), strict=True):
        p.grad = g
    fused = torch.optim.AdamW(own, lr=LR, weight_decay=DECAY, fused=True)
    found["AdamW(fused=True)"] = ms(fused.step)
    found["AdamW(foreach=True)"] = ms(torch.optim.AdamW(own, lr=LR, weight_decay=DECAY, foreach=True).step)
    try:
        from apex.optimizers import FusedAdam  # pyright: ignore[reportMissingImports]

        found["apex"] = ms(FusedAdam(own, lr=LR, weight_decay=DECAY).step)
    except ImportError:
        pass
    if compiled:
        found["torch.compile(step)"] = ms(torch.compile(torch.optim.AdamW(own, lr=LR, weight_decay=DECAY).step))
    opt, start = optfx.fuse(optfx.adamw(LR, weight_decay=DECAY)), time.perf_counter()
    p, s = opt.init(params)
    opt.step(grads, s, p)
    ready()
    found["optfx, first step, s"] = round(time.perf_counter() - start, 2)
    found["optfx"] = ms(lambda: opt.step(grads, s, p))
    if GPU:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            opt.step(grads, s, p)
        found["optfx, CUDA graph"] = ms(graph.replay)
    whole = optfx.fuse(recipe())
    p2, s2 = whole.init(params)
    found["optfx, recipe"] = ms(lambda: whole.step(grads, s2, p2))
    found["clip_grad_norm_ + AdamW(fused=True)"] = ms(lambda: (torch.nn.utils.clip_grad_norm_(own, 1.0), fused.step()))
    return found


def masters(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Parameters and gradients in bfloat16, masters and moments in float32, beside a copy of as many bytes."""
    torch.manual_seed(0)
    params = random_leaves(shapes, torch.bfloat16)
    grads = {name: torch.randn_like(x) for name, x in params.items()}
    n = sum(x.numel() for x in params.values())
    opt = optfx.fuse(optfx.master_weights(optfx.adamw(LR, weight_decay=DECAY)))
    p, s = opt.init(params, copy=False)
    # of each: read gradient, read master and two moments, write them and the parameter
    moved = copied(n * (2 + 3 * 4 + 3 * 4 + 2), 10)
    return {"parameters": n, "optfx": ms(lambda: opt.step(grads, s, p), 10)} | moved


def members(n: int, steps: int = 100) -> dict[str, Any]:
    """A sweep of 64-128-10 networks, beside a loop over them and beside eager code under `vmap`; ms a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(DEVICE)
    x, y = torch.randn(128, 64, device=DEVICE), torch.randint(10, (128,), device=DEVICE)
    start = {name: p.clone() for name, p in optfx.params(model).items()}
    rates = torch.logspace(-4, -1, n, dtype=torch.float64)

    def loss_fn(params: Any, batch: Any) -> Tensor:
        return cross_entropy(functional_call(model, params, batch[0]), batch[1])

    def fit(steps: int, compile: bool) -> Any:
        make = lambda config: optfx.adamw(config["rate"])
        return sweep.fit(make, {"rate": rates}, loss_fn, start, [(x, y)], steps=steps, compile=compile, progress=False)

    found = {}
    for name, compile in {"optfx": True, "eager vmap": False}.items():
        result = fit(steps, compile)
        found[name], found[f"{name}, whole s"] = 1e3 * result.run_seconds / (steps - 1), round(result.seconds, 2)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def alone() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    found["a loop of torch"] = n * ms(alone)
    return {name: round(x, 3) for name, x in found.items()}


COLD = """
import time, torch, optfx
p = {f"w{i}": torch.randn(64, 64 + i % 7, device=DEVICE) for i in range(148)}
start = time.perf_counter()
opt = optfx.fuse(optfx.adamw(1e-3))
q, s = opt.init(p)
opt.step(p, s, q)
torch.cuda.synchronize() if DEVICE == "cuda" else None
print(time.perf_counter() - start)
"""


def cold() -> dict[str, float]:
    """Compile, init and first step of 148 leaves in a new process, twice: the first finds nothing on the disk."""
    with TemporaryDirectory() as place:
        caches = dict.fromkeys(("OPTFX_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"), place)
        command = [sys.executable, "-c", f"DEVICE = {DEVICE.type!r}\n{COLD}"]
        env = os.environ | caches | {"PYTHONPATH": str(ROOT)}
        once = lambda: float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
        return {name: round(once(), 2) for name in ("cold, s", "warm, s")}


# ---- all of it ----------------------------------------------------------------------------------


def sections(small: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    sizes = SIZES if small or not GPU else SIZES | BIG
    names = ["small1000"] if small else ["big4", "blocks76", "blocks148", "blocks388", "small1000"]
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "what is right": lambda: laws(5.0 if small else 90.0),
        "dtypes": dtypes,
        "one CUDA graph": captured,
        "TorchOptimizer": of_torch,
    }
    for name in names:
        compiled = GPU and name in ("big4", "blocks76")  # the others take minutes
        found[f"step: {sizes[name][0]}"] = lambda name=name, compiled=compiled: step(sizes[name][1], compiled)
    title, shapes = ("a small one", transformer(1, 32)) if small else XL
    if small or GPU:
        found[f"bfloat16 with masters: {title}"] = lambda: masters(shapes)
    for n in (8,) if small else (64, 256, 1024, 4096):
        found[f"sweep: {n} members"] = lambda n=n: members(n, 10 if small else 100)
    return found | {"compile": cold}


def run(small: bool) -> dict[str, Any]:
    began = time.perf_counter()
    card = torch.cuda.get_device_name() if GPU else measure.processor()
    out: dict[str, Any] = {"device": card, "torch": torch.__version__, "python": sys.version.split()[0]}
    for name, f in sections(small).items():
        start = time.perf_counter()
        if start - began > 0.85 * ALL:
            out[name] = "left out: there was no time"
            continue
        try:
            out[name] = f()
        except Exception as error:
            out[name] = f"failed: {type(error).__name__}: {str(error)[:500]}"
            traceback.print_exc(limit=-4)
        if GPU:
            torch.cuda.empty_cache()
        print(f"{name} ({time.perf_counter() - start:.0f} s): {json.dumps(out[name])}", flush=True)
    return out


def page(found: dict[str, Any]) -> str:
    """The tables of what was found."""
    text = [f"Measured on {found['device']}; Python {found['python']}, torch {found['torch']}; times in ms.", ""]
    for name, x in found.items():
        if not isinstance(x, dict):
            text += [f"**{name}**: {x}", ""] if name not in ("device", "torch", "python") else []
            continue
        rows = [[k, json.dumps(v) if isinstance(v, (dict, list)) else str(v)] for k, v in x.items()]
        text += [f"**{name}**", "", measure.table(["", ""], rows), ""]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--small", action="store_true", help="little of everything, to try the script")
    parser.add_argument("--page", type=Path, help="write the page from what was found, and measure nothing")
    args = parser.parse_args()
    if args.page is not None:
        measure.write("gpu", page(json.loads(args.page.read_text())))
        return
    args.out.write_text(json.dumps(run(args.small), indent=1))


if __name__ == "__main__":
    main()
