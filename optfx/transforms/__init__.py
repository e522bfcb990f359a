"""One change of the updates each."""

from optfx.transforms.adam import ScaleByAdamState, scale_by_adam
from optfx.transforms.clipping import ClipByGlobalNormState, clip_by_global_norm
from optfx.transforms.decay import add_decayed_weights
from optfx.transforms.scaling import identity, scale, scale_by_learning_rate, scale_by_schedule
