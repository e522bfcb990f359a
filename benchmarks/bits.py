"""Fewer bits: AdamW whose states, or parameters too, have fewer bits than float32, beside AdamW in float32.

For each form the memory of the states, the time of a fused step at several sizes, timed in turn with the step in
float32, and the loss of the character model of `examples/char_transformer.py`, trained on the same batches.

    python benchmarks/bits.py                       # rewrites its section of the page
    python benchmarks/bits.py --sizes blocks148 --steps 0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import torch
from sizes import SIZES, Tensors, gradients, parameters, titled

import optfx
from optfx import tree
from optfx.combinators.codecs import eight_bits, four_bits, fp8, half

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import char_transformer

BF16 = torch.bfloat16
BYTES = {"mu": eight_bits(), "nu": eight_bits(signed=False)}
NIBBLES = {"mu": four_bits(), "nu": four_bits(signed=False)}
FORMS: dict[str, tuple[Callable[[Any], Any], torch.dtype]] = {
    "states in eight bits": (lambda tx: optfx.stored(tx, BYTES), torch.float32),
    "states in fp8": (lambda tx: optfx.stored(tx, {"mu": fp8(), "nu": fp8()}), torch.float32),
    "states in bf16": (lambda tx: optfx.stored(tx, {"mu": half(), "nu": half()}), torch.float32),
    "states in four bits": (lambda tx: optfx.stored(tx, NIBBLES), torch.float32),
    "parameters and states in bf16": (lambda tx: tx, BF16),
    "the same, compensated": (lambda tx: optfx.chain(tx, optfx.compensate()), BF16),
    "the same, with masters in float32": (optfx.master_weights, BF16),
}


class Fused:
    def __init__(self, form: str, params: Tensors, grads: Tensors) -> None:
        make, dtype = FORMS.get(form, (lambda tx: tx, torch.float32))
        self.grads = tree.cast(grads, dtype)
        self.opt = optfx.fuse(make(optfx.adamw(1e-3)))
        self.params, self.state = self.opt.init(tree.cast(params, dtype))

    @property
    def memory(self) -> int:
        return sum(x.nbytes for x in tree.leaves(self.state))

    def step(self) -> None:
        self.params, self.state = self.opt.step(self.grads, self.state, self.params)


def steps(size: str, rounds: int) -> str:
    """The table of one size."""
    params, grads, rows = parameters(SIZES[size][1]), gradients(SIZES[size][1], 1), []
    plain = Fused("float32", params, grads)
    for form in FORMS:
        narrow = Fused(form, params, grads)
        times = measure.paired(plain.step, narrow.step, rounds, warm=2)
        memory = narrow.memory / plain.memory
        rows.append([form, f"{memory:.3f}", measure.milliseconds(times.b), times.ratio()])
    header = ["", "memory of the states / float32's", "ms a step", "step / float32's"]
    return f"{titled(size)}\n\n{measure.table(header, rows)}"


def trained(make: Callable[[Any], Any], n: int) -> tuple[float, float]:
    """The loss of the last tenth of a training, and that on text which was not seen."""
    train, validation, alphabet = char_transformer.read()
    held = char_transformer.draw_batch(validation, torch.Generator().manual_seed(1), size=256)
    torch.manual_seed(0)
    model, generator = char_transformer.Transformer(len(alphabet)), torch.Generator().manual_seed(2)
    opt, losses = optfx.fuse(make(char_transformer.make_optimizer(n))), []
    params, state = opt.init(model)
    for _ in range(n):
        model.zero_grad()
        loss = char_transformer.loss_of(model, char_transformer.draw_batch(train, generator))
        loss.backward()
        params, state = opt.step(optfx.grads(model), state, params)
        losses.append(loss.item())
    return sum(losses[-n // 10 :]) / (n // 10), char_transformer.evaluate(model, params, held).item()


def losses(n: int) -> str:
    """The table of trainings of n steps."""
    forms = {"float32": lambda tx: tx} | {form: make for form, (make, dtype) in FORMS.items() if dtype != BF16}
    found = {form: trained(make, n) for form, make in forms.items()}
    (last, unseen), rows = found["float32"], []
    for form, (mine, other) in found.items():
        rows.append([form, f"{mine:.4f}", f"{100 * (mine / last - 1):+.2f} %", f"{100 * (other / unseen - 1):+.2f} %"])
    header = ["", "loss", "beside float32", "on text that was not seen"]
    return f"**The character model, {n} steps**, mean loss of the last tenth\n\n{measure.table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["big4", "blocks148"], choices=SIZES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=600, help="of the character model; 0 for none")
    given = parser.parse_args()
    text = [measure.machine(), *(steps(size, given.rounds) for size in given.sizes)]
    measure.write("bits", "\n\n".join([*text, losses(given.steps)] if given.steps else text))


if __name__ == "__main__":
    main()
