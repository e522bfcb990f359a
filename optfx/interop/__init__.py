"""Edges to PyTorch's own world: `torch.optim`, checkpoints, sharded parameters."""

from optfx.interop.checkpoint import load, load_state_dict, save, state_dict
from optfx.interop.torch_optimizer import TorchOptimizer

__all__ = ["TorchOptimizer", "load", "load_state_dict", "save", "state_dict"]
