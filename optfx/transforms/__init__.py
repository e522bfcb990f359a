"""Transforms, each one change of the updates: the parts from which optimizers are chained.

| family | file | transforms |
|---|---|---|
| scaling | `scaling` | `identity`, `set_to_zero`, `freeze`, `stateless`, `scale`, `scale_by_learning_rate`, `scale_by_schedule`, `scale_by_sign` |
| momentum | `momentum` | `trace`, `ema` |
| sign of a momentum | `lion` | `scale_by_lion` |
| optimism | `optimistic` | `scale_by_optimistic_gradient` |
| adaptive | `adaptive/` | `scale_by_adam`, `scale_by_amsgrad`, `scale_by_nadam`, `scale_by_radam`, `scale_by_adamax`, `scale_by_belief`, `scale_by_acprop`, `scale_by_yogi`, `scale_by_adan`, `scale_by_laprop`, `scale_by_adam_atan2`, `scale_by_qhadam`, `scale_by_qhm`, `scale_by_rms`, `scale_by_stddev`, `scale_by_rss`, `scale_by_adadelta`, `scale_by_factored_rms`, `scale_by_rprop`, `scale_by_ademamix`, `scale_by_simplified_ademamix`, `scale_by_adopt`, `scale_by_stable_adam`, `scale_by_confidence`, `scale_by_novograd`, `scale_by_sm3` |
| for matrices | `matrix/` | `scale_by_muon`, `orthogonalize`, `polargrad`, `equilibrate_rows`, `renormalize`, `scale_by_row_rms`, `scale_by_namo`, `scale_by_dion`, `scale_by_dion2`, `scale_by_dion3`, `lmo`, `scale_by_soap`, `scale_by_kl_soap`, `scale_by_shampoo`, `scale_by_kl_shampoo`, `scale_by_kron`, `scale_by_splus`, `scale_by_sinksoap`, `scale_by_galore`, `scale_by_apollo` |
| on the sphere of a parameter | `spheres` | `relative_update`, `radial_brake`, `keep_norm`, `hyperball` |
| weight decay | `decay` | `add_decayed_weights`, `cautious_weight_decay`, `l1_weight_decay`, `huber_weight_decay`, `proximal_weight_decay` |
| in proportion to size | `size`, `trust` | `scale_by_param_block_norm`, `scale_by_param_block_rms`, `scale_by_shape`, `scale_by_trust_ratio`, `step_and_shrink` |
| of a given norm | `normalize` | `normalize`, `normalize_by_update_norm` |
| with another direction | `grams` | `take_sign_of_grad` |
| dual averaging | `madgrad` | `scale_by_madgrad` |
| limits | `clipping` | `clip`, `clip_by_block_rms`, `clip_by_global_norm`, `adaptive_grad_clip` |
| limits on the parameters | `constraints`, `attention` | `keep_params_nonnegative`, `qk_clip` |
| half precision | `rounding` | `compensate`, `round_stochastically` |
| averages of the parameters | `averages` | `params_ema`, `params_average` |
| cleaner gradients | `centralize`, `nans`, `noise`, `spikes` | `centralize`, `zero_nans`, `add_noise`, `clip_spikes` |
| other gradients | `mars`, `grokfast`, `orthograd` | `mars`, `grokfast`, `orthograd` |
| in agreement with the gradient | `cautious` | `cautious` |
| several updates at once | `apply_every` | `apply_every` |
| measurements | `monitor` | `monitor`, `snapshot` |
| rates that watch progress | `plateau`, `asgd` | `reduce_on_plateau`, `scale_by_asgd` |

Every number of a transform is a float, a () tensor, or a schedule `count -> value`; the first update reads
`schedule(0)`. Updates are added to params; only what owns the step size, as `scale_by_learning_rate` does, flips the sign.
"""  # noqa: E501

from optfx.transforms.adaptive.adadelta import scale_by_adadelta
from optfx.transforms.adaptive.adam import scale_by_adam
from optfx.transforms.adaptive.adamax import scale_by_adamax
from optfx.transforms.adaptive.adan import scale_by_adan
from optfx.transforms.adaptive.ademamix import scale_by_ademamix, scale_by_simplified_ademamix
from optfx.transforms.adaptive.adopt import scale_by_adopt
from optfx.transforms.adaptive.amsgrad import scale_by_amsgrad
from optfx.transforms.adaptive.atan2 import scale_by_adam_atan2
from optfx.transforms.adaptive.belief import scale_by_acprop, scale_by_belief
from optfx.transforms.adaptive.came import scale_by_confidence
from optfx.transforms.adaptive.factored import scale_by_factored_rms
from optfx.transforms.adaptive.laprop import scale_by_laprop
from optfx.transforms.adaptive.nadam import scale_by_nadam
from optfx.transforms.adaptive.novograd import scale_by_novograd
from optfx.transforms.adaptive.qh import scale_by_qhadam, scale_by_qhm
from optfx.transforms.adaptive.radam import scale_by_radam
from optfx.transforms.adaptive.rms import scale_by_rms, scale_by_rss, scale_by_stddev
from optfx.transforms.adaptive.rprop import scale_by_rprop
from optfx.transforms.adaptive.sm3 import scale_by_sm3
from optfx.transforms.adaptive.stable import scale_by_stable_adam
from optfx.transforms.adaptive.yogi import scale_by_yogi
from optfx.transforms.apply_every import apply_every
from optfx.transforms.asgd import scale_by_asgd
from optfx.transforms.attention import qk_clip
from optfx.transforms.averages import params_average, params_ema
from optfx.transforms.cautious import cautious
from optfx.transforms.centralize import centralize
from optfx.transforms.clipping import adaptive_grad_clip, clip, clip_by_block_rms, clip_by_global_norm
from optfx.transforms.constraints import keep_params_nonnegative
from optfx.transforms.decay import (
    add_decayed_weights,
    cautious_weight_decay,
    huber_weight_decay,
    l1_weight_decay,
    proximal_weight_decay,
)
from optfx.transforms.grams import take_sign_of_grad
from optfx.transforms.grokfast import grokfast
from optfx.transforms.lion import scale_by_lion
from optfx.transforms.madgrad import scale_by_madgrad
from optfx.transforms.mars import mars
from optfx.transforms.matrix.dion import scale_by_dion
from optfx.transforms.matrix.dion2 import scale_by_dion2, scale_by_dion3
from optfx.transforms.matrix.kl import scale_by_kl_shampoo, scale_by_kl_soap
from optfx.transforms.matrix.kron import scale_by_kron
from optfx.transforms.matrix.lmo import lmo
from optfx.transforms.matrix.low_rank import scale_by_apollo, scale_by_galore
from optfx.transforms.matrix.muon import scale_by_muon
from optfx.transforms.matrix.namo import scale_by_namo
from optfx.transforms.matrix.norms import equilibrate_rows, renormalize
from optfx.transforms.matrix.orthogonalize import orthogonalize
from optfx.transforms.matrix.polargrad import polargrad
from optfx.transforms.matrix.row_rms import scale_by_row_rms
from optfx.transforms.matrix.shampoo import scale_by_shampoo
from optfx.transforms.matrix.sinksoap import scale_by_sinksoap
from optfx.transforms.matrix.soap import scale_by_soap
from optfx.transforms.matrix.splus import scale_by_splus
from optfx.transforms.momentum import ema, trace
from optfx.transforms.monitor import monitor, snapshot
from optfx.transforms.nans import zero_nans
from optfx.transforms.noise import add_noise
from optfx.transforms.normalize import normalize, normalize_by_update_norm
from optfx.transforms.optimistic import scale_by_optimistic_gradient
from optfx.transforms.orthograd import orthograd
from optfx.transforms.plateau import reduce_on_plateau
from optfx.transforms.rounding import compensate, round_stochastically
from optfx.transforms.scaling import (
    freeze,
    identity,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
    scale_by_sign,
    set_to_zero,
    stateless,
)
from optfx.transforms.size import scale_by_param_block_norm, scale_by_param_block_rms, scale_by_shape
from optfx.transforms.spheres import hyperball, keep_norm, radial_brake, relative_update
from optfx.transforms.spikes import clip_spikes
from optfx.transforms.trust import scale_by_trust_ratio, step_and_shrink

__all__ = [
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "apply_every",
    "cautious",
    "cautious_weight_decay",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_spikes",
    "compensate",
    "ema",
    "equilibrate_rows",
    "freeze",
    "grokfast",
    "huber_weight_decay",
    "hyperball",
    "identity",
    "keep_norm",
    "keep_params_nonnegative",
    "l1_weight_decay",
    "lmo",
    "mars",
    "monitor",
    "normalize",
    "normalize_by_update_norm",
    "orthogonalize",
    "orthograd",
    "params_average",
    "params_ema",
    "polargrad",
    "proximal_weight_decay",
    "qk_clip",
    "radial_brake",
    "reduce_on_plateau",
    "relative_update",
    "renormalize",
    "round_stochastically",
    "scale",
    "scale_by_acprop",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adam_atan2",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_apollo",
    "scale_by_asgd",
    "scale_by_belief",
    "scale_by_confidence",
    "scale_by_dion",
    "scale_by_dion2",
    "scale_by_dion3",
    "scale_by_factored_rms",
    "scale_by_galore",
    "scale_by_kl_shampoo",
    "scale_by_kl_soap",
    "scale_by_kron",
    "scale_by_laprop",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_madgrad",
    "scale_by_muon",
    "scale_by_nadam",
    "scale_by_namo",
    "scale_by_novograd",
    "scale_by_optimistic_gradient",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_qhadam",
    "scale_by_qhm",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_row_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_shampoo",
    "scale_by_shape",
    "scale_by_sign",
    "scale_by_simplified_ademamix",
    "scale_by_sinksoap",
    "scale_by_sm3",
    "scale_by_soap",
    "scale_by_splus",
    "scale_by_stable_adam",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_yogi",
    "set_to_zero",
    "snapshot",
    "stateless",
    "step_and_shrink",
    "take_sign_of_grad",
    "trace",
    "zero_nans",
]
