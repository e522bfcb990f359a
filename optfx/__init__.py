"""optfx: composable optimizers for PyTorch."""

from optfx import random, tree
from optfx.combinators import *
from optfx.core import *
from optfx.optimizers import *
from optfx.transforms import *
from optfx.core import select
