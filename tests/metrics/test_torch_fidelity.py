"""Metrics through the whole Inception network, against other implementations on the same weights."""

import itertools
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch_fidelity
from helpers.images import ImageDataset, example_images
from helpers.measured import KnownReference, measured
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from langevin.evaluation.evaluation import Evaluation
from langevin.features.inception import Inception
from langevin.metrics.fid import FrechetDistance
from langevin.metrics.inception_score import InceptionScore
from langevin.metrics.kid import KernelDistance
from langevin.metrics.precision_recall import PrecisionRecall
from langevin.metrics.reference import Reference
from langevin.samplers.pipeline import SampleBatch

MEAN_STD = ("mean", "std")
SHARED = Path(__file__).parents[3] / "shared" / "data"


def shared(name):
    if not (SHARED / name).exists():
        pytest.skip(f"no {SHARED / name}")
    return SHARED / name


def as_tensor(images):
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()


def cifar(count):
    with zipfile.ZipFile(shared("cifar10-test.zip")) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        return as_tensor([Image.open(archive.open(name)) for name in names[:: len(names) // count][:count]])


def cars(count):
    """Photographs cut to 80 x 56."""
    with tarfile.open(shared("stanford_cars-80px.tar")) as archive:
        opened = (Image.open(archive.extractfile(member)) for member in archive if member.name.endswith(".jpg"))
        large = (image.convert("RGB") for image in opened if image.width >= 80 and image.height >= 56)
        return as_tensor([image.crop((0, 0, 80, 56)) for image in itertools.islice(large, count)])


def mixed(count):
    """Larger than Inception's own 299."""
    return example_images(count, size=340, seed=5)


def assert_equal_to_torch_fidelity(samples, reference, weights, directory):
    splits, subsets, size, k = 4, 5, 8, 2
    metrics = {
        "fid": FrechetDistance(min_samples=2),
        "inception_score": InceptionScore(splits),
        "kid": KernelDistance(subsets, size),
        "precision_recall": PrecisionRecall(k, k),
    }
    evaluation = Evaluation(Inception(str(weights)), metrics, directory)
    evaluation.prepare(len(samples), Reference(reference.permute(0, 2, 3, 1).numpy()), {})
    evaluation.gather()
    for part in torch.arange(len(samples)).split(24):
        evaluation.add(SampleBatch(part, samples[part], {}))
    values = {name: list(of_metric.values()) for name, of_metric in evaluation.compute().items()}

    expected = torch_fidelity.calculate_metrics(
        input1=ImageDataset(samples),
        input2=ImageDataset(reference),
        feature_extractor="inception-v3-compat",  # or precision and recall would be of VGG-16
        feature_extractor_weights_path=str(weights),
        fid=True,
        isc=True,
        isc_splits=splits,
        kid=True,
        kid_subsets=subsets,
        kid_subset_size=size,
        prc=True,
        prc_neighborhood=k,
        batch_size=16,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no loader processes
    )
    fid, mean, std = expected["frechet_inception_distance"], *(expected[f"inception_score_{name}"] for name in MEAN_STD)
    assert fid > 1
    assert mean > 1.05
    assert std > 0.001
    assert 0 < expected["precision"] * expected["recall"] < 1
    assert values["fid"] == pytest.approx([fid], rel=1e-5)
    assert values["inception_score"] == [pytest.approx(mean, rel=1e-5), pytest.approx(std, rel=1e-4)]
    assert values["kid"] == pytest.approx(
        [expected[f"kernel_inception_distance_{name}"] for name in ("mean", "std")], 1e-5
    )
    assert values["precision_recall"][:2] == pytest.approx([expected["precision"], expected["recall"]], rel=1e-5)


@pytest.mark.slow
def test_inception_score_equals_torch_fidelity(inception_weights, tmp_path):
    samples = example_images(9, seed=1)
    metrics = {"inception_score": InceptionScore(splits=3)}
    evaluation = Evaluation(Inception(str(inception_weights)), metrics, tmp_path)
    evaluation.prepare(9, Reference(samples.permute(0, 2, 3, 1).numpy()), {})
    evaluation.gather()
    for part in torch.arange(9).split(5):
        evaluation.add(SampleBatch(part, samples[part], {}))
    expected = torch_fidelity.calculate_metrics(
        input1=ImageDataset(samples),
        feature_extractor_weights_path=str(inception_weights),
        isc=True,
        isc_splits=3,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no loader processes
    )
    assert expected["inception_score_mean"] > 1.05
    assert list(evaluation.compute()["inception_score"].values()) == pytest.approx(list(expected.values()), rel=1e-5)


@pytest.mark.slow  # decomposing 2048 x 2048 matrices takes most of it
def test_equals_torch_fidelity(inception_weights, tmp_path):
    samples, reference = example_images(28, seed=1, contrast=0.7), example_images(16, seed=2)
    assert_equal_to_torch_fidelity(samples, reference, inception_weights, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [cifar, cars, mixed])
def test_equals_torch_fidelity_on_photographs_and_large_images(draw, inception_weights, tmp_path):
    # With more images, but fewer than features, torch-fidelity's FID itself is off by more than 1e-5 (next test).
    images = draw(40)
    assert_equal_to_torch_fidelity(images[:22], images[22:], inception_weights, tmp_path)


def by_singular_values(samples, reference):
    """Exact also for singular covariances: tr (S1 S2)^(1/2) is the nuclear norm of X1 X2^T, X the centred features."""
    x1, x2 = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (samples, reference))
    trace = np.linalg.svd(x1 @ x2.T, compute_uv=False).sum()
    return np.square(samples.mean(0) - reference.mean(0)).sum() + np.square(x1).sum() + np.square(x2).sum() - 2 * trace


@pytest.mark.slow
def test_equals_the_closed_form_on_torch_fidelitys_features(inception_weights, tmp_path):
    """With so many fewer images than features its own FID, by eigenvalues of a product, is up to 1e-4 from it."""
    images = cifar(100)
    samples, reference = images[:60], images[40:]
    evaluation = Evaluation(Inception(str(inception_weights)), {"fid": FrechetDistance(min_samples=2)}, tmp_path)
    evaluation.prepare(60, Reference(reference.permute(0, 2, 3, 1).numpy()), {})
    evaluation.gather()
    for part in torch.arange(60).split(24):
        evaluation.add(SampleBatch(part, samples[part], {}))
    (value,) = evaluation.compute()["fid"].values()

    theirs = FeatureExtractorInceptionV3("any", ["2048"], feature_extractor_weights_path=str(inception_weights))
    with torch.no_grad():
        features = torch.cat([theirs(part)[0] for part in images.split(20)]).double().numpy()
    assert value == pytest.approx(by_singular_values(features[:60], features[40:]), rel=1e-6)


def pytorch_fids_distance(mean1, covariance1, mean2, covariance2):
    """The formula that pytorch-fid, clean-fid, EDM and ADM share."""
    root = scipy.linalg.sqrtm(covariance1 @ covariance2)
    return np.square(mean1 - mean2).sum() + np.trace(covariance1) + np.trace(covariance2) - 2 * np.trace(root.real)


@pytest.mark.slow
def test_equals_pytorch_fids_formula_on_inceptions_features(inception_weights):
    extractor = Inception(str(inception_weights))
    extractor.prepare()
    features = torch.cat([extractor(part)["features"] for part in example_images(26, seed=3).split(13)])
    samples, reference = features[:20] * 1.1, features[8:]
    for part in (slice(0, 12), slice(3, 2048, 171), slice(-12, None)):  # 12 features, or a root would take minutes
        first, second = samples[:, part], reference[:, part]
        (value,) = measured(FrechetDistance(min_samples=2), {"features": first}, KnownReference(second)).values()
        x, y = first.double().numpy(), second.double().numpy()
        expected = pytorch_fids_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
        assert float(value) == pytest.approx(expected, rel=1e-6)
