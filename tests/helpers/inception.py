"""A stand-in for the official Inception weights, made here: the tests need no internet."""

import io
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.images import example_images


def write_inception_weights(path: Path, seed: int = 0) -> Path:
    """Write a state dict that `langevin.features.inception.Inception` takes, with random but telling features.

    PyTorch's default initialisation gives features with a spread of 1e-9, on which any two implementations agree: so
    He initialisation, and batch norm calibrated on a few images. Takes about 5 s.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict):
            """Nothing to load."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # average, so that one batch replaces the initial statistics
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.15)  # logits that differ by about 1 between images
        network.train()(example_images(16, seed=seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Inception weights, not the official ones."""
    return write_inception_weights(tmp_path_factory.mktemp("inception") / "weights.pth")
