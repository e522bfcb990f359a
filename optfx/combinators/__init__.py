"""Transforms made of transforms."""

from optfx.combinators.chain import chain, named_chain
from optfx.combinators.finite import ApplyIfFiniteState, apply_if_finite
from optfx.combinators.inject import InjectState, inject_hyperparams
from optfx.combinators.masked import PartitionState, masked, partition

__all__ = [
    "ApplyIfFiniteState",
    "InjectState",
    "PartitionState",
    "apply_if_finite",
    "chain",
    "inject_hyperparams",
    "masked",
    "named_chain",
    "partition",
]
