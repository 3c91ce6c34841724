"""FID's sums and value are those of the CPU."""

import numpy as np
import torch
from gpu_helpers import greatest
from helpers.extractors import TinyExtractor
from helpers.measured import KnownReference

from langevin.metrics.base import Plan
from langevin.metrics.fid import FrechetDistance

D = 64
NUMBER = 2000


def features(seed, scale):
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(D, D))
    return torch.from_numpy(generator.normal(size=(NUMBER, D)) @ mixing * scale + 1).float()


def measure(samples, reference, device):
    """The Gaussian of the samples, and their distance."""
    metric = FrechetDistance(min_samples=2)
    extractor = TinyExtractor()
    extractor.sizes = {**extractor.sizes, "features": D}
    metric.to(device).begin(Plan(NUMBER, KnownReference(reference), extractor))
    metric.to(device)
    for part in torch.arange(NUMBER).split(300):
        metric.update({"features": samples[part].to(device)}, {}, part)
    (value,) = metric.compute().values()
    assert value.device.type == device
    gaussian = metric.samples.compute()
    return gaussian.mean.cpu(), gaussian.covariance.cpu(), value.cpu()


def test_fid_is_that_of_the_cpu(device, record_property):
    samples, reference = features(1, 1.3), features(2, 1.0)
    ours, expected = measure(samples, reference, device), measure(samples, reference, "cpu")
    errors = {
        name: greatest(a, b) for name, a, b in zip(("mean", "covariance", "distance"), ours, expected, strict=True)
    }
    for name, error in errors.items():
        record_property(name, error)
    assert float(expected[2]) > 1
    assert max(errors.values()) < 1e-9, errors
