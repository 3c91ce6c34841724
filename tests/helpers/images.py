"""Seeded images with structure, for tests that need more than noise."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset


def example_images(count: int, size: int = 32, channels: int = 3, seed: int = 0, contrast: float = 1.0) -> Tensor:
    """Draw uint8 (count, channels, size, size): soft blobs of colour under a sharp random rectangle."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.randn(count, channels, 4, 4, generator=generator)
    images = interpolate(blobs, size=(size, size), mode="bicubic", align_corners=False)
    for image in images:
        (top, left), (height, width) = (torch.randint(1, size // 2, (2,), generator=generator).tolist() for _ in "ab")
        image[:, top : top + height, left : left + width] = torch.randn(channels, 1, 1, generator=generator)
    return (127.5 + 60 * contrast * images).clamp(0, 255).to(torch.uint8)


class ImageDataset(Dataset):
    """Images as torch-fidelity takes them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def shown(pixels, rows: int, columns: int, side: int = 8, scale: int = 8, *, heads: bool = False, captions=False):
    """The images in a labelled grid, by rows: one channel each, at their own size.

    It checks that they were enlarged without smoothing, that all else is grey, and that labels stand above, below and
    beside them where there are some, and nowhere else.
    """
    gap = scale * max(1, side // 16)
    pitch = scale * side + gap
    height, width, _ = pixels.shape
    labels = heads + rows * captions
    line = (height - gap - rows * pitch) // labels if labels else 0
    assert height == gap + rows * pitch + labels * line
    left, top = width - gap - columns * pitch, line * heads
    assert (pixels == pixels[..., :1]).all()
    ink = pixels[..., 0] < 128
    assert ink[:top].any() == heads
    assert ink[:, : left + gap].any() == bool(left)
    found = []
    for row in range(rows):
        y = top + gap + row * (pitch + line * captions)
        below = ink[y + scale * side : y + scale * side + gap + line * captions]
        assert below[:, left:].any() == captions
        large = [pixels[y : y + scale * side, x : x + scale * side, 0] for x in range(left + gap, width, pitch)]
        found.append([image[::scale, ::scale] for image in large])
        for image, small in zip(large, found[-1], strict=True):
            assert (image == small.repeat(scale, 0).repeat(scale, 1)).all()
    return found
