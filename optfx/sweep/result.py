"""The result of a sweep: the settings, their loss curves and metrics, and their final parameters."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import files, tree
from optfx.sweep import plot
from optfx.tree import Tree

TRAIN_LOSS = "train_loss"
_KIND = "optfx sweep"
_FACTS = ("chunk_size", "compile_seconds", "run_seconds")
_LATER = {"seconds": math.nan, "mode": None}  # facts that the first files did not hold
# words in the name of a metric that tell which way is better; the short ones must stand alone
_LESS = {"loss", "error", "perplexity", "cross_entropy", "regret", "residual", "divergence", "negative", "distance"}
_LESS |= {
    "err",
    "mse",
    "rmse",
    "mae",
    "mape",
    "nll",
    "bce",
    "ppl",
    "bpb",
    "bpc",
    "wer",
    "cer",
    "fid",
    "kl",
    "cost",
    "neg",
}
_MORE = {"accuracy", "precision", "recall", "likelihood", "reward", "sensitivity", "specificity", "auroc", "auprc"}
_MORE |= {
    "acc",
    "f1",
    "auc",
    "r2",
    "ap",
    "iou",
    "miou",
    "dice",
    "bleu",
    "rouge",
    "psnr",
    "ssim",
    "mcc",
    "ndcg",
    "mrr",
    "elbo",
}


def direction(metric: str) -> str | None:
    """`"min"` or `"max"`, by the name of a metric; None if the name does not tell."""
    name = metric.lower()
    alone = re.findall(r"[a-z]+\d*", name)
    less, more = (any(w in alone or (len(w) > 4 and w in name) for w in words) for words in (_LESS, _MORE))
    less = less or "loss" in name  # as in val_loss2 or valloss
    return None if less == more else "min" if less else "max"


class Best(NamedTuple):
    """One member of a sweep."""

    index: int  # its position in the sweep
    config: dict[str, float]  # its hyperparameters
    metrics: dict[str, float]  # its final metrics
    params: Tree  # its final parameters

    def __repr__(self) -> str:
        config, metrics = (", ".join(f"{k} {_number(v)}" for k, v in x.items()) for x in (self.config, self.metrics))
        return f"<member {self.index} of a sweep: {config}; {metrics}; {tree.size(self.params)} parameters>"


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """What `fit` returns: everything about the n members of a sweep, on the CPU.

    Attributes:
        configs: `{name: (n,)}`, the settings.
        losses: (steps, n), the loss of each step before its update.
        metrics: `{name: (n,)}`, what `evaluate` returned after training.
        params: tree of (n, ...) tensors, the parameters after training, as `eval_params` returns them.
        diverged: (n,) bool, whether the last loss or a parameter is not finite.
        chunk_size: how many members trained at once.
        compile_seconds: the time until the first step was taken: reading the functions, and waiting for compilers.
        run_seconds: the time of all other steps.
        seconds: the whole time, from the call of `fit` to its answer; nan from a file that did not say it.
        mode: whether less of the first metric is better (`"min"`) or more (`"max"`); None to go by its name.
    """

    configs: dict[str, Tensor]
    losses: Tensor
    metrics: dict[str, Tensor]
    params: Tree
    diverged: Tensor
    chunk_size: int
    compile_seconds: float
    run_seconds: float
    seconds: float
    mode: str | None = None

    def __len__(self) -> int:
        return len(self.diverged)

    def __repr__(self) -> str:
        steps, n = self.losses.shape
        return (
            f"<sweep of {n} settings of {', '.join(self.configs)}: {steps} steps in {self.seconds:.1f} s, "
            f"{self.compile_seconds:.1f} s of it compiling, {int(self.diverged.sum())} diverged>"
        )

    @property
    def outcomes(self) -> dict[str, Tensor]:
        """`{name: (n,)}`: the metrics, and `train_loss`, the mean of the last tenth of the loss curve."""
        return {**self.metrics, TRAIN_LOSS: self.losses[-max(1, len(self.losses) // 10) :].mean(0)}

    def judge(self, metric: str | None = None, mode: str | None = None) -> tuple[str, Tensor, str]:
        """Which metric decides, its values, and which way is better.

        Args:
            metric: the name of a metric, or `"train_loss"`; None for the first that `evaluate` returned, or the
                training loss when there is none.
            mode: `"min"` or `"max"`; None for what `fit` was told, or to go by the name: less loss or error, more
                accuracy.

        Returns:
            The name; (n,) values, NaN for the members that diverged; the mode.

        Raises:
            ValueError: an unknown metric, or a name that does not tell which way is better.
        """
        outcomes = self.outcomes
        metric = next(iter(outcomes)) if metric is None else metric
        if metric not in outcomes:
            raise ValueError(f"no metric is called {metric!r}; there are {', '.join(outcomes)}")
        if mode is None and metric == next(iter(self.metrics), None):
            mode = self.mode
        if mode is None and (mode := direction(metric)) is None:
            raise ValueError(f"say whether less or more of {metric!r} is better: mode='min' or mode='max'")
        if mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max', got {mode!r}")
        values = outcomes[metric].to(torch.float64)
        return metric, torch.where(self.diverged, torch.nan, values), mode

    def ranking(self, metric: str | None = None, mode: str | None = None) -> list[int]:
        """The members in order from the best, without those that diverged (see `judge`)."""
        _, values, mode = self.judge(metric, mode)
        order = torch.argsort(values if mode == "min" else -values, stable=True)
        return [i for i in order.tolist() if not values[i].isnan()]

    def best(self, metric: str | None = None, mode: str | None = None) -> Best:
        """The best member.

        Args:
            metric: what to judge by (see `judge`).
            mode: `"min"` or `"max"`.

        Raises:
            ValueError: every member diverged; also what `judge` raises.
        """
        ranking = self.ranking(metric, mode)
        if not ranking:
            raise ValueError("there is no best member: every one diverged")
        i = ranking[0]
        config, metrics = ({k: v[i].item() for k, v in x.items()} for x in (self.configs, self.outcomes))
        return Best(i, config, metrics, tree.map(lambda x: x[i], self.params))

    def table(self, k: int = 10, metric: str | None = None, mode: str | None = None) -> str:
        """The k best settings as text, one per line: the rank, the index of the member, its settings and outcomes.

        Args:
            k: how many.
            metric: what to judge by (see `judge`).
            mode: `"min"` or `"max"`.
        """
        columns = {**self.configs, **self.outcomes}
        best = self.ranking(metric, mode)[:k]
        cells = [["", "member", *columns]]
        for rank, i in enumerate(best, 1):
            cells.append([str(rank), str(i), *(_number(v[i].item()) for v in columns.values())])
        widths = [max(len(row[j]) for row in cells) for j in range(len(cells[0]))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each member: its settings, metrics, training loss, and `diverged`.

        Raises:
            ImportError: pandas is missing.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError('to_pandas needs pandas: pip install "optfx[sweep]"') from None
        columns = {**self.configs, **self.outcomes, "diverged": self.diverged}
        return pandas.DataFrame({name: column.numpy() for name, column in columns.items()})

    def plot(self, path: str | Path, metric: str | None = None, mode: str | None = None) -> None:
        """Plot the sweep into a file: the loss curves, and the metric against each hyperparameter; for two
        hyperparameters, also a map over both.

        Args:
            path: the file; its suffix gives the format (`.png`, `.svg`, `.pdf`). Missing folders are made.
            metric: what colors the curves (see `judge`).
            mode: `"min"` or `"max"`.

        Raises:
            ImportError: matplotlib is missing.
        """
        name, values, mode = self.judge(metric, mode)
        plot.draw(path, self.configs, self.losses, self.diverged, name, values, mode)

    def save(self, path: str | Path) -> None:
        """Write everything into one file, completely or not at all. `optfx.sweep.load` reads it back.

        The file holds tensors and JSON, and no code.

        Args:
            path: the file. Missing folders are made.
        """
        tensors = {"losses": self.losses, "diverged": self.diverged}
        for group, of in (("configs", self.configs), ("metrics", self.metrics), ("params", tree.to_dict(self.params))):
            tensors |= {f"{group}/{name}": x for name, x in of.items()}
        facts = {"kind": _KIND, **{name: getattr(self, name) for name in (*_FACTS, *_LATER)}}
        files.write(path, {"facts": json.dumps(facts), "tensors": {k: x.contiguous() for k, x in tensors.items()}})


def _number(x: float) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)


def load(path: str | Path, params: Tree = None) -> Result:
    """Read what `Result.save` wrote. No code in the file is run.

    Args:
        path: the file.
        params: the parameters of one member, which give the structure of the tree; None for a flat dict by path, which
            suits parameters that were `{name: tensor}`.

    Raises:
        ValueError: the file is of another kind; parameters that do not fit, listing their paths.
    """
    found = files.read(path)
    facts = json.loads(found["facts"]) if isinstance(found, dict) and "facts" in found else {}
    if not isinstance(facts, dict) or facts.get("kind") != _KIND:
        raise ValueError(f"{path} holds no {_KIND}")
    tensors = found["tensors"]
    groups: dict[str, dict[str, Tensor]] = {"configs": {}, "metrics": {}, "params": {}}
    for name, x in tensors.items():
        group, _, rest = name.partition("/")
        if rest or group in groups:
            groups[group][rest] = x
    n = len(tensors["diverged"])
    if params is not None:
        like = tree.map(lambda x: x.detach().cpu().expand(n, *x.shape), params)
        groups["params"] = tree.from_dict(like, groups["params"])
    own: dict[str, Any] = {name: facts[name] for name in _FACTS} | {k: facts.get(k, x) for k, x in _LATER.items()}
    return Result(losses=tensors["losses"], diverged=tensors["diverged"], **groups, **own)
