"""An optimizer of optfx in the Trainer of Hugging Face, in both ways in which it takes one.

A very small BERT with random weights (nothing is downloaded) learns to tell which half of a sequence has more of the
even words. Handed over as an object, the optimizer sees all parameters as one group; handed over as a class, the
Trainer makes its usual two groups, with weight decay and without, and passes the learning rate on.

    python examples/hf_trainer.py
"""

import tempfile
import warnings

import torch
import transformers

import optfx
from optfx import select
from optfx.interop import TorchOptimizer

RATE, DECAY, WORDS, LENGTH = 3e-3, 0.01, 32, 12


def small_bert():
    transformers.set_seed(0)
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=LENGTH, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def sentences(count):
    words = torch.randint(0, WORDS, (count, LENGTH), generator=torch.Generator().manual_seed(count))
    even = 1 - words % 2
    label = even[:, : LENGTH // 2].sum(-1) > even[:, LENGTH // 2 :].sum(-1)
    return [{"input_ids": w, "labels": y} for w, y in zip(words, label.long(), strict=True)]


def train(steps, **how):
    model = small_bert()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = transformers.TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=32, learning_rate=RATE, weight_decay=DECAY,
            report_to=[], disable_tqdm=True, logging_steps=10**6, use_cpu=True, seed=0, save_strategy="no",
            dataloader_pin_memory=False,
        )  # fmt: skip
        made = {name: make(model) if name == "optimizers" else make for name, make in how.items()}
        trainer = transformers.Trainer(model, arguments, train_dataset=sentences(2048), **made)
        trainer.train()
    model.eval()
    test = sentences(512)
    with torch.no_grad():
        guess = model(torch.stack([row["input_ids"] for row in test])).logits.argmax(-1)
    return (guess == torch.stack([row["labels"] for row in test])).double().mean().item()


def main(steps: int = 150) -> dict[str, float]:
    transformers.utils.logging.set_verbosity_error()

    def as_an_object(model):
        no_decay = select.path("*bias") | select.path("*LayerNorm*")
        tx = optfx.chain(
            optfx.clip_by_global_norm(1.0),
            optfx.adamw(RATE, weight_decay=DECAY, mask=~no_decay),
            optfx.params_ema(0.99),
        )
        return TorchOptimizer(model.named_parameters(), tx), None

    tx = optfx.adamw(RATE)
    found = {
        "an object": train(steps, optimizers=as_an_object),
        "a class": train(steps, optimizer_cls_and_kwargs=(TorchOptimizer, {"tx": tx, "lr": RATE})),
        "torch's AdamW": train(steps, optimizer_cls_and_kwargs=(torch.optim.AdamW, {"lr": RATE})),
    }
    for name, accuracy in found.items():
        print(f"{name:16}{accuracy:8.1%}")
    return found


if __name__ == "__main__":
    main()
