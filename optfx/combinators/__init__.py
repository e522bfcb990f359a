"""Transforms made of other transforms.

| family | file | combinators |
|---|---|---|
| one after another | `chain` | `chain`, `named_chain` |
| side by side | `parallel` | `parallel`, `graft` |
| on some leaves | `masked` | `masked`, `partition` |
| which steps to take | `finite`, `when` | `apply_if_finite`, `when` |
| several gradients a step | `accumulate`, `skips` | `accumulate`, `skip_not_finite`, `skip_large_updates` |
| slow weights | `lookahead` | `lookahead` |
| averages that lead | `primal` | `schedule_free`, `gpa` |
| another point for the gradient | `ema_nesterov`, `sam` | `ema_nesterov`, `sam` |
| leaves in another shape | `viewed`, `views` | `viewed` |
| lengths and directions | `weight_norm` | `weight_norm` |
| begin anew | `reset` | `reset_every` |
| all leaves as one | `flatten` | `flatten` |
| numbers in the state | `inject` | `inject_hyperparams` |
| parameters in a wider dtype | `master` | `master_weights` |
| states in fewer bits | `stored`, `codecs` | `stored` |
| parameters from elsewhere | `anchored` | `anchored` |
"""

from optfx.combinators.accumulate import accumulate
from optfx.combinators.anchored import anchored
from optfx.combinators.chain import chain, named_chain
from optfx.combinators.ema_nesterov import ema_nesterov
from optfx.combinators.finite import apply_if_finite
from optfx.combinators.flatten import flatten
from optfx.combinators.inject import inject_hyperparams
from optfx.combinators.lookahead import lookahead
from optfx.combinators.masked import masked, partition
from optfx.combinators.master import master_weights
from optfx.combinators.parallel import graft, parallel
from optfx.combinators.primal import gpa, schedule_free
from optfx.combinators.reset import reset_every
from optfx.combinators.sam import sam
from optfx.combinators.skips import skip_large_updates, skip_not_finite
from optfx.combinators.stored import stored
from optfx.combinators.viewed import viewed
from optfx.combinators.weight_norm import weight_norm
from optfx.combinators.when import when

__all__ = [
    "accumulate",
    "anchored",
    "apply_if_finite",
    "chain",
    "ema_nesterov",
    "flatten",
    "gpa",
    "graft",
    "inject_hyperparams",
    "lookahead",
    "masked",
    "master_weights",
    "named_chain",
    "parallel",
    "partition",
    "reset_every",
    "sam",
    "schedule_free",
    "skip_large_updates",
    "skip_not_finite",
    "stored",
    "viewed",
    "weight_norm",
    "when",
]
