"""Transforms for matrices, one idea a file."""
