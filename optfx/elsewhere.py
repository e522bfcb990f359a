"""Where to find what `torch.optim`, optax and other packages have by another name: what the errors and the docs say."""

from __future__ import annotations

_EPOCHS = "`optfx.schedules.per_epoch` around it counts epochs, not updates"

_OF_SEVERAL = {
    "losses are those of `torch.nn.functional`": "losses",
    "`torch.nn.functional.cross_entropy`, with classes or their probabilities": """
        softmax_cross_entropy safe_softmax_cross_entropy softmax_cross_entropy_with_integer_labels
    """,
    "`torch.nn.functional.cross_entropy` with `label_smoothing`": "smooth_labels",
    "`torch.nn.functional.binary_cross_entropy_with_logits`": "sigmoid_binary_cross_entropy",
    '`torch.nn.functional.mse_loss` with `reduction="none"`, `l2_loss` is half of it': "squared_error l2_loss",
    "`torch.nn.functional.huber_loss`": "huber_loss",
    "`torch.nn.functional.cosine_similarity`, and one minus it": "cosine_similarity cosine_distance",
    "`torch.nn.functional.kl_div`": "kl_divergence kl_divergence_with_log_targets",
    "`torch.nn.functional.ctc_loss`": "ctc_loss",
    "`torch.nn.functional.triplet_margin_loss`": "triplet_margin_loss",
    "not here: a loss is no part of an optimizer; `torch.nn.functional` does not have this one": """
        binary_dice_loss convex_kl_divergence ctc_loss_with_forward_probs dice_loss generalized_kl_divergence
        hinge_loss log_cosh make_fenchel_young_loss multiclass_generalized_dice_loss multiclass_hinge_loss
        multiclass_perceptron_loss multiclass_sparsemax_loss ntxent perceptron_loss poly_loss_cross_entropy
        ranking_softmax_loss sigmoid_focal_loss sparsemax_loss
    """,
    "not here: no part of an optimizer; `torch.distributions` has the noise": """
        perturbations make_perturbed_fun Gumbel Normal
    """,
    "`scipy.optimize.linear_sum_assignment`": "assignment hungarian_algorithm base_hungarian_algorithm",
    "not here yet: a step evaluates the loss several times, as `torch.optim.LBFGS` does": """
        LBFGS lbfgs scale_by_lbfgs scale_by_backtracking_linesearch scale_by_zoom_linesearch ZoomLinesearchInfo
        value_and_grad_from_state
    """,
    "not here yet: it finds its own learning rate; `optfx.sweep.fit` tries many at once": """
        polyak_sgd scale_by_polyak cocob scale_by_cocob dadapt_adamw dog dowg scale_by_distance_over_gradients
        prodigy mechanize momo momo_adam
    """,
    "not here yet: it needs second derivatives of the loss": "sophia hutchinson_estimator_diag_hessian",
    "not here yet: it keeps moments of low rank": "galore scale_by_galore GaLoreDimensionNumbers",
    "not here yet: it needs the gradient of each example, as `torch.func.vmap` gives it; Opacus is for privacy": """
        per_example_global_norm_clip per_example_layer_norm_clip differentially_private_aggregate dpsgd experimental
    """,
    "`torch.clamp` of the parameters; `optfx.keep_params_nonnegative` at each step": """
        projection_box projection_hypercube projection_linf_ball projection_non_negative
    """,
    "not here yet: of constraints there are `optfx.hyperball` and `optfx.keep_params_nonnegative`": """
        projections projection_halfspace projection_hyperplane projection_l1_ball projection_l1_sphere
        projection_l2_ball projection_l2_sphere projection_simplex projection_vector
    """,
    "`optfx.micro_grad`": "microbatch microbatching",
    "a part of `optfx.micro_grad`": "Accumulator AccumulationType reshape_batch_axis",
    "a part of `optfx.adaptive_grad_clip`": "unitwise_norm unitwise_clip",
    "`optfx.tree.map` on the fields of a state that are like params": "tree_map_params map_params",
    "`optfx.tree.mean`, in leaf functions": "update_moment update_moment_per_elem_norm",
    "`optfx.tree.norm`, whose `squared` has a smooth derivative; `optfx.tree.safe_sqrt`": """
        safe_norm safe_root_mean_squares
    """,
    "none is needed: a count is int64": "safe_increment safe_int32_increment",
    "none is needed: a schedule is a function of the count": "WrappedSchedule StatefulSchedule",
    "the methods of `optfx.core.GradientTransformation`": """
        TransformInitFn TransformUpdateFn TransformUpdateExtraArgsFn
    """,
    "a tree, `optfx.tree.Tree`": "Params Updates",
}
"""`{where it is here: names elsewhere}`."""

NAMES: dict[str, str] = {
    # ---- torch.optim ----
    "ASGD": "`optfx.asgd`",
    "Adadelta": "`optfx.adadelta`",
    "Adafactor": "`optfx.adafactor`",
    "Adagrad": "`optfx.adagrad`",
    "Adam": "`optfx.adam`",
    "AdamW": "`optfx.adamw`",
    "Adamax": "`optfx.adamax`",
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
    # ---- optax: each for itself, and those of which the same is said below ----
    "MultiSteps": "`optfx.accumulate`",
    "has_updated": "`state.gathered == 0`, of the state of `optfx.accumulate`",
    "ApplyEvery": "the state of `optfx.apply_every`",
    "multi_transform": "`optfx.partition`",
    "optimistic_adam": "`optfx.optimistic_adam_v2`; optax too lets go of the first",
    "LookaheadParams": "`optfx.lookahead` keeps the slow weights in its state; `eval_params` gives them",
    "conditionally_transform": "`optfx.when`",
    "conditionally_mask": '`optfx.when` with `otherwise="zero"`',
    "ConditionFn": "the predicate of `optfx.when`, a function of the count",
    "ShouldSkipUpdateFunction": "the `skip` of `optfx.accumulate`, any function `(updates, count, params) -> () bool`",
    "MaskOrFn": "a mask is a tree of bools, a function of params, or a selector of `optfx.select`",
    "selective_transform": "`optfx.partition`, with `optfx.set_to_zero` for what is frozen",
    "measure_with_ema": "`optfx.monitor` with a `decay`",
    "schedule_free_eval_params": "`eval_params` of the transform: `tx.eval_params(state, params)`",
    "MuonDimensionNumbers": "the `labels` of `optfx.muon` say which leaves are matrices",
    "split_real_and_imaginary": "none is needed: a complex element counts as two real ones",
    "micro_vmap": "`torch.func.vmap` with a `chunk_size`",
    "scale_gradient": "`torch.lerp(x.detach(), x, scale)`",
    "periodic_update": "`optfx.tree.where` with `steps % period == 0`",
    "contrib": "what is here of it is flat in `optfx`",
    "tree_utils": "`optfx.tree`",
    "global_norm": "`optfx.tree.norm`",
    "get_all_with_path": "`optfx.tree.get_all`",
    "bias_correction": "`optfx.core.bias_correction`",
    "random_like": "`optfx.random.random_like`",
    "dtype": "a tree may have several: ask one of `optfx.tree.leaves`",
    "batch_shape": "`Tensor.expand` in `optfx.tree.map`; `optfx.sweep.stack` for trees that differ",
    "split_key_like": "`optfx.random.split_like`",
    "unwrap_random_key_data": "none is needed: a key is a tensor",
    "NamedTupleKey": "a path is a string, as `optfx.tree.paths` gives it",
    "MaskedNode": "`optfx.tree.Hole`",
    "GradientTransformationExtraArgs": "`optfx.core.GradientTransformation`, which takes extra arguments",
    "ScalarOrSchedule": "`optfx.core.Hyper`",
    "OptState": "a state is a tree, `optfx.tree.Tree`",
    "EmptyState": "the state of `optfx.core.Stateless`, an empty tuple",
    "init_empty_state": "the base class `optfx.core.Stateless` has it",
    "inject_stateful_hyperparams": "`optfx.inject_hyperparams`",
    "stateless_with_tree_map": "`optfx.stateless` with `optfx.tree.map`",
    "with_extra_args_support": "none is needed: a chain hands on what each step knows",
    "value_and_grad_from_state": "`torch.func.grad_and_value`: no state keeps the loss",
    "update_infinity_moment": "`torch.maximum`, in leaf functions",
    "nnls": "`scipy.optimize.nnls`",
    "power_iteration": "`torch.lobpcg`",
    "matrix_inverse_pth_root": "`torch.linalg.eigh`, and a power of the eigenvalues",
    "multi_normal": "`torch.distributions.MultivariateNormal`",
    "second_order": "`torch.func`",
    "hvp": "`torch.func.jvp` of `torch.func.grad`",
    "hessian_diag": "`torch.func.hessian`, and its diagonal",
    "fisher_diag": "`torch.func.vmap` of `torch.func.grad`, and the mean of the squares",
    **{name: hint for hint, names in _OF_SEVERAL.items() for name in names.split()},
}
"""`{name elsewhere: where it is here}`. Code stands in backticks, and exists if it begins with `optfx.`."""
