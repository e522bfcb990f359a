"""Edges to PyTorch's own world: `torch.optim`, checkpoints, sharded parameters."""

from optfx.interop.checkpoint import load, load_state_dict, save, state_dict

__all__ = ["load", "load_state_dict", "save", "state_dict"]
