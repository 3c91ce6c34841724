"""The closed forms that tests of restoration compare with, beside each other."""

import numpy as np
import torch
from experiments.exact_gaussian import COV, MEAN, CorrelatedGaussian, posterior

from langevin.diffusion.schedules.linear import Linear


def test_the_denoiser_is_the_posterior_mean_given_the_noisy_sample():
    denoiser = CorrelatedGaussian(Linear())
    x_t = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([1.0, 30.0, 300.0, 700.0, 1000.0], dtype=torch.float64)
    prediction = denoiser(x_t, t)
    for sample, (alpha, sigma) in enumerate(zip(*denoiser.schedule(t), strict=True)):
        noisy = x_t[sample].flatten()
        mean, _ = posterior(MEAN, COV, alpha * torch.eye(4, dtype=torch.float64), noisy, float(sigma) ** 2)
        torch.testing.assert_close(prediction.x[sample].flatten(), mean, rtol=1e-9, atol=1e-9)
        rest = (noisy - alpha * mean) / sigma
        torch.testing.assert_close(prediction.eps[sample].flatten(), rest, rtol=1e-7, atol=1e-7)


def test_the_posterior_is_what_conditioning_the_joint_density_gives():
    """By the precision of the joint Gaussian, with noise; and the measured numbers themselves, without."""
    A = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    y = torch.tensor([[0.2, -0.1, 0.4], [1.0, 0.3, -2.0]], dtype=torch.float64)
    mean, cov = posterior(MEAN, COV, A, y, 0.04)
    precision = np.linalg.inv(COV) + A.T.numpy() @ A.numpy() / 0.04
    expected = np.linalg.solve(precision, (np.linalg.inv(COV) @ MEAN.numpy())[:, None] + (A.T @ y.T).numpy() / 0.04).T
    np.testing.assert_allclose(cov.numpy(), np.linalg.inv(precision), rtol=1e-11)
    np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-11)
    mean, cov = posterior(MEAN, COV, A[[0, 2]], y[:, [0, 2]], 0.0)
    np.testing.assert_allclose((mean @ A[[0, 2]].T).numpy(), y[:, [0, 2]].numpy(), rtol=1e-12)
    assert float((A @ cov).abs().max()) < 1e-14
