"""RAdam once its mean of squares is trusted, which the laws, of three steps, do not reach."""

import pytest
import torch

import optfx
from optfx import tree


def rectified(b2, g, steps=9):
    tx = optfx.scale_by_radam(b2=b2)
    state = tx.init({"w": g})
    for step in range(steps):
        updates, state = tx.update({"w": g * (1 + step)}, state)
    return updates["w"]


G = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)


def test_the_updates_are_no_longer_those_of_the_momentum():
    assert rectified(torch.tensor(0.99), G).abs().max() < 1
    assert rectified(torch.tensor(0.99), G, steps=5).abs().max() > 1


def test_a_batch_is_a_loop_on_both_sides_of_the_threshold():
    decays = torch.tensor([0.5, 0.9, 0.999], dtype=torch.float64)  # the first is never trusted
    batch = torch.func.vmap(rectified, (0, None))(decays, G)
    torch.testing.assert_close(batch, torch.stack([rectified(b2, G) for b2 in decays]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("b2", [0.5, 0.6, 0.99])
def test_derivatives_are_finite(b2):
    def total(b2, g):
        return rectified(b2, g).sum()

    derivative = torch.func.grad(total, argnums=(0, 1))(torch.tensor(b2, dtype=torch.float64), G)
    assert tree.all_finite(derivative)
