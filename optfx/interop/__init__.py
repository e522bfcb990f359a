"""Edges to PyTorch's own world: `torch.optim`, checkpoints, sharded parameters."""
