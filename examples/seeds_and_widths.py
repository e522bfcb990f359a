"""What is better, and what is luck: three widths, four learning rates, and five seeds of each.

You learn that a seed is a setting like any other, so that repetitions train beside each other and cost one more axis;
that a width is one too, though it changes the program: members of one width train together, and one result holds all.
The picture has a band for each setting, from the worst of its seeds to the best.

    python examples/seeds_and_widths.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy

import optfx
from optfx import random, sweep


def main(
    steps: int = 200,
    widths: tuple[int, ...] = (8, 16, 64),
    seeds: int = 5,
    out: str | Path = "out",
    compile: bool = True,
) -> sweep.Result:
    torch.manual_seed(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float() / 16
    train, validation = torch.randperm(len(images)).split([1077, 720])

    def init(key: Tensor, config) -> dict[str, Tensor]:
        hidden, last = random.split(key)
        width = config["width"]
        return {
            "w": random.normal(hidden, (64, width)) / 8,
            "b": torch.zeros(width),
            "v": random.normal(last, (width, 10)) / width**0.5,
        }

    def batches(step: int, key: Tensor) -> tuple[Tensor, Tensor]:
        """Each seed draws its own."""
        rows = train[(random.uniform(random.fold_in(key, step), (64,)) * len(train)).long()]
        return images[rows], labels[rows]

    def loss_fn(params, batch) -> Tensor:
        x, y = batch
        return cross_entropy(torch.relu(x @ params["w"] + params["b"]) @ params["v"], y)

    result = sweep.fit(
        lambda config: optfx.adamw(optfx.cosine_decay_schedule(config["rate"], steps)),
        sweep.grid({"width": widths, "rate": [1e-3, 3e-3, 1e-2, 3e-2], "seed": range(seeds)}),
        loss_fn,
        init,
        batches,
        steps=steps,
        every=steps // 20,
        evaluate=lambda params: {"val_loss": loss_fn(params, (images[validation], labels[validation]))},
        structure=["width"],
        compile=compile,
    )
    print(result)
    by_setting = result.metrics["val_loss"].view(len(widths), 4, seeds)
    print(f"\nvalidation loss, mean of {seeds} seeds and how far they are apart\n")
    print("width" + "".join(f"{f'rate {rate}':>20}" for rate in ("0.001", "0.003", "0.01", "0.03")))
    for width, row in zip(widths, by_setting, strict=True):
        spread = row.amax(-1) - row.amin(-1)
        cells = (f"{m:.3f} ({s:.3f})" for m, s in zip(row.mean(-1).tolist(), spread.tolist(), strict=True))
        print(f"{width:5}" + "".join(f"{cell:>20}" for cell in cells))
    result.plot(Path(out) / "seeds_and_widths.png", kind="seeds")
    return result


if __name__ == "__main__":
    main()
