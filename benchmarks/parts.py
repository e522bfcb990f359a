"""What the parts of the catalogue cost: memory in multiples of the parameters, and a fused step beside AdamW's.

Every row is an optimizer that is ready to train with; a modifier or a wrapper stands around AdamW or in it. The step is
that of `optfx.fuse`, and is timed in turn with the step of fused `optfx.adamw`, in one process.

    python benchmarks/parts.py                      # rewrites its section of docs/choose-parts.md
    python benchmarks/parts.py --only lion adopt --rounds 15
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
from sizes import SIZES, Tensors, gradients, parameters

import optfx

PAGE = Path(__file__).parent.parent / "docs" / "choose-parts.md"
SIZE = "blocks76"
RATE, DECAY = 1e-3, 1e-4


def adam(*before: Any, after: tuple[Any, ...] = (), last: Any = None) -> Any:
    """AdamW with parts before the rule and after it, and another last part than its learning rate."""
    decay = optfx.add_decayed_weights(DECAY)
    return optfx.chain(*before, optfx.scale_by_adam(), *after, decay, last or optfx.scale_by_learning_rate(RATE))


def decayed_by(decay: Any) -> Any:
    return optfx.chain(optfx.scale_by_adam(), decay, optfx.scale_by_learning_rate(RATE))


MOMENTUM = optfx.sgd(RATE, momentum=0.9)

PARTS: dict[str, dict[str, Callable[[], Any]]] = {
    "rules": {
        "sgd": lambda: optfx.sgd(RATE),
        "sgd with momentum": lambda: MOMENTUM,
        "qhm": lambda: optfx.qhm(RATE),
        "lion": lambda: optfx.lion(RATE),
        "signum": lambda: optfx.signum(RATE),
        "tiger": lambda: optfx.tiger(RATE),
        "rmsprop": lambda: optfx.rmsprop(RATE),
        "adagrad": lambda: optfx.adagrad(RATE),
        "adamw": lambda: optfx.adamw(RATE),
        "nadamw": lambda: optfx.nadamw(RATE),
        "amsgrad": lambda: optfx.amsgrad(RATE),
        "radam": lambda: optfx.radam(RATE),
        "adabelief": lambda: optfx.adabelief(RATE),
        "yogi": lambda: optfx.yogi(RATE),
        "adamaxw": lambda: optfx.adamaxw(RATE),
        "adan": lambda: optfx.adan(RATE),
        "adopt": lambda: optfx.adopt(RATE),
        "laprop": lambda: optfx.laprop(RATE),
        "adam_atan2": lambda: optfx.adam_atan2(RATE),
        "qhadam": lambda: optfx.qhadam(RATE),
        "ademamix": lambda: optfx.ademamix(RATE),
        "simplified_ademamix": lambda: optfx.simplified_ademamix(RATE),
        "optimistic_adam_v2": lambda: optfx.optimistic_adam_v2(RATE),
        "madgrad": lambda: optfx.madgrad(RATE),
        "grams": lambda: optfx.grams(RATE),
        "stableadamw": lambda: optfx.stableadamw(RATE),
        "lamb": lambda: optfx.lamb(RATE),
        "lars": lambda: optfx.lars(RATE),
        "novograd": lambda: optfx.novograd(RATE),
        "sm3": lambda: optfx.sm3(RATE),
        "fromage": lambda: optfx.fromage(RATE),
        "adafactor": lambda: optfx.adafactor(RATE),
        "came": lambda: optfx.came(RATE),
    },
    "modifiers of AdamW": {
        "clip_by_global_norm": lambda: adam(optfx.clip_by_global_norm(1.0)),
        "adaptive_grad_clip": lambda: adam(optfx.adaptive_grad_clip(0.01)),
        "clip_spikes": lambda: adam(optfx.clip_spikes()),
        "mars": lambda: adam(optfx.mars()),
        "orthograd": lambda: adam(optfx.orthograd()),
        "grokfast": lambda: adam(optfx.grokfast()),
        "cautious": lambda: adam(after=(optfx.cautious(),)),
        "cautious_weight_decay": lambda: decayed_by(optfx.cautious_weight_decay(DECAY)),
        "proximal_weight_decay": lambda: optfx.chain(optfx.scale_by_adam(), optfx.proximal_weight_decay(RATE, DECAY)),
        "anchored decay": lambda: decayed_by(optfx.anchored(optfx.add_decayed_weights(DECAY))),
        "relative_update": lambda: adam(after=(optfx.relative_update(),)),
        "hyperball": lambda: optfx.chain(optfx.scale_by_adam(), optfx.hyperball(RATE)),
        "params_ema": lambda: optfx.chain(optfx.adamw(RATE), optfx.params_ema(0.999)),
    },
    "wrappers": {
        "accumulate, 4": lambda: optfx.accumulate(optfx.adamw(RATE), 4),
        "lookahead": lambda: optfx.lookahead(optfx.adamw(RATE), 5, optfx.sgd(0.5)),
        "schedule_free_adamw": lambda: optfx.schedule_free_adamw(RATE),
        "gpa": lambda: optfx.gpa(optfx.adamw(RATE)),
        "ema_nesterov": lambda: optfx.ema_nesterov(optfx.adamw(RATE)),
        "graft": lambda: optfx.chain(
            optfx.graft(optfx.scale_by_adam(), optfx.trace(0.9)), optfx.scale_by_learning_rate(RATE)
        ),
    },
}


class Fused:
    def __init__(self, tx: Any, params: Tensors) -> None:
        self.opt = optfx.fuse(tx)
        self.params, self.state = self.opt.init(params)
        self.memory = sum(x.nbytes for x in optfx.tree.leaves(self.state)) / sum(x.nbytes for x in params.values())

    def step(self, grads: Tensors) -> None:
        self.params, self.state = self.opt.step(grads, self.state, self.params)


def row(name: str, make: Callable[[], Any], rounds: int) -> list[str]:
    shapes = SIZES[SIZE][1]
    grads = gradients(shapes, 1)
    adamw, it = (Fused(tx, parameters(shapes)) for tx in (optfx.adamw(RATE), make()))
    times = measure.paired(lambda: adamw.step(grads), lambda: it.step(grads), rounds=rounds, steps=3, warm=3)
    return [f"`{name}`" if name.isidentifier() else name, f"{it.memory:.2f}", times.ratio()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", help="some rows, which are shown and not written")
    args = parser.parse_args()
    text = [f"{measure.machine('optfx')} {SIZES[SIZE][0]}."]
    for kind, parts in PARTS.items():
        rows = []
        for name, make in parts.items():
            if not args.only or name in args.only:
                rows.append(row(name, make, args.rounds))
                print(*rows[-1], flush=True)
        header = [kind, "memory, in parameters", "time of a step, in AdamW's (quartiles)"]
        text.append(measure.table(header, rows))
    if not args.only:
        measure.write("cost", "\n\n".join(text), PAGE)


if __name__ == "__main__":
    main()
