"""Transforms made of other transforms: one after another, on some leaves, with numbers in the state."""

from optfx.combinators.chain import chain, named_chain
from optfx.combinators.finite import apply_if_finite
from optfx.combinators.inject import inject_hyperparams
from optfx.combinators.masked import masked, partition

__all__ = ["apply_if_finite", "chain", "inject_hyperparams", "masked", "named_chain", "partition"]
