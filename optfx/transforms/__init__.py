"""One change of the updates each: what optimizers are chained from.

| family | transforms |
|---|---|
| scaling | `identity`, `set_to_zero`, `freeze`, `stateless`, `scale`, `scale_by_learning_rate`, `scale_by_schedule`, `scale_by_sign` |
| momentum | `trace`, `ema` |
| averaging | `params_ema`, `params_average` |
| adaptive | `scale_by_adam`, `scale_by_amsgrad`, `scale_by_nadam`, `scale_by_radam`, `scale_by_adamax`, `scale_by_rms`, `scale_by_stddev`, `scale_by_rss`, `scale_by_adadelta`, `scale_by_factored_rms`, `scale_by_param_block_rms`, `scale_by_rprop`, `scale_by_asgd`, `reduce_on_plateau` |
| for matrices | `scale_by_muon`, `scale_by_shape` |
| regularizing | `add_decayed_weights`, `add_noise`, `centralize` |
| limiting | `clip`, `clip_by_block_rms`, `clip_by_global_norm`, `adaptive_grad_clip`, `zero_nans` |

Every number of a transform is a float, a () tensor, or a schedule `count -> value`; the first update reads
`schedule(0)`. Updates are added to params; only `scale_by_learning_rate` flips the sign.
"""  # noqa: E501

from optfx.transforms.adadelta import ScaleByAdadeltaState, scale_by_adadelta
from optfx.transforms.adam import ScaleByAdamState, scale_by_adam
from optfx.transforms.adamax import ScaleByAdamaxState, scale_by_adamax
from optfx.transforms.amsgrad import ScaleByAmsgradState, scale_by_amsgrad
from optfx.transforms.asgd import ParamsAverageState, ScaleByAsgdState, params_average, scale_by_asgd
from optfx.transforms.averages import ParamsEmaState, params_ema
from optfx.transforms.centralize import centralize
from optfx.transforms.clipping import (
    ClipByGlobalNormState,
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
)
from optfx.transforms.decay import add_decayed_weights
from optfx.transforms.factored import ScaleByFactoredRmsState, scale_by_factored_rms, scale_by_param_block_rms
from optfx.transforms.momentum import EmaState, TraceState, ema, trace
from optfx.transforms.muon import ScaleByMuonState, scale_by_muon, scale_by_shape
from optfx.transforms.nadam import ScaleByNadamState, scale_by_nadam
from optfx.transforms.nans import ZeroNansState, zero_nans
from optfx.transforms.noise import AddNoiseState, add_noise
from optfx.transforms.plateau import ReduceOnPlateauState, reduce_on_plateau
from optfx.transforms.radam import scale_by_radam
from optfx.transforms.rms import (
    ScaleByRmsState,
    ScaleByRssState,
    ScaleByStddevState,
    scale_by_rms,
    scale_by_rss,
    scale_by_stddev,
)
from optfx.transforms.rprop import ScaleByRpropState, scale_by_rprop
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

__all__ = [
    "AddNoiseState",
    "ClipByGlobalNormState",
    "EmaState",
    "ParamsAverageState",
    "ParamsEmaState",
    "ReduceOnPlateauState",
    "ScaleByAdadeltaState",
    "ScaleByAdamState",
    "ScaleByAdamaxState",
    "ScaleByAmsgradState",
    "ScaleByAsgdState",
    "ScaleByFactoredRmsState",
    "ScaleByMuonState",
    "ScaleByNadamState",
    "ScaleByRmsState",
    "ScaleByRpropState",
    "ScaleByRssState",
    "ScaleByStddevState",
    "TraceState",
    "ZeroNansState",
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
    "stateless",
    "trace",
    "zero_nans",
]
