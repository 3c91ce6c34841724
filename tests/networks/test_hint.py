"""Hints: what they are computed as, what the network is given, and what guidance compares with."""

import numpy as np
import pytest
import torch
from helpers.commands import composed
from PIL import Image
from scipy import ndimage

from langevin.assembly.components import make_model
from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Several
from langevin.conditions.hint import COLUMN, Hint, edges
from langevin.diffusion.draws import BatchDraws
from langevin.errors import OptionError, UserError
from langevin.images import from_uint8
from langevin.spec import DataSpec

B, SIDE = 5, 8


def hint(kind="edges", threshold=None, dropout=0.0):
    return Hint(kind=kind, threshold=threshold, dropout=dropout, image_size=SIDE)


def images(channels=3):
    levels = torch.randint(256, (B, channels, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    return from_uint8(levels.to(torch.uint8))


def test_edges_are_sobels_gradient():
    levels = torch.rand(B, 1, SIDE, SIDE + 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = zip(edges(levels).numpy()[:, 0], levels.numpy()[:, 0], strict=True)
    for found, image in pairs:
        dy, dx = (ndimage.sobel(image, axis, mode="nearest") / 4 for axis in (0, 1))
        np.testing.assert_allclose(found, np.minimum(np.hypot(dx, dy), 1), rtol=1e-12)


def test_a_straight_edge_between_black_and_white_is_one_and_an_even_image_has_none():
    levels = torch.zeros(2, 1, SIDE, SIDE)
    levels[0, :, :, 3:] = 1
    upright, even = edges(levels)
    assert upright[0, 4].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert not even.any()
    assert torch.equal(edges(levels.mT)[0], upright.mT)


def test_a_threshold_makes_edges_black_and_white():
    x = images()
    soft, hard = hint().hint(x), hint(threshold=0.5).hint(x)
    assert hard.unique().tolist() == [0, 1]
    assert torch.equal(hard.bool(), soft >= 0.5)
    with pytest.raises(OptionError, match=r"is 0\.5; allowed with kind=grey: null"):
        hint("grey", threshold=0.5)


def test_grey_hints_are_the_levels_that_pillow_has():
    x = images()
    found = hint("grey").hint(x)
    rgb = ((x + 1) * 127.5).round().byte().movedim(1, -1).numpy()
    wanted = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in rgb])
    assert np.abs(found.numpy()[:, 0] * 255 - wanted).max() <= 1.001, "it rounds otherwise"
    single = images(1)
    assert torch.allclose(hint("grey").hint(single), (single + 1) / 2)


@pytest.mark.parametrize("kind", ["edges", "grey"])
def test_hints_are_levels_of_a_file_and_mirrored_with_the_image(kind):
    x, condition = images(), hint(kind)
    found = condition.derive(x, BatchDraws(0, x, B))[COLUMN]
    assert (found.shape, found.dtype) == ((B, 1, SIDE, SIDE), torch.float32)
    assert 0 <= found.min() < 0.2
    assert 0.5 < found.max() <= 1
    assert torch.equal((255 * found).round() / 255, found)
    assert torch.equal(condition.hint(x.flip(-1)), found.flip(-1))
    assert torch.equal(condition.hint(x.flip(-2)), found.flip(-2))


def test_the_network_sees_the_hint_beside_x():
    x, condition = images(), hint()
    column = condition.derive(x, BatchDraws(0, x, B))[COLUMN]
    assert torch.equal(condition({COLUMN: column}, B).concat, column)
    with pytest.raises(UserError, match="hint: the shape"):
        condition({COLUMN: column[..., 1:]}, B)
    with pytest.raises(UserError, match="follows hints, and none were given"):
        condition(None, B)
    cfg, _ = composed("train", "model.channels=32", "model.channel_multipliers=[1]", "conditions=[hint]")
    assert make_model(cfg, DataSpec.of_images(3, SIDE, None)).network.first.in_channels == 4


def test_guidance_keeps_the_hint_unless_it_may_be_dropped():
    column = hint().hint(images())
    cond = {"label": torch.arange(B), COLUMN: column}
    for dropout in (0.0, 0.5):
        both = Several({"label": ClassLabel(10, dropout=0.1, dim=4), "hint": hint(dropout=dropout)})
        null = both.null(cond)
        assert null["label"].tolist() == [-1] * B
        assert torch.equal(null[COLUMN], column if dropout == 0 else torch.full_like(column, -1)), "no black hint"
        assert both.has_dropout
    assert torch.equal(hint(dropout=0.5)(None, B).concat, null[COLUMN])
