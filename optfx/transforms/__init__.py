"""Transforms, each one change of the updates: the parts from which optimizers are chained.

| family | file | transforms |
|---|---|---|
| scaling | `scaling` | `identity`, `set_to_zero`, `freeze`, `stateless`, `scale`, `scale_by_learning_rate`, `scale_by_schedule`, `scale_by_sign` |
| momentum | `momentum` | `trace`, `ema` |
| adaptive | `adaptive/` | `scale_by_adam`, `scale_by_amsgrad`, `scale_by_nadam`, `scale_by_radam`, `scale_by_adamax`, `scale_by_rms`, `scale_by_stddev`, `scale_by_rss`, `scale_by_adadelta`, `scale_by_factored_rms`, `scale_by_rprop` |
| for matrices | `matrix` | `scale_by_muon` |
| in proportion to size | `size` | `scale_by_param_block_rms`, `scale_by_shape` |
| weight decay | `decay` | `add_decayed_weights` |
| limits | `clipping` | `clip`, `clip_by_block_rms`, `clip_by_global_norm`, `adaptive_grad_clip` |
| averages of the parameters | `averages` | `params_ema`, `params_average` |
| cleaner gradients | `centralize`, `nans`, `noise` | `centralize`, `zero_nans`, `add_noise` |
| several updates at once | `apply_every` | `apply_every` |
| measurements | `monitor` | `monitor`, `snapshot` |
| rates that watch progress | `plateau`, `asgd` | `reduce_on_plateau`, `scale_by_asgd` |

Every number of a transform is a float, a () tensor, or a schedule `count -> value`; the first update reads
`schedule(0)`. Updates are added to params; only `scale_by_learning_rate` flips the sign.
"""  # noqa: E501

from optfx.transforms.adaptive.adadelta import scale_by_adadelta
from optfx.transforms.adaptive.adam import scale_by_adam
from optfx.transforms.adaptive.adamax import scale_by_adamax
from optfx.transforms.adaptive.amsgrad import scale_by_amsgrad
from optfx.transforms.adaptive.factored import scale_by_factored_rms
from optfx.transforms.adaptive.nadam import scale_by_nadam
from optfx.transforms.adaptive.radam import scale_by_radam
from optfx.transforms.adaptive.rms import scale_by_rms, scale_by_rss, scale_by_stddev
from optfx.transforms.adaptive.rprop import scale_by_rprop
from optfx.transforms.apply_every import apply_every
from optfx.transforms.asgd import scale_by_asgd
from optfx.transforms.averages import params_average, params_ema
from optfx.transforms.centralize import centralize
from optfx.transforms.clipping import adaptive_grad_clip, clip, clip_by_block_rms, clip_by_global_norm
from optfx.transforms.decay import add_decayed_weights
from optfx.transforms.matrix import scale_by_muon
from optfx.transforms.momentum import ema, trace
from optfx.transforms.monitor import monitor, snapshot
from optfx.transforms.nans import zero_nans
from optfx.transforms.noise import add_noise
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
from optfx.transforms.size import scale_by_param_block_rms, scale_by_shape

__all__ = [
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "apply_every",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "ema",
    "freeze",
    "identity",
    "monitor",
    "params_average",
    "params_ema",
    "reduce_on_plateau",
    "scale",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_amsgrad",
    "scale_by_asgd",
    "scale_by_factored_rms",
    "scale_by_learning_rate",
    "scale_by_muon",
    "scale_by_nadam",
    "scale_by_param_block_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_shape",
    "scale_by_sign",
    "scale_by_stddev",
    "set_to_zero",
    "snapshot",
    "stateless",
    "trace",
    "zero_nans",
]
