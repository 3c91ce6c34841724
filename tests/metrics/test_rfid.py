import numpy as np
import pytest
import torch
from helpers.extractors import TinyExtractor
from helpers.measured import KnownReference, measured, reference_of

from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.fid import FrechetDistance
from langevin.metrics.reference import Reference
from langevin.metrics.rfid import ReconstructionFrechetDistance


@pytest.mark.parametrize(("official", "own", "general"), [(True, "rfid@30", "fid@30"), (False, "rfd_", "fd_")])
def test_it_is_the_distance_of_fid_under_a_name_of_its_own(official, own, general):
    generator = torch.Generator().manual_seed(0)
    samples, originals = torch.randn(2, 30, 4, generator=generator)
    targets = torch.zeros(30, 1, 8, 8, dtype=torch.uint8)
    given = {"features": samples}, KnownReference(originals)
    ((name, value),) = measured(ReconstructionFrechetDistance(), *given, official=official, targets=targets).items()
    ((other, expected),) = measured(FrechetDistance(), *given, official=official).items()
    assert float(value) == float(expected) > 0
    assert (name.startswith(own), other.startswith(general)) == (True, True)


def test_another_reference_than_the_targets_is_refused():
    metric, images = ReconstructionFrechetDistance(min_samples=2), np.zeros((9, 8, 8, 1), np.uint8)
    originals = Reference(images)
    metric.check(Plan(9, originals, TinyExtractor(), target=originals))
    metric.check(Plan(9, reference_of(9), TinyExtractor(), target=originals))
    for other in (Reference(images + 1), reference_of(8), Reference(None)):
        with pytest.raises(UserError, match=r"metrics\.rfid .* leave out reference=\.\.\. and data=\.\.\., or take"):
            metric.check(Plan(9, other, TinyExtractor(), target=originals))


def test_too_few_images_are_refused_under_its_own_name():
    with pytest.raises(UserError, match=r"num_samples=15 is too few for metrics\.rfid.*set metrics\.rfid\.min_samples"):
        ReconstructionFrechetDistance().check(Plan(15, reference_of(15), TinyExtractor(), target=reference_of(15)))
