"""Transforms made of other transforms.

| family | file | combinators |
|---|---|---|
| one after another | `chain` | `chain`, `named_chain` |
| side by side | `parallel` | `parallel`, `graft` |
| on some leaves | `masked` | `masked`, `partition` |
| in time | `finite` | `apply_if_finite` |
| numbers in the state | `inject` | `inject_hyperparams` |
| parameters in a wider dtype | `master` | `master_weights` |
| parameters from elsewhere | `anchored` | `anchored` |
"""

from optfx.combinators.anchored import anchored
from optfx.combinators.chain import chain, named_chain
from optfx.combinators.finite import apply_if_finite
from optfx.combinators.inject import inject_hyperparams
from optfx.combinators.masked import masked, partition
from optfx.combinators.master import master_weights
from optfx.combinators.parallel import graft, parallel

__all__ = [
    "anchored",
    "apply_if_finite",
    "chain",
    "graft",
    "inject_hyperparams",
    "masked",
    "master_weights",
    "named_chain",
    "parallel",
    "partition",
]
