"""The known part of a sample: random masks, what the network is given, and what finished samples keep."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.commands import composed

from langevin.assembly.components import make_model
from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Several
from langevin.conditions.inpaint import COLUMN, Inpaint, _distance, known_part, random_masks
from langevin.diffusion.draws import BatchDraws, SampleDraws
from langevin.errors import UserError
from langevin.images import from_uint8, to_uint8
from langevin.spec import DataSpec

B, C, SIDE = 6, 3, 8


def inpaint(dropout=0.0):
    return Inpaint(dropout=dropout, in_channels=C, image_size=SIDE)


def images(n=B):
    levels = torch.randint(256, (n, C, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return from_uint8(levels)


def kind_of(mask):
    """Whether a mask is a half, a box, or anything else; and the sides of the box that it fills."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    sides = (len(rows), len(columns))
    if mask.sum() != sides[0] * sides[1] or (np.diff(rows) > 1).any() or (np.diff(columns) > 1).any():
        return "stroke", sides
    at_end = rows[0] == 0 or rows[-1] == len(mask) - 1, columns[0] == 0 or columns[-1] == len(mask) - 1
    half = len(mask) // 2
    return ("half" if all(at_end) and sorted(sides) == [half, len(mask)] else "box"), sides


def test_random_masks_are_of_the_documented_kinds():
    n, side = 4000, 32
    x = torch.zeros(n, 1, side, side)
    masks = random_masks(BatchDraws(5, x, n), side, side)
    assert (masks.shape, masks.dtype) == ((n, 1, side, side), torch.bool)
    kinds = [kind_of(mask) for mask in masks[:, 0].numpy()]
    shares = {kind: sum(name == kind for name, _ in kinds) / n for kind in ("box", "half", "stroke")}
    assert shares == pytest.approx({"box": 0.5, "half": 0.25, "stroke": 0.25}, abs=0.03)
    sides = np.array([each for name, each in kinds if name == "box"]) / side
    assert 0.25 - 1 / side <= sides.min()
    assert sides.max() <= 0.75 + 1 / side
    assert sides.mean(0) == pytest.approx([0.5, 0.5], abs=0.02)
    boxes = masks[[index for index, (name, _) in enumerate(kinds) if name == "box"], 0].float().mean(0)
    assert torch.allclose(boxes, boxes.flip(0), atol=0.08), "at no side of the image more often than at the other"
    assert torch.allclose(boxes, boxes.flip(1), atol=0.08)
    halves = {mask.numpy().tobytes() for (name, _), mask in zip(kinds, masks, strict=True) if name == "half"}
    assert len(halves) == 4
    strokes = masks[[index for index, (name, _) in enumerate(kinds) if name == "stroke"]].float().mean((1, 2, 3))
    assert strokes.min() > 0
    assert strokes.max() < 0.75


def test_a_stroke_is_all_within_a_distance_of_its_path():
    """Against the nearest of many points on it."""
    points = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    place = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    found = _distance(place.reshape(1, -1, 1), place.reshape(1, 1, -1), points)
    share = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    for path, distance in zip(points, found, strict=True):
        dense = torch.cat([a + (b - a) * share for a, b in pairwise(path)])
        pixels = torch.cartesian_prod(place, place)
        assert torch.allclose(distance.flatten(), torch.cdist(pixels, dense).min(1).values, atol=1e-3)


def test_masks_belong_to_the_samples():
    """Whatever the process and the batch."""
    x = images(8)
    whole = inpaint().derive(x, BatchDraws(7, x, 8))[COLUMN]
    for rank in range(2):
        part = inpaint().derive(x[rank::2], BatchDraws(7, x[rank::2], 8, rank, 2))[COLUMN]
        assert torch.equal(part, whole[rank::2])
    assert not torch.equal(whole, inpaint().derive(x, BatchDraws(8, x, 8))[COLUMN])
    sampled = inpaint().derive(x, SampleDraws(3, range(8), x.shape[1:]), sampling=True)[COLUMN]
    assert torch.equal(inpaint().derive(x[5:6], SampleDraws(3, [5], x.shape[1:]), True)[COLUMN], sampled[5:6])


def test_the_network_sees_the_known_part_and_where_it_is():
    x, condition = images(), inpaint()
    column = condition.derive(x, BatchDraws(3, x, B))[COLUMN]
    known = column[:, C:]
    assert known.unique().tolist() == [0, 1]
    assert torch.equal(column[:, :C], x * known)
    assert torch.equal(condition({COLUMN: column}, B).concat, column)
    assert not condition(None, B).concat.any()
    with pytest.raises(UserError, match="inpaint: the shape"):
        condition({COLUMN: column[:, 1:]}, B)
    cfg, _ = composed("train", "model.channels=32", "model.channel_multipliers=[1]", "conditions=[inpaint]")
    assert make_model(cfg, DataSpec.of_images(C, SIDE, None)).network.first.in_channels == C + C + 1


def test_guidance_keeps_what_is_known_unless_it_may_be_dropped():
    x = images()
    column = known_part(x, torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool))
    cond = {"label": torch.arange(B), COLUMN: column}
    for dropout in (0.0, 0.5):
        part = inpaint(dropout)
        both = Several({"label": ClassLabel(10, dropout=0.1, dim=4), "inpaint": part})
        null = both.null(cond)
        assert null["label"].tolist() == [-1] * B
        assert torch.equal(null[COLUMN], column if dropout == 0 else torch.zeros_like(column))
        assert both.has_dropout


def test_finished_samples_have_the_known_pixels_to_the_last_level():
    x, made = images(), -images()
    known = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2)) < 0.5
    both = Several({"label": ClassLabel(10, dropout=0.1, dim=4), "inpaint": inpaint()})
    finished = to_uint8(both.finish(made, {"label": torch.arange(B), COLUMN: known_part(x, known)}))
    assert torch.equal(finished, to_uint8(torch.where(known, x, made)))
    assert torch.equal(both.finish(made, {"label": torch.arange(B)}), made)
