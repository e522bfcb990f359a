"""Train without a schedule, and read the model at any time: Schedule-Free against a cosine.

The transformer of `char_transformer.py`, made smaller, learns to write the source code of torch. With AdamW and a
cosine the loss comes down as the rate does, and the length of the run must be known before it begins: three lengths
take three runs. `schedule_free_adamw` warms its rate up and keeps it. It leads by an average of its steps, and that
average, which `tx.eval_params(state, params)` returns, is good at any time: one run takes the place of the three.

Both were tuned by hand at the full length, from other seeds: the rate (5e-3 to 5e-2), the decay (0.01 to 0.3), the
warmup of the cosine (a twentieth to a quarter of the run), and for Schedule-Free `b1` (0.9 to 0.98) and `r`, by which
later steps count more in the average, as suits a run as short as this.

    python examples/schedule_free.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from char_transformer import Transformer, draw_batch, evaluate, loss_of, read
from torch import Tensor

import optfx
from optfx import select
from optfx.core import GradientTransformation


def with_cosine(steps: int) -> GradientTransformation:
    rate = optfx.warmup_cosine_decay_schedule(0.0, 2e-2, warmup_steps=steps // 4, decay_steps=steps)
    return optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.adamw(rate, b2=0.99, weight_decay=0.3, mask=select.ndim(min=2)),
    )


def without_schedule(warmup: int) -> GradientTransformation:
    return optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.schedule_free_adamw(4e-2, warmup, b2=0.99, weight_decay=0.1, r=2.0, mask=select.ndim(min=2)),
    )


def main(
    steps: int = 800, warmup: int = 100, every: int = 40, width: int = 64, depth: int = 2, out: str | Path = "out"
) -> dict[str, Tensor]:
    text, validation, alphabet = read()
    held = draw_batch(validation, torch.Generator().manual_seed(7), size=256)

    def train(tx: GradientTransformation, steps: int) -> Tensor:
        """The loss on held-out text at every so many steps."""
        torch.manual_seed(5)
        model, generator = Transformer(len(alphabet), width, depth), torch.Generator().manual_seed(6)
        opt = optfx.fuse(tx)
        params, state = opt.init(model)
        losses = []
        for i in range(steps):
            model.zero_grad()
            loss_of(model, draw_batch(text, generator)).backward()
            params, state = opt.step(optfx.grads(model), state, params)
            if (i + 1) % every == 0:
                losses.append(evaluate(model, tx.eval_params(state, params), held))
        return torch.stack(losses)

    lengths = [steps // 4, steps // 2, steps]
    found = {"schedule-free": train(without_schedule(warmup), steps)}
    found |= {f"cosine of {length}": train(with_cosine(length), length) for length in lengths}
    print(f"Held-out loss, in nats per character:\n\n{'after steps':16}" + "".join(f"{n:>10}" for n in lengths))
    for name, losses in found.items():
        print(f"{name:16}" + "".join(f"{losses[n // every - 1]:10.3f}" for n in lengths if n <= every * len(losses)))
    draw(found, every, Path(out))
    return found


def draw(found: dict[str, Tensor], every: int, out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    for (name, losses), color in zip(found.items(), ["#0072b2", "#f0b27a", "#e67e22", "#a04000"], strict=True):
        at = torch.arange(1, len(losses) + 1) * every
        ax.plot(at, losses, color=color, lw=2, label=name)
        ax.plot(at[-1], losses[-1], "o", color=color)
    ax.set(xlabel="step", ylabel="nats per character, held-out text")
    ax.legend(frameon=False)
    ax.set_title("An average that may be read at any time", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "schedule_free.png", dpi=150)


if __name__ == "__main__":
    main()
