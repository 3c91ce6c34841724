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
