"""GMRES, for each sample by itself."""

import pytest
import torch

from langevin.restoration.gmres import gmres


def test_solves_what_is_neither_symmetric_nor_positive():
    torch.manual_seed(0)
    matrix, b = torch.randn(3, 5, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    b[1] = 0
    z = gmres(lambda v: (matrix @ v[:, :, None])[:, :, 0], b, 5)
    torch.testing.assert_close(z, torch.linalg.solve(matrix, b), atol=1e-8, rtol=0)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_leaves_the_least_residual_of_its_krylov_space(iterations):
    torch.manual_seed(1)
    matrix, b = torch.randn(5, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    z = gmres(lambda v: v @ matrix.T, b, iterations)
    powers = [b[0]]
    for _ in range(iterations):
        powers.append(matrix @ powers[-1])
    image = torch.stack(powers[1:], dim=1)
    least = torch.linalg.lstsq(image, b[0, :, None]).solution
    torch.testing.assert_close(matrix @ z[0], (image @ least)[:, 0], atol=1e-8, rtol=0)


def test_of_a_singular_system_nothing_is_outside_of_its_range():
    known = torch.tensor([1.0, 0, 1, 0])
    z = gmres(lambda v: 2 * known * v, 6 * known.expand(2, -1), 3)
    torch.testing.assert_close(z, 3 * known.expand(2, -1), atol=1e-5, rtol=0)
