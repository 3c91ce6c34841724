"""FID and Inception Score through the whole network, against torch-fidelity on the same weights."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from helpers.pictures import pictures
from PIL import Image

from langevin.metrics.evaluation import Evaluation
from langevin.metrics.fid import FrechetDistance
from langevin.metrics.inception import Inception
from langevin.metrics.inception_score import InceptionScore

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10-test.zip"


class Pictures(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def assert_equal_to_torch_fidelity(samples, reference, weights, splits, fid_tolerance):
    evaluation = Evaluation(
        Inception(str(weights)),
        {"fid": FrechetDistance(min_samples=2), "inception_score": InceptionScore(splits)},
    )
    evaluation.prepare(len(samples), reference.permute(0, 2, 3, 1).numpy(), None)
    evaluation.add_reference(batch_size=16)
    for part in torch.arange(len(samples)).split(24):
        evaluation.add(samples[part], None, part)
    fid, mean, std = evaluation.compute().values()

    expected = torch_fidelity.calculate_metrics(
        input1=Pictures(samples),
        input2=Pictures(reference),
        feature_extractor_weights_path=str(weights),
        fid=True,
        isc=True,
        isc_splits=splits,
        batch_size=16,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no loader processes
    )
    assert expected["frechet_inception_distance"] > 1
    assert expected["inception_score_mean"] > 1.05
    assert expected["inception_score_std"] > 0.001
    assert fid == pytest.approx(expected["frechet_inception_distance"], rel=fid_tolerance)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-5)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-4)


def test_inception_score_equals_torch_fidelity(inception_weights):
    samples = pictures(9, seed=1)
    evaluation = Evaluation(Inception(str(inception_weights)), {"inception_score": InceptionScore(splits=3)})
    evaluation.prepare(9, samples.permute(0, 2, 3, 1).numpy(), None)
    for part in torch.arange(9).split(5):
        evaluation.add(samples[part], None, part)
    expected = torch_fidelity.calculate_metrics(
        input1=Pictures(samples),
        feature_extractor_weights_path=str(inception_weights),
        isc=True,
        isc_splits=3,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no loader processes
    )
    assert expected["inception_score_mean"] > 1.05
    assert list(evaluation.compute().values()) == pytest.approx(list(expected.values()), rel=1e-5)


@pytest.mark.slow  # decomposing 2048 x 2048 matrices takes most of it
def test_equals_torch_fidelity(inception_weights):
    samples, reference = pictures(28, seed=1, contrast=0.7), pictures(16, seed=2)
    assert_equal_to_torch_fidelity(samples, reference, inception_weights, splits=4, fid_tolerance=1e-5)


@pytest.mark.slow
def test_equals_torch_fidelity_on_cifar(inception_weights):
    if not CIFAR.exists():
        pytest.skip(f"no {CIFAR}")
    with zipfile.ZipFile(CIFAR) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::50]
        images = np.stack([np.asarray(Image.open(archive.open(name))) for name in names])
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    assert len(images) == 200
    # With so many fewer images than features torch-fidelity, which takes the eigenvalues of a product that is not
    # symmetric, is itself 7.5e-5 from the definition by singular values (ours: 1e-14, by the same measure).
    assert_equal_to_torch_fidelity(images[:120], images[80:], inception_weights, splits=10, fid_tolerance=2e-4)
