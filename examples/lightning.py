"""An optimizer of optfx in Lightning, which wants one of `torch.optim`.

A small network learns the handwritten digits by a recipe: clipping, AdamW without decay for biases, and a mean of the
weights beside it. `TorchOptimizer` makes a `torch.optim.Optimizer` of the whole chain, so that Lightning's trainer,
its schedulers, its precision and its checkpoints work as ever. Compare with the same recipe of torch's own parts.

    python examples/lightning.py
"""

import logging
import warnings

import pytorch_lightning as lightning  # "import lightning" would be this very file
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import optfx
from optfx import select
from optfx.interop import TorchOptimizer

RATE, DECAY = 3e-3, 0.1


class Digits(lightning.LightningModule):
    def __init__(self, make, width=64):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        self.make = make

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        optimizer = self.make(self.net)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def ours(net):
    tx = optfx.chain(
        optfx.adamw(RATE, weight_decay=DECAY, mask=select.ndim(min=2)),
        optfx.params_ema(0.98),
    )
    return TorchOptimizer(net.named_parameters(), tx)


def torchs(net):
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim < 2]
    return torch.optim.AdamW(
        [{"params": weights}, {"params": biases, "weight_decay": 0.0}], lr=RATE, weight_decay=DECAY
    )


def train(make, steps, data):
    module = Digits(make)
    trainer = lightning.Trainer(
        max_steps=steps, gradient_clip_val=1.0, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    torch.manual_seed(0)
    trainer.fit(module, DataLoader(data, batch_size=64, shuffle=True))
    return module.net, trainer.optimizers[0]


def main(steps: int = 200) -> dict[str, float]:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # few workers for the data, no validation: its advice
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 16, torch.tensor(digit)
    torch.manual_seed(0)
    train_rows, test_rows = torch.randperm(len(x)).split([1297, 500])
    data = TensorDataset(x[train_rows], y[train_rows])

    def accuracy(net):
        return (net(x[test_rows]).argmax(-1) == y[test_rows]).double().mean().item()

    net, optimizer = train(ours, steps, data)
    found = {"optfx": accuracy(net)}
    others, _ = train(torchs, steps, data)
    found["torch"] = accuracy(others)
    pairs = zip(net.parameters(), others.parameters(), strict=True)
    found["difference"] = max((p - q).abs().max().item() for p, q in pairs)
    with torch.no_grad():
        for p in net.parameters():  # the mean of the weights is in the state
            p.copy_(optimizer.state[p]["1.ema"])
    found["the mean of the weights"] = accuracy(net)
    print(f"accuracy on new digits: optfx {found['optfx']:.1%}, torch {found['torch']:.1%}")
    print(f"largest difference of a weight: {found['difference']:.0e}")
    print(f"accuracy of the mean of the weights: {found['the mean of the weights']:.1%}")
    return found


if __name__ == "__main__":
    main()
