"""FID's sums and value are those of the CPU, and so are the metrics of pairs of images."""

import numpy as np
import torch
from gpu_helpers import greatest
from helpers.backbones import save_backbone
from helpers.extractors import TinyExtractor
from helpers.images import example_images
from helpers.measured import KnownReference

from langevin.metrics.base import Plan
from langevin.metrics.fid import FrechetDistance
from langevin.metrics.lpips import LPIPS
from langevin.metrics.psnr import PSNR
from langevin.metrics.reference import Reference
from langevin.metrics.ssim import SSIM

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


def test_metrics_of_pairs_are_those_of_the_cpu(device, record_property, tmp_path):
    samples, targets = example_images(20, 40, seed=1), example_images(20, 40, seed=2)
    plan = Plan(20, target := Reference(targets.permute(0, 2, 3, 1).numpy()), TinyExtractor(), target=target)
    weights = str(save_backbone(tmp_path / "squeeze.pth", "squeeze"))
    for metric, tolerance in ((PSNR(), 1e-12), (SSIM(), 1e-9), (LPIPS("squeeze", weights), 1e-5)):
        values = []
        for place in ("cpu", device):
            metric.to(place).begin(plan)
            metric.to(place)
            metric.update({"stored": samples.to(place)}, {}, torch.arange(20), targets.to(place))
            values.append(float(*metric.compute().values()))
            metric.reset()
        error = abs(values[1] / values[0] - 1)
        record_property(metric.name, error)
        assert error < tolerance
