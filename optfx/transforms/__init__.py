"""Transforms, each one change of the updates: the parts from which optimizers are chained.

| family | file | transforms |
|---|---|---|
| scaling | `scaling` | `identity`, `set_to_zero`, `freeze`, `stateless`, `scale`, `scale_by_learning_rate`, `scale_by_schedule`, `scale_by_sign` |
| momentum | `momentum` | `trace`, `ema` |
| adaptive | `adaptive/` | `scale_by_adam`, `scale_by_amsgrad`, `scale_by_nadam`, `scale_by_radam`, `scale_by_adamax`, `scale_by_rms`, `scale_by_stddev`, `scale_by_rss`, `scale_by_adadelta`, `scale_by_factored_rms`, `scale_by_rprop`, `scale_by_ademamix`, `scale_by_simplified_ademamix`, `scale_by_adopt`, `scale_by_stable_adam`, `scale_by_confidence`, `scale_by_novograd`, `scale_by_sm3` |
| for matrices | `matrix` | `scale_by_muon` |
| in proportion to size | `size`, `trust` | `scale_by_param_block_norm`, `scale_by_param_block_rms`, `scale_by_shape`, `scale_by_trust_ratio`, `step_and_shrink` |
| of a given norm | `normalize` | `normalize`, `normalize_by_update_norm` |
| with another direction | `grams` | `take_sign_of_grad` |
| dual averaging | `madgrad` | `scale_by_madgrad` |
| weight decay | `decay` | `add_decayed_weights` |
| limits | `clipping` | `clip`, `clip_by_block_rms`, `clip_by_global_norm`, `adaptive_grad_clip` |
| averages of the parameters | `averages` | `params_ema`, `params_average` |
| cleaner gradients | `centralize`, `nans`, `noise` | `centralize`, `zero_nans`, `add_noise` |
| rates that watch progress | `plateau`, `asgd` | `reduce_on_plateau`, `scale_by_asgd` |

Every number of a transform is a float, a () tensor, or a schedule `count -> value`; the first update reads
`schedule(0)`. Updates are added to params; only `scale_by_learning_rate` flips the sign.
"""  # noqa: E501

from optfx.transforms.adaptive.adadelta import scale_by_adadelta
from optfx.transforms.adaptive.adam import scale_by_adam
from optfx.transforms.adaptive.adamax import scale_by_adamax
from optfx.transforms.adaptive.ademamix import scale_by_ademamix, scale_by_simplified_ademamix
from optfx.transforms.adaptive.adopt import scale_by_adopt
from optfx.transforms.adaptive.amsgrad import scale_by_amsgrad
from optfx.transforms.adaptive.came import scale_by_confidence
from optfx.transforms.adaptive.factored import scale_by_factored_rms
from optfx.transforms.adaptive.nadam import scale_by_nadam
from optfx.transforms.adaptive.novograd import scale_by_novograd
from optfx.transforms.adaptive.radam import scale_by_radam
from optfx.transforms.adaptive.rms import scale_by_rms, scale_by_rss, scale_by_stddev
from optfx.transforms.adaptive.rprop import scale_by_rprop
from optfx.transforms.adaptive.sm3 import scale_by_sm3
from optfx.transforms.adaptive.stable import scale_by_stable_adam
from optfx.transforms.asgd import scale_by_asgd
from optfx.transforms.averages import params_average, params_ema
from optfx.transforms.centralize import centralize
from optfx.transforms.clipping import adaptive_grad_clip, clip, clip_by_block_rms, clip_by_global_norm
from optfx.transforms.decay import add_decayed_weights
from optfx.transforms.grams import take_sign_of_grad
from optfx.transforms.madgrad import scale_by_madgrad
from optfx.transforms.matrix import scale_by_muon
from optfx.transforms.momentum import ema, trace
from optfx.transforms.nans import zero_nans
from optfx.transforms.noise import add_noise
from optfx.transforms.normalize import normalize, normalize_by_update_norm
from optfx.transforms.plateau import reduce_on_plateau
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
from optfx.transforms.trust import scale_by_trust_ratio, step_and_shrink

__all__ = [
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "ema",
    "freeze",
    "identity",
    "normalize",
    "normalize_by_update_norm",
    "params_average",
    "params_ema",
    "reduce_on_plateau",
    "scale",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_asgd",
    "scale_by_confidence",
    "scale_by_factored_rms",
    "scale_by_learning_rate",
    "scale_by_madgrad",
    "scale_by_muon",
    "scale_by_nadam",
    "scale_by_novograd",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_shape",
    "scale_by_sign",
    "scale_by_simplified_ademamix",
    "scale_by_sm3",
    "scale_by_stable_adam",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "set_to_zero",
    "stateless",
    "step_and_shrink",
    "take_sign_of_grad",
    "trace",
    "zero_nans",
]
