"""Which way a metric is better, by its name."""

from __future__ import annotations

import re

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
