import numpy as np
import pytest
import scipy.linalg
import torch
from helpers.extractors import TinyExtractor
from helpers.measured import KnownReference, measured, reference_of

from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.sfid import SpatialFrechetDistance

D = TinyExtractor.sizes["spatial"]


def draw(count, seed, scale=1.0):
    return scale * torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_frechet_distance_of_the_spatial_features():
    samples, reference = draw(90, 1, 1.5), draw(70, 2)
    outputs = {"spatial": samples, "features": torch.zeros(90, 16)}
    (value,) = measured(SpatialFrechetDistance(2), outputs, KnownReference(reference)).values()
    (m1, s1), (m2, s2) = ((x.mean(0), np.cov(x.T)) for x in (samples.double().numpy(), reference.double().numpy()))
    expected = np.square(m1 - m2).sum() + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)
    assert expected > 1
    assert float(value) == pytest.approx(expected, rel=1e-9)


def test_it_asks_for_the_spatial_features_alone():
    assert SpatialFrechetDistance.reads == SpatialFrechetDistance.moments_of == ("spatial",)
    assert SpatialFrechetDistance.rows_of == ()


@pytest.mark.parametrize(("official", "key"), [(True, "sfid@12"), (False, "sfd_tiny-00000000@12")])
def test_name_contains_the_weights_and_the_number(official, key):
    outputs = {"spatial": draw(12, 1)}
    assert list(measured(SpatialFrechetDistance(2), outputs, KnownReference(draw(12, 2)), official=official)) == [key]


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match=r"num_samples=11 is too few for metrics\.sfid.* asks for 12.*sfid\.min_sampl"):
        SpatialFrechetDistance().check(Plan(11, reference_of(99), TinyExtractor()))
    SpatialFrechetDistance().check(Plan(12, reference_of(12), TinyExtractor()))
