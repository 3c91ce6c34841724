import pytest
import torch

from langevin.perceptual.perceptual import distance_of_levels

EAST, NORTH = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 0.5])


def level(*vectors, side=1):
    """A level of one image: a vector of activations at each position."""
    return torch.stack(vectors, 1).reshape(1, 2, side, -1)


def test_vectors_count_by_their_direction_each_level_by_the_mean_over_positions():
    a = [level(EAST), level(EAST, EAST, NORTH, NORTH, side=2)]
    b = [level(NORTH), level(EAST * 7, -EAST, NORTH, EAST, side=2)]
    assert float(distance_of_levels(a, b)) == pytest.approx(2 + (0 + 4 + 0 + 2) / 4, rel=1e-6)
    weights = [torch.tensor([1.0, 10.0]), torch.tensor([0.0, 1.0])]
    assert float(distance_of_levels(a, b, weights)) == pytest.approx(11 + (0 + 0 + 0 + 1) / 4, rel=1e-6)


def test_activations_of_zero_have_a_finite_gradient():
    a = torch.zeros(1, 2, 1, 1, requires_grad=True)
    for b in (torch.zeros(1, 2, 1, 1), level(EAST)):
        distance_of_levels([a], [b]).sum().backward()
        assert a.grad.isfinite().all()
