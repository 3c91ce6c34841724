"""The class of a noisy image."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.schedule import Schedule


class NoisyClassifier(nn.Module):
    """A network that classifies an image at any noise level: p(y | x_t).

    Source: ADM (Dhariwal and Nichol 2021), section 4.

    Args:
        network: maps (x, c_noise) to logits (B, number of classes).
        process: what noise is, and how x_t and its noise level are presented to the network.
    """

    def __init__(self, network: nn.Module, process: GaussianProcess) -> None:
        super().__init__()
        self.network = network
        self.process = process

    @property
    def schedule(self) -> Schedule:
        """How noise grows with time."""
        return self.process.schedule

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The log-probability of every class.

        Args:
            x_t: noisy images (B, C, H, W).
            t: times in (0, t_max], float64 on the CPU, of shape () or (B,).

        Returns:
            float32 or float64, as `x_t`: (B, number of classes).
        """
        logits = self.network(*self.process.present(x_t, t)).to(x_t.dtype)
        return functional.log_softmax(logits, dim=1)

    def with_network(self, network: nn.Module) -> "NoisyClassifier":
        """The same model with another network, such as one with EMA weights."""
        return NoisyClassifier(network, self.process)


class CleanClassifier(nn.Module):
    """A classifier of noisy images, applied to clean ones: deterministic, since no noise is drawn.

    It was not trained before the schedule's `t_min`, the time of least noise. So it is conditioned on that time, and
    its input is ``alpha x`` there: x_t without its noise, which is negligible.

    Args:
        classifier: the classifier, whose network has `features`, `levels` and `classify`.
    """

    def __init__(self, classifier: NoisyClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) of images (B, C, H, W) in [-1, 1], and the logits of their classes, (B, classes)."""
        network: Any = self.classifier.network
        features = network.features(*self._presented(x))
        return features, network.classify(features)

    def levels(self, x: Tensor) -> list[Tensor]:
        """The activations (B, C', h, w) of each level of the network, of images (B, C, H, W) in [-1, 1]."""
        network: Any = self.classifier.network
        return network.levels(*self._presented(x))

    def _presented(self, x: Tensor) -> tuple[Tensor, Tensor]:
        schedule = self.classifier.schedule
        t = torch.tensor(schedule.t_min, dtype=torch.float64)
        return self.classifier.process.present(broadcast_to(schedule(t).alpha, x) * x, t)
