"""Every modality gives back what it was given, and shows it."""

import numpy as np
import pytest
import torch
from helpers.images import shown

from langevin.images import Figure
from langevin.modalities.image import ImageModality
from langevin.modalities.vector import VectorModality

CASES = [
    (ImageModality(), torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)),
    (ImageModality(), torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)),
    (VectorModality(), torch.randn(6, 2)),
    (VectorModality(), torch.randn(6, 1)),
]


@pytest.mark.parametrize(("modality", "stored"), CASES)
def test_there_and_back(modality, stored):
    x = modality.to_model(stored)
    assert x.dtype == torch.float32
    assert x.shape == stored.shape
    assert torch.equal(modality.from_model(x), stored)


@pytest.mark.parametrize(("modality", "stored"), CASES)
def test_figures(modality, stored):
    few, many = modality.preview(stored, 3), modality.strips([stored] * 2, [stored] * 2, stored)
    for figure in (few, many):
        assert isinstance(figure, Figure)
        assert figure.pixels.dtype.name == "uint8"
        assert figure.pixels.shape[2] == 3
    assert many.pixels.shape[1] > few.pixels.shape[1] * 0.9


@pytest.mark.parametrize("stored", [stored for _, stored in CASES[:1]])
def test_an_image_beside_what_it_was_made_of(stored):
    kinds = {"original": stored, "noise": stored.flip(0), "rebuilt": 255 - stored}
    rows = shown(ImageModality().beside(kinds, 6, [*"abcdef"]).enlarged(), 3, 6, heads=True, captions=True)
    expected = torch.stack([*kinds.values()], 1)[:, :, 0].reshape(3, 6, 8, 8)
    assert np.array_equal(rows, expected)


def test_strips_are_labelled_where_times_are_given():
    stored = CASES[0][1][:2]
    frames, plain = [stored, 255 - stored], ImageModality().strips([stored] * 2, [stored] * 2, stored)
    rows = shown(
        ImageModality().strips(frames, frames, stored, ["t=1", "t=0.5"], ["a", "b"]).enlarged(), 4, 3, heads=True
    )
    assert np.array_equal(rows[2], [stored[1, 0], 255 - stored[1, 0], stored[1, 0]])
    assert np.array_equal(shown(plain.enlarged(), 4, 3)[0], [stored[0, 0]] * 3)


@pytest.mark.parametrize(("modality", "stored"), CASES)
def test_vectors_have_no_labels(modality, stored):
    without, labelled = modality.preview(stored, 3), modality.preview(stored, 3, [*"abcdef"])
    assert np.array_equal(without.pixels, labelled.pixels) == isinstance(modality, VectorModality)


@pytest.mark.parametrize(("modality", "stored"), CASES[:2])
def test_a_file_of_an_image(modality, stored, tmp_path):
    from PIL import Image

    modality.write(tmp_path / "a.png", stored[0])
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB"
        assert image.getpixel((5, 2)) == tuple(stored[0, :, 2, 5].expand(3).tolist())
