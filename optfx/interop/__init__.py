"""Edges to PyTorch's own world: `torch.optim`, checkpoints, sharded parameters."""

from optfx.interop.checkpoint import load, load_state_dict, save, state_dict
from optfx.interop.convert import from_torch, to_torch
from optfx.interop.torch_optimizer import TorchOptimizer

__all__ = ["TorchOptimizer", "from_torch", "load", "load_state_dict", "save", "state_dict", "to_torch"]
