"""Random numbers as pure functions of a key: no generator, no hidden state, the same numbers on every device.

A key is a (2,) int64 tensor that holds two 32-bit words (PyTorch has little arithmetic in uint32). Every number is a
hash of a key and a counter, Threefry-2x32 with 20 rounds. So a key is never used up: the same key gives the same
numbers again, and new numbers need new keys.

    key(seed)            a key
    split(key, num)      `num` independent keys
    fold_in(key, data)   the key of step, epoch or member number `data`
    bits, uniform, normal, rademacher          (key, shape, dtype) -> numbers
    split_like, random_like                    a key, or noise, for each leaf of a tree

Keys are made on the default device (`with torch.device("cuda")`, or `key(0).to("cuda")`), and numbers on the device of
the key. All of it works under `torch.func.vmap`, over keys, seeds or data (a batch of keys has the shape (n, 2)), and
under `torch.compile(fullgraph=True)`.

The numbers are those of `jax.random` in its default mode (`jax_threefry_partitionable`): keys, bits, rademacher and
uniform to the last bit, normal to the accuracy of jax's inverse error function. There are three deliberate differences,
all where jax depends on a flag, drops bits or is biased: `key` and `fold_in` take all 64 bits of an integer,
`rademacher` does not depend on `jax_enable_x64`, and `normal` in half precision is computed in float32.

Reference:
    Salmon, Moraes, Dror, Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.
"""

from optfx.random.keys import fold_in, key, split
from optfx.random.like import random_like, split_like
from optfx.random.samplers import Sampler, bits, normal, rademacher, uniform

__all__ = [
    "Sampler",
    "bits",
    "fold_in",
    "key",
    "normal",
    "rademacher",
    "random_like",
    "split",
    "split_like",
    "uniform",
]
