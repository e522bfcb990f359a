"""Where to find what goes by another name in `torch.optim` and in optax: one table for errors and for the docs.

`NAMES` has what users look for in `optfx`, `ARGUMENTS` what they pass to optimizers, transforms and schedules, and
`METHODS` what they call on a fused optimizer.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MISSING = "not here yet"
_EPOCHS = "`optfx.schedules.per_epoch` around it counts epochs, not updates"
_LOSSES = "losses are those of `torch.nn.functional`"

NAMES: dict[str, str] = {
    # ---- torch.optim ----
    "ASGD": "`optfx.asgd`",
    "Adadelta": "`optfx.adadelta`",
    "Adafactor": "`optfx.adafactor`",
    "Adagrad": "`optfx.adagrad`",
    "Adam": "`optfx.adam`",
    "AdamW": "`optfx.adamw`",
    "Adamax": "`optfx.adamax`",
    "LBFGS": "not here: a step of it evaluates the loss many times, and an update sees one gradient",
    "Muon": "`optfx.muon`",
    "NAdam": "`optfx.nadam`",
    "Optimizer": "`optfx.interop.TorchOptimizer` is one around any transform",
    "RAdam": "`optfx.radam`",
    "RMSprop": "`optfx.rmsprop`",
    "Rprop": "`optfx.rprop`",
    "SGD": "`optfx.sgd`",
    "SparseAdam": "not here: gradients are dense",
    "GradScaler": "torch's own works with `optfx.interop.TorchOptimizer`; bfloat16 needs none",
    "AveragedModel": "`optfx.params_ema` or `optfx.params_average`, and `eval_params`",
    "swa_utils": "`optfx.params_ema` or `optfx.params_average`, and `eval_params`",
    "clip_grad_norm_": "`optfx.clip_by_global_norm`",
    "clip_grad_value_": "`optfx.clip`",
    "lr_scheduler": "`optfx.schedules`, which count updates; inside `optfx.schedules.per_epoch`, epochs",
    "ChainedScheduler": "`optfx.schedules.from_torch_scheduler`",
    "ConstantLR": f"`optfx.schedules.constant_lr`; {_EPOCHS}",
    "CosineAnnealingLR": f"`optfx.schedules.cosine_annealing_lr`; {_EPOCHS}",
    "CosineAnnealingWarmRestarts": f"`optfx.schedules.cosine_annealing_warm_restarts`; {_EPOCHS}",
    "CyclicLR": "`optfx.schedules.cyclic_lr` and `optfx.schedules.cyclic_momentum`",
    "ExponentialLR": f"`optfx.schedules.exponential_lr`; {_EPOCHS}",
    "LambdaLR": f"`optfx.schedules.lambda_lr`; {_EPOCHS}",
    "LinearLR": f"`optfx.schedules.linear_lr`; {_EPOCHS}",
    "MultiStepLR": f"`optfx.schedules.multi_step_lr`; {_EPOCHS}",
    "MultiplicativeLR": "`optfx.schedules.from_torch_scheduler`",
    "OneCycleLR": "`optfx.schedules.one_cycle_lr` and `optfx.schedules.one_cycle_momentum`",
    "PolynomialLR": f"`optfx.schedules.polynomial_lr`; {_EPOCHS}",
    "ReduceLROnPlateau": "`optfx.reduce_on_plateau`, a transform; give it `batches` to judge one value an epoch",
    "SequentialLR": "`optfx.schedules.sequential_lr`",
    "StepLR": f"`optfx.schedules.step_lr`; {_EPOCHS}",
    # ---- modifiers, as other packages and papers call them ----
    "AdamC": "`optfx.add_decayed_weights`, whose `weight_decay` is a schedule in proportion to the rate",
    "AdamHD": "`optfx.proximal_weight_decay` with a `delta`, after `optfx.scale_by_adam`",
    "AggMo": "`optfx.parallel` of several `optfx.trace`",
    "HyperBallAdamW": "`optfx.hyperball` after `optfx.scale_by_adam`",
    "MARS": "`optfx.mars` before a rule",
    "MuonClip": "`optfx.qk_clip` after `optfx.muon`",
    "OrthoGrad": "`optfx.orthograd` before a rule",
    "SPAM": "`optfx.clip_spikes` and `optfx.scale_by_adam`, in `optfx.reset_every`",
    "caution": "`optfx.cautious`",
    "weight_decay_to_ema": "a weight decay in `optfx.anchored`",
    "weight_decay_to_init": "a weight decay in `optfx.anchored`",
    # ---- other packages for torch ----
    "ACProp": "`optfx.acprop`",
    "AdaBelief": "`optfx.adabelief`",
    "AdamAtan2": "`optfx.adam_atan2`",
    "Adan": "`optfx.adan`",
    "LaProp": "`optfx.laprop`",
    "Lion": "`optfx.lion`",
    "NAdamW": "`optfx.nadamw`",
    "QHAdam": "`optfx.qhadam`",
    "QHM": "`optfx.qhm`",
    "SignSGD": "`optfx.sign_sgd`, and `optfx.signum` with momentum",
    "Signum": "`optfx.signum`",
    "Tiger": "`optfx.tiger`",
    "Yogi": "`optfx.yogi`",
    "ADOPT": "`optfx.adopt`",
    "AdEMAMix": "`optfx.ademamix`",
    "CAME": "`optfx.came`",
    "Fromage": "`optfx.fromage`",
    "Grams": "`optfx.grams`",
    "LAMB": "`optfx.lamb`",
    "LARS": "`optfx.lars`",
    "Lamb": "`optfx.lamb`",
    "MADGRAD": "`optfx.madgrad`",
    "NovoGrad": "`optfx.novograd`",
    "SM3": "`optfx.sm3`",
    "SimplifiedAdEMAMix": "`optfx.simplified_ademamix`",
    "StableAdamW": "`optfx.stableadamw`",
    "scale_by_came": "`optfx.scale_by_factored_rms`, `optfx.clip_by_block_rms` and `optfx.scale_by_confidence`",
    "stable_adamw": "`optfx.stableadamw`",
    "EMA": "of the parameters: `optfx.params_ema` and `eval_params`; of the updates: `optfx.ema`",
    "ModelEMA": "`optfx.params_ema` and `eval_params`",
    "ExponentialMovingAverage": "`optfx.params_ema` and `eval_params`",
    "get_cosine_schedule_with_warmup": "`optfx.warmup_cosine_decay_schedule`",
    "get_linear_schedule_with_warmup": "`optfx.join_schedules` of two `optfx.linear_schedule`",
    "Lookahead": "`optfx.lookahead`",
    "ScheduleFreeWrapper": "`optfx.schedule_free`",
    "SGDScheduleFree": "`optfx.schedule_free_sgd`",
    "AdamWScheduleFree": "`optfx.schedule_free_adamw`",
    "RAdamScheduleFree": "`optfx.schedule_free_radam`",
    "GPAAdamW": "`optfx.gpa` around `optfx.adamw`",
    "SAM": "`optfx.sam`",
    "asam": "`optfx.sam` with `adaptive=True`",
    "snoo": "`optfx.lookahead` with `outer=optfx.sgd(..., nesterov=True)`",
    "diloco": "`optfx.lookahead` with `outer=optfx.sgd(..., nesterov=True)`, for one worker",
    "swap": "`optfx.carry`",
    "carry_over": "`optfx.carry`",
    # ---- optax ----
    "MultiSteps": "`optfx.accumulate`",
    "has_updated": "`state.gathered == 0`, of the state of `optfx.accumulate`",
    "multi_transform": "`optfx.partition`",
    "optimistic_adam": "`optfx.optimistic_adam_v2`",
    "LookaheadParams": "`optfx.lookahead` keeps the slow weights in its state; `eval_params` gives them",
    "conditionally_transform": "`optfx.when`",
    "conditionally_mask": '`optfx.when` with `otherwise="zero"`',
    "measure_with_ema": "`optfx.monitor` with a `decay`",
    "schedule_free_eval_params": "`eval_params` of the transform: `tx.eval_params(state, params)`",
    "microbatch": "`optfx.micro_grad`",
    "microbatching": "`optfx.micro_grad`",
    "global_norm": "`optfx.tree.norm`",
    "tree_utils": "`optfx.tree`",
    "tree_map_params": "`optfx.tree.map` on the fields of a state that are like params",
    "contrib": "what is here of it is flat in `optfx`: `optfx.muon`, `optfx.reduce_on_plateau`",
    "MaskedNode": "`optfx.tree.Hole`",
    "GradientTransformationExtraArgs": "`optfx.core.GradientTransformation`, which takes extra arguments",
    "ScalarOrSchedule": "`optfx.core.Hyper`",
    "OptState": "a state is a tree, `optfx.tree.Tree`",
    "Params": "a tree, `optfx.tree.Tree`",
    "Updates": "a tree, `optfx.tree.Tree`",
    "inject_stateful_hyperparams": "`optfx.inject_hyperparams`",
    "stateless_with_tree_map": "`optfx.stateless` with `optfx.tree.map`",
    "with_extra_args_support": "none is needed: a chain hands on what each step knows",
    "EmptyState": "an empty state is ()",
    "safe_increment": "counts are int64: `count + 1`",
    "safe_int32_increment": "counts are int64: `count + 1`",
    "value_and_grad_from_state": "`torch.func.grad_and_value`: no state keeps the loss",
    "update_moment": "`optfx.tree.mean`, in leaf functions",
    "safe_norm": "`optfx.tree.norm`, whose `squared` has a smooth derivative; `optfx.tree.safe_sqrt`",
    "losses": _LOSSES,
    **dict.fromkeys(
        [
            *("l2_loss", "huber_loss", "squared_error", "softmax_cross_entropy", "sigmoid_binary_cross_entropy"),
            *("softmax_cross_entropy_with_integer_labels", "cosine_similarity", "hinge_loss", "kl_divergence"),
        ],
        _LOSSES,
    ),
    **dict.fromkeys(
        [
            *("lbfgs", "polyak_sgd", "prodigy", "sophia", "projections", "perturbations"),
            *("cocob", "dadapt_adamw", "dog", "dowg", "mechanize", "momo", "momo_adam", "galore", "dpsgd"),
            *("differentially_private_aggregate", "per_example_global_norm_clip", "per_example_layer_norm_clip"),
            *("scale_by_backtracking_linesearch", "scale_by_zoom_linesearch", "scale_by_lbfgs", "scale_by_polyak"),
        ],
        _MISSING,
    ),
}
"""`{name elsewhere: where it is here}`. Code stands in backticks, and exists if it begins with `optfx.`."""

ARGUMENTS: dict[str, tuple[str, ...] | str] = {
    "sync_period": ("every",),
    "slow_step_size": "that is the rate of the slow optimizer: `outer=optfx.sgd(slow_step_size)`",
    "fast_optimizer": ("inner",),
    "base_optimizer": ("inner",),
    "opt": ("inner",),
    "every_k_schedule": ("every",),
    "should_skip_update_fn": ("skip",),
    "should_transform_fn": ("predicate",),
    "every_k": ("every",),
    "adv_optimizer": "it is a step of length `rho` up the gradient",
    "opaque_mode": "without a `sync_period`, `update` takes the second gradient with `grad_fn`",
    "lr": ("learning_rate", "base_lr", "init_value", "step_size"),
    "rate": ("learning_rate", "base_lr"),
    "eta": ("learning_rate",),
    "learning_rate": ("base_lr", "init_value", "step_size"),
    "betas": ("b1 and b2",),
    "beta1": ("b1",),
    "beta2": ("b2",),
    "beta3": ("b3",),
    "nus": ("nu1 and nu2",),
    "a": ("angle_scale",),
    "b": ("root_scale",),
    "initial_accumulator": ("initial_accumulator_value",),
    "beta": ("decay", "b1"),
    "alpha": ("decay",),
    "momentum": ("decay", "beta", "b1"),
    "mu": ("momentum", "decay"),
    "rho": ("decay",),
    "epsilon": ("eps",),
    "eps": ("epsilon",),
    "eps1": ("eps",),
    "wd": ("weight_decay", "weight_decay_rate"),
    "decay": ("weight_decay", "rho"),
    "l2": ("weight_decay",),
    "lambda_": ("weight_decay", "lambd"),
    "weight_decay": ("weight_decay_rate", "adam_weight_decay"),
    "weight_decay_mask": ("mask",),
    "mask": ("weight_decay_mask",),
    "etas": ("eta_minus and eta_plus",),
    "step_sizes": ("min_step_size and max_step_size",),
    "clip_norm": ("max_norm",),
    "clip_value": ("max_delta",),
    "clip": ("max_norm", "max_delta", "clipping_threshold"),
    "d": ("clipping_threshold",),
    "beta2_decay": ("decay_rate",),
    "ns_coefficients": ("ns_coeffs",),
    "adjust_lr_fn": ("consistent_rms",),
    "schedule": ("step_size_fn", "learning_rate"),
    "max_lr": ("peak_value",),
    "eta_min": ("end_value", "alpha"),
    "T_max": ("decay_steps", "total_iters"),
    "total_steps": ("transition_steps", "decay_steps"),
    "num_warmup_steps": ("warmup_steps",),
    "num_training_steps": ("decay_steps", "transition_steps"),
    "dtype": ("mu_dtype", "accumulator_dtype"),
    "params": "parameters go to `init`: `state = tx.init(params)`",
    "named_parameters": "parameters go to `init`: `state = tx.init(params)`",
    "amsgrad": "that is the optimizer `optfx.amsgrad`",
    "decoupled_weight_decay": "that is the optimizer `optfx.adamw`",
    "centered": "that is `optfx.scale_by_stddev`",
    "maximize": "put `optfx.scale(-1.0)` first in a chain",
    "foreach": "there is no such option: `optfx.fuse` makes a step fast",
    "fused": "there is no such option: `optfx.fuse` makes a step fast",
    "capturable": "there is no such option: nothing here waits for the device",
    "differentiable": "there is no such option: every update has a derivative",
    "optimizer": "a schedule is a function of the count, and is given as the learning rate",
    "last_epoch": "a schedule is a function of the count, and has no state",
    "verbose": "there is no such option",
}
"""`{argument elsewhere: what it is called here, or what to do}`. Of several names, the first that a function has."""


METHODS: dict[str, str] = {
    "zero_grad": "`module.zero_grad()`",
    "param_groups": "`optfx.hyperparams(tx, state)` reads the numbers; `optfx.interop.TorchOptimizer` has groups",
    "state_dict": "the state is yours: `optfx.interop.state_dict(state)`, `optfx.interop.save(state, path)`",
    "load_state_dict": "`opt.init(params, state)` goes on from a state, which `optfx.interop.load` reads",
    "eval_params": "that of the transform: `tx.eval_params(state, params)`",
    "update": "`params, state = opt.step(grads, state, params)` does all of it; `tx.update` is the pure function",
}
"""`{method of an optimizer elsewhere: what to write with a fused one}`."""


def for_method(name: str, who: str) -> str:
    """The error about a method that an object of optfx does not have."""
    return f"{who!r} object has no attribute {name!r}" + (f"; {METHODS[name]}" if name in METHODS else "")


def for_name(name: str, known: Iterable[str], where: str = "optfx") -> str:
    """The error about a name that `optfx`, or a module of it, does not have."""
    if name in NAMES:
        return f"{where} has no {name!r}; {NAMES[name]}"
    near = difflib.get_close_matches(name, list(known), 3)
    return f"module {where!r} has no attribute {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def for_argument(name: str, known: Iterable[str]) -> str:
    """What is said about an argument that a function does not have."""
    known, hint = list(known), ARGUMENTS.get(name, ())
    if isinstance(hint, str):
        return hint
    here = [words for words in hint if set(words.split(" and ")) <= set(known)]
    here += difflib.get_close_matches(name, known, 1)
    return f"here it is {here[0]}" if here else f"it takes {', '.join(known)}"


def hinted(f: Callable[P, T]) -> Callable[P, T]:
    """`f`, with an error for an unknown argument that says what it is called here."""
    parameters = inspect.signature(f).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return f
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
    who = f.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{who}() got an unexpected keyword argument {name!r}: {for_argument(name, known)}")
        return f(*args, **kwargs)

    return checked
