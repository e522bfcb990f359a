"""Lightning, Hugging Face Trainer and accelerate train with `TorchOptimizer` as with `torch.optim.AdamW`."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import optfx
from optfx.interop import TorchOptimizer

STEPS = 50


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS * 4, 5, generator=generator)
    return TensorDataset(x, x[:, :2].sin())


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))


def ours(params, **how):
    return TorchOptimizer(params, optfx.adamw(1e-2, weight_decay=1e-2), **how)


def torchs(params):
    return torch.optim.AdamW(params, lr=1e-2)


MAKERS = {"eager": ours, "compiled": lambda params: ours(params, compile=True)}


def assert_same(mine, others, atol=1e-6):
    for p, q in zip(mine, others, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=atol)


# ---- Lightning -------------------------------------------------------------------------------------------------------


def lightning_run(make, manual=False, folder=None, resume=None, epochs=1, **options):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = model()
            self.automatic_optimization = not manual

        def configure_optimizers(self):
            optimizer = make(self.net.parameters())
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

        def training_step(self, batch, _):
            x, y = batch
            loss = (self.net(x) - y).square().mean()
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                self.lr_schedulers().step()
            return loss

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=folder, **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few workers, no validation: its advice
        trainer.fit(module, DataLoader(data(), batch_size=4), ckpt_path=resume)
    return trainer, [p.detach() for p in module.net.parameters()]


@pytest.fixture(autouse=True)
def silent():
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"manual": True},
        {"gradient_clip_val": 0.1, "accumulate_grad_batches": 2},
        {"precision": "bf16-mixed"},
    ],
    ids=["automatic", "manual", "clip and accumulate", "bf16-mixed"],
)
def test_lightning(make, options, tmp_path):
    (_, mine), (_, others) = (lightning_run(m, folder=tmp_path, **options) for m in (make, torchs))
    # in bfloat16 the last bit of a float32 parameter may be the last bit of a bfloat16 activation
    assert_same(mine, others, 1e-3 if "precision" in options else 1e-6)


def test_lightning_resumes(tmp_path):
    trainer, _ = lightning_run(ours, folder=tmp_path, epochs=1)
    path = tmp_path / "run.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.save_checkpoint(path)
    _, straight = lightning_run(ours, folder=tmp_path, epochs=2)
    _, resumed = lightning_run(ours, folder=tmp_path, epochs=2, resume=path)
    for p, q in zip(straight, resumed, strict=True):
        assert torch.equal(p, q)


# ---- Hugging Face ----------------------------------------------------------------------------------------------------


def hf_run(folder, how, resume=None, steps=STEPS, save_at=None, eval_at=None, callbacks=()):
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.set_seed(0)
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=8, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    net = transformers.BertForSequenceClassification(config).double()  # Adam divides rounding by gradients near zero
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 32, (64, 8), generator=generator)
    examples = [{"input_ids": w, "labels": (w.sum() % 2).long()} for w in words]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-3, weight_decay=0.1,
        report_to=[], disable_tqdm=True, logging_steps=1000, use_cpu=True, max_grad_norm=1.0, seed=0,
        save_strategy="no" if save_at is None else "steps", save_steps=save_at or 500, dataloader_pin_memory=False,
        eval_strategy="no" if eval_at is None else "steps", eval_steps=eval_at,
    )  # fmt: skip
    trainer = transformers.Trainer(
        net, arguments, train_dataset=examples, eval_dataset=examples[:8], callbacks=list(callbacks), **how(net)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=resume)
    return [p.detach() for p in net.parameters()]


def handed_over(make):
    return lambda net: {"optimizers": (make(net.parameters()), None)}


def by_class(cls, **kwargs):
    return lambda net: {"optimizer_cls_and_kwargs": (cls, kwargs)}


def test_hf_trainer(tmp_path):
    tx = optfx.adamw(1e-3, weight_decay=0.1)
    mine = hf_run(tmp_path, handed_over(ours))
    assert_same(mine, hf_run(tmp_path, handed_over(torchs)))
    mine = hf_run(tmp_path, by_class(TorchOptimizer, tx=tx, lr=1e-3))
    assert_same(mine, hf_run(tmp_path, by_class(torch.optim.AdamW, lr=1e-3)))


def test_hf_trainer_resumes(tmp_path):
    how = by_class(TorchOptimizer, tx=optfx.adamw(1e-3), lr=1e-3)
    straight = hf_run(tmp_path, how, save_at=STEPS // 2)
    resumed = hf_run(tmp_path, how, resume=str(tmp_path / f"checkpoint-{STEPS // 2}"))
    for p, q in zip(straight, resumed, strict=True):
        assert torch.equal(p, q)


def test_hf_trainer_evaluates_the_average(tmp_path):
    import transformers

    class Look(transformers.TrainerCallback):
        def on_prediction_step(self, args, state, control, model=None, optimizer=None, **kwargs):
            kept = optimizer.optimizer.state
            seen.append(all(torch.equal(p, kept[p]["1.ema"]) for p in model.parameters()))

        def on_train_end(self, args, state, control, optimizer=None, **kwargs):
            optimizer.train()  # the trainer evaluates at the last step too

    tx = optfx.chain(optfx.adamw(1e-3), optfx.params_ema(0.9))
    how, seen = by_class(TorchOptimizer, tx=tx, lr=1e-3), []
    straight = hf_run(tmp_path, how, steps=10)
    evaluated = hf_run(tmp_path, how, steps=10, eval_at=4, callbacks=[Look()])
    assert seen
    assert all(seen)
    for p, q in zip(straight, evaluated, strict=True):
        assert torch.equal(p, q)


# ---- accelerate ------------------------------------------------------------------------------------------------------


def accelerate_run(make, folder=None, stop=None, resume=False):
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    net = model()
    optimizer = make(net.parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    net, optimizer, loader, scheduler = accelerator.prepare(net, optimizer, DataLoader(data(), batch_size=2), scheduler)
    if resume:
        accelerator.load_state(folder)
    for k, (x, y) in enumerate(loader):
        if resume and k < stop:
            continue
        if k == stop and not resume:
            accelerator.save_state(folder)
        with accelerator.accumulate(net):
            accelerator.backward((net(x) - y).square().mean())
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return [p.detach() for p in net.parameters()]


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_accelerate(make):
    assert_same(accelerate_run(make), accelerate_run(torchs))


def test_accelerate_resumes(tmp_path):
    straight = accelerate_run(ours, tmp_path / "run", stop=STEPS)
    resumed = accelerate_run(ours, tmp_path / "run", stop=STEPS, resume=True)
    for p, q in zip(straight, resumed, strict=True):
        assert torch.equal(p, q)
