"""Where optfx meets PyTorch's own world.

| file | what it does |
|---|---|
| `torch_optimizer` | a transform as an optimizer of `torch.optim`, for loops and trainers that expect one |
| `convert` | from an optimizer of `torch.optim` to a chain and back, in the middle of a run |
| `checkpoint` | any tree of tensors as `{path: tensor}`, and as one file |

`torch_specs` says how each optimizer of `torch.optim` is written here, and `patterns` reads that backwards. Of
`TorchOptimizer`, `groups` has the numbers of parameter groups, `owners` what belongs to whom, `members` the parameters,
`program` a step of some of them, `torch_state` where their state is kept, and `torch_load` what fits of a saved one.
"""

from optfx.interop.checkpoint import load, load_state_dict, save, state_dict
from optfx.interop.convert import from_torch, to_torch
from optfx.interop.torch_optimizer import TorchOptimizer

__all__ = ["TorchOptimizer", "from_torch", "load", "load_state_dict", "save", "state_dict", "to_torch"]
