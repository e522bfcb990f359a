"""One step of optimizers for matrices: optfx side by side with torch.optim, pytorch_optimizer and HeavyBall.

The matrices of the blocks of a transformer go by the rule, all other leaves by AdamW; beside a peer that is
`torch.optim.AdamW(fused=True)`. SOAP and Shampoo do more at every tenth step: their times are the mean of ten.

    python benchmarks/matrix.py                     # rewrites its section of the page
    python benchmarks/matrix.py --sizes blocks148 --rules muon --rounds 15
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import heavyball
import measure
import pytorch_optimizer
import torch
from sizes import SIZES, Tensors, gradients, parameters, titled

import optfx
from optfx import select

RATE = 1e-3
STEPS = {"soap": 10, "shampoo": 10}  # that are timed together, else one
MATRICES = select.ndim(2, 2) & ~(select.path("token") | select.path("position"))
LABELS = {rule: select.label({rule: MATRICES}, default="adam") for rule in ("muon", "soap", "shampoo")}
BF16 = torch.bfloat16

Parameters = Sequence[torch.nn.Parameter]


class Fused:
    def __init__(self, params: Tensors, tx: Any):
        self.opt = optfx.fuse(tx)
        self.params, self.state = self.opt.init(params)

    def step(self, grads: Tensors) -> None:
        self.params, self.state = self.opt.step(grads, self.state, self.params)

    def memory(self) -> int:
        return sum(x.numel() * x.element_size() for x in optfx.tree.leaves(self.state))


class Eager:
    def __init__(self, params: Tensors, tx: Any):
        self.tx, self.params, self.state = tx, params, tx.init(params)

    @torch.no_grad()
    def step(self, grads: Tensors) -> None:
        updates, self.state = self.tx.update(grads, self.state, self.params)
        self.params = optfx.apply_updates(self.params, updates)

    memory = Fused.memory


class Peer:
    def __init__(self, params: Tensors, make: Callable[[Parameters], torch.optim.Optimizer]):
        self.params = {name: torch.nn.Parameter(p.clone()) for name, p in params.items()}
        labels = LABELS["muon"](params)
        others = [p for name, p in self.params.items() if labels[name] == "adam"]
        self.optimizers = [
            make([p for name, p in self.params.items() if labels[name] == "muon"]),
            torch.optim.AdamW(others, RATE, weight_decay=1e-4, fused=True),
        ]

    def step(self, grads: Tensors) -> None:
        for name, p in self.params.items():
            p.grad = grads[name]
        for optimizer in self.optimizers:
            optimizer.step()

    def memory(self) -> int:
        states = [optimizer.state_dict()["state"] for optimizer in self.optimizers]
        found = [x for x in optfx.tree.leaves(states) if isinstance(x, torch.Tensor)]
        return sum(x.numel() * x.element_size() for x in found)


# ---- what is compared ---------------------------------------------------------------------------


def muon() -> Any:
    torchs = {"bias_correction": False, "eps_is_floor": True, "ns_dtype": BF16}
    return optfx.muon(RATE, eps=1e-7, weight_decay=0.1, adam_weight_decay=1e-4, labels=LABELS["muon"], **torchs)


RULES: dict[str, tuple[Callable[[], Any], dict[str, Callable[[Parameters], torch.optim.Optimizer]]]] = {
    "muon": (
        muon,
        {
            "`torch.optim.Muon`": lambda ps: torch.optim.Muon(ps, RATE),
            "pytorch_optimizer": lambda ps: pytorch_optimizer.Muon([{"params": ps, "use_muon": True}], RATE),
            "HeavyBall": lambda ps: heavyball.Muon(ps, RATE),
        },
    ),
    "normuon": (
        lambda: optfx.normuon(RATE, ns_dtype=BF16, labels=LABELS["muon"]),
        {"pytorch_optimizer": lambda ps: pytorch_optimizer.NorMuon([{"params": ps, "use_muon": True}], RATE)},
    ),
    "soap": (
        lambda: optfx.soap(RATE, labels=LABELS["soap"]),
        {
            "pytorch_optimizer": lambda ps: pytorch_optimizer.SOAP(ps, RATE),
            "HeavyBall": lambda ps: heavyball.SOAP(ps, RATE, precondition_frequency=10),
        },
    ),
    "shampoo": (
        lambda: optfx.shampoo(RATE, labels=LABELS["shampoo"]),
        {"pytorch_optimizer": lambda ps: pytorch_optimizer.Shampoo(ps, RATE, preconditioning_compute_steps=10)},
    ),
}


def check_muon(ours: Any, theirs: Any) -> None:
    """Raise unless the numbers are torch's: bfloat16 rounds, in a batch otherwise than alone."""
    labels = LABELS["muon"](ours.params)
    for name, p in theirs.params.items():
        if labels[name] == "adam":  # optax looks ahead there, too
            continue
        torch.testing.assert_close(ours.params[name], p.detach(), rtol=0, atol=0.1 * RATE, msg=name)


def compare(rule: str, size: str, rounds: int) -> list[tuple[str, ...]]:
    make, peers = RULES[rule]
    shapes = SIZES[size][1]
    grads = gradients(shapes, 1)
    ours: dict[str, Any] = {
        "**optfx, `fuse`**": Fused(parameters(shapes), make()),
        "optfx, eager": Eager(parameters(shapes), make()),
    }
    begun = ours | {name: Peer(parameters(shapes), peer) for name, peer in peers.items()}
    for contender in begun.values():
        for _ in range(3):
            contender.step(grads)
    if rule == "muon":
        for contender in ours.values():
            check_muon(contender, begun["`torch.optim.Muon`"])
    first = next(iter(peers))
    rows, of_first = [], []
    for name, contender in begun.items():
        if name != first:
            a, b = lambda: begun[first].step(grads), lambda c=contender: c.step(grads)
            pair = measure.paired(a, b, rounds, steps=STEPS.get(rule, 1))
            rows.append((rule, name, measure.milliseconds(pair.b), pair.ratio(), megabytes(contender)))
            of_first += pair.a
    return [(rule, first, measure.milliseconds(of_first), "1", megabytes(begun[first])), *rows]


def megabytes(contender: Any) -> str:
    return f"{contender.memory() / 1e6:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["blocks76", "blocks148"])
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    heavyball.utils.compile_mode = None
    parts = [measure.machine("pytorch_optimizer", "heavyball")]
    for size in args.sizes:
        rows = []
        for rule in args.rules:
            rows += compare(rule, size, args.rounds)
            print(*rows, sep="\n", flush=True)
        header = ("rule", "by", "ms a step", "ratio (quartiles)", "state, MB")
        parts.append(f"{titled(size)}\n\n{measure.table(header, rows)}")
        print(parts[-1], end="\n\n", flush=True)
    if args.sizes == ["blocks76", "blocks148"] and args.rules == list(RULES):
        measure.write("matrix", "\n\n".join(parts))


if __name__ == "__main__":
    main()
