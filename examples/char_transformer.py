"""Train a small transformer to write the source code of torch, character by character.

The text is that of the installed `torch.nn` and `torch.optim`. The optimizer is the usual recipe for such models: clip
the gradients, AdamW that decays the matrices alone, a warmup and a cosine, and a running mean of the parameters, with
which the model is evaluated. `optfx.fuse` makes one kernel of all of it. A checkpoint holds the whole run: stop the
script with Ctrl-C or `kill -9`, start it again, and it goes on with the same bits. At the end, the same training is
timed in three ways: with `fuse`, with `TorchOptimizer`, and as a pure step.

    python examples/char_transformer.py
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import optfx
from optfx import interop, select

CONTEXT = 64  # characters that the model looks back on
BATCH = 32


class Block(nn.Module):
    """What each position learns from those before it, then what it makes of that."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        qkv = self.qkv(self.before_attention(x)).view(b, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(b, t, width))
        return x + self.mlp(self.before_mlp(x))


class Transformer(nn.Module):
    """(batch, time) characters -> (batch, time, characters) logits of the character that comes next."""

    def __init__(self, characters: int, width: int = 96, depth: int = 3, heads: int = 4):
        super().__init__()
        self.character, self.position = nn.Embedding(characters, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, x: Tensor) -> Tensor:
        x = self.character(x) + self.position.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def read() -> tuple[Tensor, Tensor, str]:
    """Text to train on and to validate with, as (characters,) indices into the alphabet, and the alphabet."""
    root = Path(torch.__file__).parent
    files = sorted(file for part in ("nn", "optim") for file in (root / part).rglob("*.py"))
    texts = [file.read_text().encode("ascii", "ignore").decode() for file in files]
    alphabet = "".join(sorted({*"".join(texts)}))
    index = torch.zeros(128, dtype=torch.long)
    index[[ord(c) for c in alphabet]] = torch.arange(len(alphabet))

    def encode(texts: list[str]) -> Tensor:
        return index[torch.tensor(list("".join(texts).encode()))]

    # each tenth file is kept back, so that nothing of it has been seen
    return encode([t for i, t in enumerate(texts) if i % 10]), encode(texts[::10]), alphabet


def draw_batch(text: Tensor, generator: torch.Generator, size: int = BATCH) -> tuple[Tensor, Tensor]:
    """(size, CONTEXT) characters from random places, and those that follow each."""
    places = torch.randint(len(text) - CONTEXT, (size, 1), generator=generator) + torch.arange(CONTEXT + 1)
    return text[places][:, :-1], text[places][:, 1:]


def make_optimizer(steps: int) -> optfx.core.GradientTransformation:
    rate = optfx.warmup_cosine_decay_schedule(0.0, 3e-3, warmup_steps=max(1, steps // 20), decay_steps=steps)
    return optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.adamw(rate, b2=0.99, weight_decay=0.1, mask=select.ndim(min=2)),
        optfx.params_ema(0.97),
    )


def loss_of(model: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return cross_entropy(model(x).flatten(0, 1), y.flatten())


def main(
    steps: int = 1000, every: int = 50, characters: int = 400, rounds: int = 60, folder: str | Path = "out"
) -> dict[str, Any]:
    train, validation, alphabet = read()
    held = draw_batch(validation, torch.Generator().manual_seed(1), size=256)
    torch.manual_seed(0)
    model, tx = Transformer(len(alphabet)), make_optimizer(steps)
    generator = torch.Generator().manual_seed(2)
    print(f"{len(train):,} characters of torch, {optfx.tree.size(optfx.params(model)):,} parameters, {steps} steps")

    # A run as it begins, which is also the template that a checkpoint is loaded into.
    run = {
        "params": optfx.params(model),
        "state": tx.init(optfx.params(model)),
        "step": torch.tensor(0),
        "generator": generator.get_state(),
        "losses": torch.full((steps,), torch.nan),
        "validated": torch.full((steps // every, 2), torch.nan),  # with the parameters, and with their mean
    }
    path = Path(folder) / "char_transformer.pt"
    if path.exists():
        run = interop.load(run, path)
        print(f"goes on from step {run['step']}, as {path} says")
    began = int(run["step"])
    optfx.load_params(model, run["params"])
    generator.set_state(run["generator"])

    opt = optfx.fuse(tx)
    params, state = opt.init(model, run["state"])
    for i in range(began, steps):
        model.zero_grad()
        loss = loss_of(model, draw_batch(train, generator))
        loss.backward()
        params, state = opt.step(optfx.grads(model), state, params)
        run["losses"][i] = loss.detach()
        if (i + 1) % every == 0:
            both = [evaluate(model, p, held) for p in (params, tx.eval_params(state, params))]
            run["validated"][i // every] = torch.stack(both)
            run |= {"params": params, "state": state, "step": torch.tensor(i + 1), "generator": generator.get_state()}
            interop.save(run, path)
            print(f"step {i + 1:5}    loss {loss:.3f}    validation {both[0]:.3f}, averaged {both[1]:.3f}")

    text = sample(model, tx.eval_params(state, params), alphabet, "class Optimizer", characters)
    print(f"\nIt writes:\n\n{text}\n")
    draw(run, every, Path(folder))
    print(f"The losses are drawn in {path.with_suffix('.png')}. To begin anew, remove {path}\n")
    return {"began": began, "run": run, "text": text, "ways": compare(model, train, rounds)}


@torch.no_grad()
def evaluate(model: nn.Module, params: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    return loss_of(lambda x: functional_call(model, params, x), batch)


@torch.no_grad()
def sample(model: nn.Module, params: dict[str, Tensor], alphabet: str, text: str, more: int) -> str:
    """The text, and what the model makes of it, character by character."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(more):
        seen = torch.tensor([[alphabet.index(c) for c in text[-CONTEXT:]]])
        chances = (functional_call(model, params, seen)[0, -1] / 0.7).softmax(-1)
        text += alphabet[int(torch.multinomial(chances, 1, generator=generator))]
    return text


# ---- the same training in three ways --------------------------------------------------------------

Step = Callable[[tuple[Tensor, Tensor]], Tensor]  # one step on a batch, and its loss


def fused(model: nn.Module, tx: optfx.core.GradientTransformation) -> Step:
    """The module is trained in place, by one kernel."""
    opt = optfx.fuse(tx)
    params, state = opt.init(model)

    def step(batch):
        nonlocal params, state
        model.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        params, state = opt.step(optfx.grads(model), state, params)
        return loss

    return step


def torch_optimizer(model: nn.Module, tx: optfx.core.GradientTransformation) -> Step:
    """The loop is torch's, and so is what a trainer sees."""
    optimizer = interop.TorchOptimizer(model.named_parameters(), tx, compile=True)

    def step(batch):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        return loss

    return step


def functional(model: nn.Module, tx: optfx.core.GradientTransformation) -> Step:
    """A pure step, to be mapped, differentiated or compiled."""
    params = optfx.params(model)
    state = tx.init(params)

    def pure(params, state, batch):
        grads, loss = grad_and_value(lambda p: loss_of(lambda x: functional_call(model, p, x), batch))(params)
        updates, state = tx.update(grads, state, params)
        return optfx.apply_updates(params, updates), state, loss

    def step(batch):
        nonlocal params, state
        params, state, loss = pure(params, state, batch)
        return loss

    return step


WAYS = {"fuse": fused, "TorchOptimizer": torch_optimizer, "functional": functional}


def compare(model: nn.Module, text: Tensor, rounds: int) -> dict[str, tuple[float, float, float]]:
    """(seconds to the end of the first step, median milliseconds of the later ones, last loss) of each way.

    They take turns, step by step and on the same batches, so that other work on the machine slows all of them.
    """
    generator = torch.Generator().manual_seed(4)
    batches = [draw_batch(text, generator) for _ in range(rounds)]
    steps, seconds, losses = {}, {name: [] for name in WAYS}, {}
    for i, batch in enumerate(batches):
        for name, way in WAYS.items():
            began = time.perf_counter()
            if i == 0:
                steps[name] = way(copy.deepcopy(model), make_optimizer(rounds))
            losses[name] = steps[name](batch).item()
            seconds[name].append(time.perf_counter() - began)
    found = {name: (s[0], 1e3 * sorted(s[1:])[len(s) // 2 - 1], losses[name]) for name, s in seconds.items()}
    print(f"The same {rounds} steps in three ways, on {torch.get_num_threads()} threads:\n")
    print(f"{'':16}{'first step':>12}{'each later':>14}{'last loss':>12}")
    for name, (first, later, loss) in found.items():
        print(f"{name:16}{first:10.2f} s{later:11.1f} ms{loss:12.4f}")
    return found


def draw(run: dict[str, Any], every: int, out: Path) -> None:
    from matplotlib.figure import Figure

    losses, validated = run["losses"], run["validated"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    at = torch.arange(1, len(validated) + 1) * every
    ax.plot(losses, color="#cccccc", lw=0.8)
    ax.plot(at, validated[:, 0], color="#d55e00", lw=1.5)
    ax.plot(at, validated[:, 1], color="#0072b2", lw=1.5)
    ax.set(xlabel="step", ylabel="nats per character")
    ax.legend(["batches of training", "validation", "validation, averaged parameters"], frameon=False)
    figure.suptitle("A transformer learns to write torch's source", x=0.01, ha="left")
    ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "char_transformer.png", dpi=150)


if __name__ == "__main__":
    main()
