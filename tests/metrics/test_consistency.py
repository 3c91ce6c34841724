import numpy as np
import pytest
import torch
from helpers.extractors import TinyExtractor
from helpers.images import example_images
from helpers.measured import measured, reference_of

from langevin.errors import OptionError, UserError
from langevin.images import from_uint8
from langevin.metrics.base import Plan
from langevin.metrics.consistency import Consistency
from langevin.metrics.reference import Reference
from langevin.restoration.operators.average import Average
from langevin.restoration.operators.blur import Blur
from langevin.restoration.operators.box import BoxMask


def consistency(operator, samples, targets, order=None):
    values = measured(Consistency(operator), {"stored": samples}, reference_of(1), order=order, targets=targets)
    assert list(values) == ["consistency"]
    return float(values["consistency"])


def pairs():
    """Images whose numbers are off by up to as many levels as their number."""
    targets = example_images(23, 16, 3)
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(1))
    return (targets + noise * torch.arange(23)[:, None, None, None]).clamp(0, 255).to(torch.uint8), targets


def test_is_the_mean_of_each_images_root_mean_square_in_levels():
    samples, targets = pairs()
    gap = (samples.double() - targets).numpy().reshape(23, 3, 4, 4, 4, 4).mean((3, 5))
    expected = np.sqrt((gap**2).mean((1, 2, 3))).mean()
    order = torch.randperm(23, generator=torch.Generator().manual_seed(2))
    assert consistency(Average(4), samples, targets) == pytest.approx(expected, rel=1e-13)
    assert consistency(Average(4), samples, targets, order) == pytest.approx(expected, rel=1e-13)
    assert consistency(Average(4), targets, targets) == 0


def test_levels_are_model_values_times_half_their_number():
    samples, targets = pairs()
    gap = Blur(1.0)(from_uint8(samples).double()) - Blur(1.0)(from_uint8(targets).double())
    expected = 127.5 * gap.square().mean((1, 2, 3)).sqrt().mean()
    assert consistency(Blur(1.0), samples, targets) == pytest.approx(float(expected), rel=1e-6)


def test_unknown_pixels_neither_matter_nor_count():
    samples, targets = pairs()
    known = torch.ones(16, 16, dtype=torch.bool)
    known[4:12, 4:12] = False
    gap = (samples.double() - targets)[:, :, known]
    expected = float(gap.square().mean((1, 2)).sqrt().mean())
    assert consistency(BoxMask(), samples, targets) == pytest.approx(expected, rel=1e-13)
    repainted = torch.where(known, samples, 255 - samples)
    assert consistency(BoxMask(), repainted, targets) == pytest.approx(expected, rel=1e-13)


def test_what_cannot_be_measured_is_refused():
    def check(operator, images):
        Consistency(operator).check(Plan(4, reference_of(4), TinyExtractor(), target=Reference(images)))

    images = np.zeros((4, 6, 6, 1), np.uint8)
    check(Average(2), images)
    with pytest.raises(OptionError, match=r"^factor is 4; allowed for images of 6 x 6 pixels: 2, 3, 6$"):
        check(Average(4), images)
    with pytest.raises(UserError, match=r"nothing is measured of these images"):
        check(BoxMask(1.0, 1.0), images)
    with pytest.raises(UserError, match=r"metrics\.consistency is of images, but"):
        check(Average(2), np.zeros((4, 2), np.float32))


def test_the_operator_is_part_of_the_protocol():
    assert Consistency(Average(4)).record() == {"operator": Average(4).record()}
