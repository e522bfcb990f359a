"""What a transform is: its numbers, the base classes, applying updates, selectors, donation, modules.

What authors of transforms need is only here: `GradientTransformation`, `Stateless`, `Wrapper`, `Hyper`, `NonNegative`,
`Decay`, `Beta`, `counter`, `bias_correction`, `skip_unless`, `every`, `when_due`. What a training loop needs is also
in `optfx` itself.
"""

from optfx.core import select
from optfx.core.by_path import hyperparams, numbers, with_numbers
from optfx.core.carry import carry
from optfx.core.describe import describe
from optfx.core.donate import donate
from optfx.core.every import every, when_due
from optfx.core.foreign import as_transform, from_functions
from optfx.core.hyper import (
    Beta,
    Decay,
    Hyper,
    NonNegative,
    Number,
    Schedule,
    bias_correction,
    counter,
    hyper_fields,
    is_number,
)
from optfx.core.micro_grad import micro_grad
from optfx.core.modules import grads, load_params, params
from optfx.core.transform import (
    EXTRA_ARGS,
    Count,
    GradientTransformation,
    Stateless,
)
from optfx.core.updates import apply_updates, incremental_update, skip_unless
from optfx.core.wrapper import Wrapper

__all__ = [
    "EXTRA_ARGS",
    "Beta",
    "Count",
    "Decay",
    "GradientTransformation",
    "Hyper",
    "NonNegative",
    "Number",
    "Schedule",
    "Stateless",
    "Wrapper",
    "apply_updates",
    "as_transform",
    "bias_correction",
    "carry",
    "counter",
    "describe",
    "donate",
    "every",
    "from_functions",
    "grads",
    "hyper_fields",
    "hyperparams",
    "incremental_update",
    "is_number",
    "load_params",
    "micro_grad",
    "numbers",
    "params",
    "select",
    "skip_unless",
    "when_due",
    "with_numbers",
]
