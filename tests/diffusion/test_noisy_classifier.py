import math

import pytest
import torch
from torch import nn

from langevin.diffusion import parameterization
from langevin.diffusion.classifier import NoisyClassifier
from langevin.diffusion.objective import CrossEntropy
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import UniformTimes

X = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Seen(nn.Module):
    """Keeps what it is shown; its logits are fixed."""

    def __init__(self, logits) -> None:
        super().__init__()
        self.logits = torch.tensor(logits, dtype=torch.float64)

    def forward(self, x, c_noise):
        self.x, self.c_noise = x, c_noise
        return self.logits.expand(len(x), -1)


def test_it_is_shown_what_a_denoisers_network_would_be():
    network, sigma = Seen([0.0, 1.0]), torch.tensor([0.1, 0.5, 2.0, 70.0], dtype=torch.float64)
    NoisyClassifier(network, GaussianProcess(EDMSchedule(), parameterization.EDMParameterization(sigma_data=0.5)))(
        X, sigma
    )
    expected = X / torch.sqrt(0.25 + sigma**2).reshape(-1, 1, 1, 1)  # Karras et al. 2022, table 1
    torch.testing.assert_close(network.x, expected)
    torch.testing.assert_close(network.c_noise, torch.log(sigma) / 4)
    NoisyClassifier(network, GaussianProcess(Linear(), Eps()))(X, torch.tensor(7.0, dtype=torch.float64))
    torch.testing.assert_close(network.x, X)
    assert network.c_noise.tolist() == [6.0] * 4


def test_it_gives_log_probabilities():
    classifier = NoisyClassifier(Seen([0.0, math.log(3.0)]), GaussianProcess(Linear(), Eps()))
    probabilities = classifier(X, torch.tensor(7.0, dtype=torch.float64)).exp()
    torch.testing.assert_close(probabilities, torch.tensor([0.25, 0.75], dtype=torch.float64).expand(4, 2))


def test_cross_entropy_of_noisy_images():
    network = Seen([0.0, 2.0, -1.0])
    t, labels = torch.tensor([1.0, 300.0, 700.0, 1000.0], dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    eps = torch.randn(X.shape, generator=torch.Generator().manual_seed(3), dtype=X.dtype)
    classifier = NoisyClassifier(network, GaussianProcess(Linear(), Eps()))
    terms = CrossEntropy(UniformTimes()).terms(classifier, X, classifier.process.mix(X, eps, t), {"label": labels}, t)
    alpha, sigma = (coefficient.reshape(-1, 1, 1, 1) for coefficient in Linear()(t))
    torch.testing.assert_close(network.x, alpha * X + sigma * eps)
    logits = network.logits.expand(4, -1)
    torch.testing.assert_close(terms["loss"], nn.functional.cross_entropy(logits, labels, reduction="none"))
    assert terms["accuracy"].tolist() == [0, 1, 0, 1]


def test_another_network_in_its_place():
    first, second = Seen([0.0]), Seen([0.0])
    classifier = NoisyClassifier(first, GaussianProcess(Linear(), Eps()))
    other = classifier.with_network(second)
    assert (other.network, other.process) == (second, classifier.process)


@pytest.mark.parametrize("t", [torch.tensor(5.0), torch.tensor([5.0, 9.0, 1.0, 1000.0])])
def test_one_time_or_one_a_image(t):
    network = Seen([0.0, 1.0])
    assert NoisyClassifier(network, GaussianProcess(Linear(), Eps()))(X, t.double()).shape == (4, 2)
    assert network.c_noise.tolist() == (t - 1).expand(4).tolist()
