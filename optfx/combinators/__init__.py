"""Transforms made of other transforms.

| family | file | combinators |
|---|---|---|
| one after another | `chain` | `chain`, `named_chain` |
| on some leaves | `masked` | `masked`, `partition` |
| in time | `finite` | `apply_if_finite` |
| numbers in the state | `inject` | `inject_hyperparams` |
| parameters in a wider dtype | `master` | `master_weights` |
"""

from optfx.combinators.chain import chain, named_chain
from optfx.combinators.finite import apply_if_finite
from optfx.combinators.inject import inject_hyperparams
from optfx.combinators.masked import masked, partition
from optfx.combinators.master import master_weights

__all__ = [
    "apply_if_finite",
    "chain",
    "inject_hyperparams",
    "masked",
    "master_weights",
    "named_chain",
    "partition",
]
