"""Adaptive steps: each element, or each matrix, is divided by a measure of its past gradients."""
