import numpy as np
import pytest
import torch
from helpers.extractors import TinyExtractor
from helpers.images import example_images, shown
from helpers.measured import KnownReference, measured, reference_of
from scipy.spatial.distance import cdist

from langevin.errors import UserError
from langevin.images import GridLabels, labelled_grid
from langevin.metrics.base import Plan
from langevin.metrics.memorisation import Memorisation

D = TinyExtractor.sizes["features"]


def draw(count, seed, scale=1.0):
    return scale * torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def run(samples, training, metric=None, order=None, official=False, images=None, training_images=None):
    """The metric after compute, and its only value's name and value."""
    metric = metric or Memorisation(shown=3, neighbours=2)
    images = example_images(len(samples), 8, seed=1) if images is None else images
    training_images = example_images(len(training), 8, seed=2) if training_images is None else training_images
    reference = KnownReference(training, images=training_images.permute(0, 2, 3, 1).numpy())
    ((name, value),) = measured(
        metric, {"features": samples, "stored": images}, reference, order=order, official=official
    ).items()
    return metric, name, float(value)


def authenticity(samples, training):
    return run(samples, training)[2]


def by_definition(samples, training):
    """Alaa et al. 2022, word by word."""
    between = cdist(samples.double(), training.double())
    within = cdist(training.double(), training.double())
    np.fill_diagonal(within, np.inf)
    return np.mean([row.min() > within[row.argmin()].min() for row in between])


@pytest.mark.parametrize("scale", [0.7, 1.0])
def test_equals_the_definition(scale):
    samples, training = draw(300, 1, scale), draw(400, 2)
    expected = by_definition(samples, training)
    assert 0.1 < expected < 0.9
    assert authenticity(samples, training) == pytest.approx(expected, rel=1e-14)


def test_it_is_known_in_one_dimension():
    """Training at 0, 1, 3, 10: nearest others at 1, 1, 2, 7."""
    training, samples = torch.tensor([[0.0], [1], [3], [10]]), torch.tensor([[-1.5], [1.9], [5.5], [4.9], [15], [18]])
    # -1.5 from 0: 1.5 > 1. 1.9 from 1: 0.9 < 1. 5.5 from 3: 2.5 > 2. 4.9: 1.9 < 2. 15 from 10: 5 < 7. 18: 8 > 7.
    assert authenticity(samples, training) == 3 / 6


def test_copies_are_not_authentic():
    training = draw(60, 2)
    assert authenticity(training[:20], training) == 0
    assert authenticity(training.flip(0), training) == 0
    copies = torch.cat([training[:20], draw(60, 3, 5.0)])
    assert authenticity(copies, training) == pytest.approx(0.75, abs=0.02)


def test_copies_of_images_that_occur_twice_are_not_authentic():
    """Nor may rounding make them so: such a training image is at no distance from its nearest other."""
    training = 1e3 + draw(60, 2) / 3
    assert authenticity(training[:20], training.repeat(2, 1)) == 0
    assert authenticity(training[:20] + 1e-2, training.repeat(2, 1)) == 1


def test_constant_images():
    third, half = torch.full((20, D), 1 / 3), torch.full((30, D), 0.5)
    assert authenticity(third, third) == 0
    assert authenticity(third, half) == 1


def test_fewer_samples_than_dimensions():
    samples, training = draw(2, 1), draw(3, 2)
    assert authenticity(samples, training) == by_definition(samples, training)


def test_a_third_of_a_fresh_draw_on_a_line_is_authentic():
    """Of M uniform points the nearest is at d with P(d > x) = exp(-2 M x); beyond it a gap of exp(-M x) must be < d."""
    rng = torch.Generator().manual_seed(0)
    training, samples = torch.rand(4000, 1, generator=rng), torch.rand(4000, 1, generator=rng)
    assert authenticity(samples, training) == pytest.approx(1 / 3, abs=0.02)


def test_order_of_arrival_does_not_matter():
    samples, training = draw(50, 1), draw(40, 2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    (first, *value), (second, *again) = run(samples, training), run(samples, training, order=order)
    assert value == again
    assert first.details == second.details
    assert np.array_equal(first.figure.pixels, second.figure.pixels)


def test_image_shows_samples_beside_their_nearest_training_images():
    samples, training = draw(9, 1), draw(30, 2)
    images, training_images = example_images(9, 8, seed=1), example_images(30, 8, seed=2)
    metric, _, _ = run(samples, training, Memorisation(shown=4, neighbours=3), None, False, images, training_images)
    by_features = cdist(samples[:4].double(), training.double())
    by_pixels = cdist(images[:4].flatten(1) / 255.0, training_images.flatten(1) / 255.0)
    for space, distances in (("features", by_features), ("pixels", by_pixels)):
        order = distances.argsort(1)[:, :3]
        found = metric.details[space]
        assert [row["images"] for row in found] == order.tolist()
        expected = np.take_along_axis(distances, order, 1)
        np.testing.assert_allclose([row["distances"] for row in found], expected, rtol=1e-6)
    rows = []
    for i in range(4):
        rows += [images[i], *training_images[by_features.argsort(1)[i, :3]]]
        rows += [*training_images[by_pixels.argsort(1)[i, :3]]]
    captions = []
    for one, other in zip(np.sort(by_features)[:, :3], np.sort(by_pixels)[:, :3], strict=True):
        captions += ["", *(f"{distance:.3g}" for distance in [*one, *other])]
    heads = [("sample", 1), ("nearest by features", 3), ("nearest by pixels", 3)]
    expected = labelled_grid(torch.stack(rows), 7, GridLabels(heads, (), captions))
    assert np.array_equal(metric.figure.pixels, expected.pixels)


def test_a_copy_is_shown_beside_its_original():
    training, training_images = draw(30, 2), example_images(30, 8, seed=2)
    metric, _, _ = run(training[10:14], training, None, None, False, training_images[10:14], training_images)
    for space in ("features", "pixels"):
        assert [row["images"][0] for row in metric.details[space]] == [10, 11, 12]
        assert [row["distances"][0] for row in metric.details[space]] == [0, 0, 0]


def test_grey_images_and_fewer_samples_than_are_shown():
    images, training_images = example_images(2, 8, 1, seed=1), example_images(5, 8, 1, seed=2)
    metric, _, _ = run(draw(2, 1), draw(5, 2), Memorisation(), None, False, images, training_images)
    assert [len(metric.details[space]) for space in ("features", "pixels")] == [2, 2]
    (first, second) = shown(metric.figure.pixels, 2, 11, heads=True, captions=True)
    assert np.array_equal([first[0], second[0]], images[:, 0])


def test_a_second_round_shows_its_own_samples():
    metric, _, _ = run(draw(9, 1), draw(30, 2))
    before = metric.figure
    metric.reset()
    metric.update({"features": draw(9, 3), "stored": example_images(9, 8, seed=3)}, {}, torch.arange(9))
    metric.compute()
    assert not np.array_equal(metric.figure.pixels, before.pixels)
    assert metric.figure.pixels.shape == before.pixels.shape


@pytest.mark.parametrize(("official", "key"), [(True, "authenticity@12"), (False, "authenticity_tiny-00000000@12")])
def test_name_contains_the_weights_and_the_number(official, key):
    assert run(draw(12, 1), draw(12, 2), official=official)[1] == key


@pytest.mark.parametrize(("number", "neighbours", "least"), [(4, 5, 5), (1, 1, 2)])
def test_too_few_training_images_are_refused(number, neighbours, least):
    message = rf"reference images={number} is too few for metrics\.memorisation\.neighbours={neighbours}: .* {least} im"
    with pytest.raises(UserError, match=message):
        Memorisation(neighbours=neighbours).check(Plan(9, reference_of(number), TinyExtractor()))
    Memorisation(neighbours=neighbours).check(Plan(1, reference_of(least), TinyExtractor()))
