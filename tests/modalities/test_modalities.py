"""Every modality gives back what it was given, and shows it."""

import pytest
import torch

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


@pytest.mark.parametrize(("modality", "stored"), CASES[:2])
def test_a_file_of_an_image(modality, stored, tmp_path):
    from PIL import Image

    modality.write(tmp_path / "a.png", stored[0])
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB"
        assert image.getpixel((5, 2)) == tuple(stored[0, :, 2, 5].expand(3).tolist())
