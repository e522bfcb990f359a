"""Recipes: a signature and one chain."""

from optfx.optimizers.adam import adam, adamw
