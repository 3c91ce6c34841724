"""What a metric computes after the last sample stops at a signal too."""

import numpy as np
import pytest
import torch
from helpers.extractors import TinyExtractor
from helpers.images import example_images
from helpers.measured import KnownReference, measured

from langevin import interrupt
from langevin.metrics.energy_distance import EnergyDistance
from langevin.metrics.fid_by_class import FrechetDistanceByClass
from langevin.metrics.fid_infinity import ExtrapolatedFrechetDistance
from langevin.metrics.kid import KernelDistance
from langevin.metrics.memorisation import Memorisation
from langevin.metrics.precision_recall import PrecisionRecall

METRICS = {
    "kid": lambda: KernelDistance(subsets=3, subset_size=5),
    "precision_recall": lambda: PrecisionRecall(precision_recall_k=2, density_coverage_k=3),
    "memorisation": lambda: Memorisation(shown=2, neighbours=2),
    "fid_infinity": lambda: ExtrapolatedFrechetDistance(min_size=8, num_sizes=3),
    "energy_distance": lambda: EnergyDistance(),
    "fid_by_class": lambda: FrechetDistanceByClass(min_samples=5),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_stops_within_its_computation(name, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    samples, training = (torch.randn(24, TinyExtractor.sizes["features"], generator=generator) for _ in range(2))
    labels = torch.arange(24) % 2

    def reference():  # anew, for it keeps what was found of it
        return KnownReference(training, labels.numpy(), images)

    images = np.zeros((24, 8, 8, 3), np.uint8)
    outputs = {"features": samples, "stored": example_images(24, 8, seed=4)}
    assert measured(METRICS[name](), outputs, reference(), labels)
    monkeypatch.setattr(interrupt, "_received", "SIGTERM")
    with pytest.raises(interrupt.Interrupted, match="by SIGTERM"):
        measured(METRICS[name](), outputs, reference(), labels)
