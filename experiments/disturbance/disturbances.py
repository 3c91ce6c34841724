"""The disturbances by which FID was first examined (Heusel et al. 2017, arXiv 1706.08500, appendix A.1).

Each takes images uint8 (N, H, W, C), a level from 0, which changes nothing, and a generator of random numbers, and
gives images of the same shape and type. The levels are the paper's; lengths, which are there in pixels of its 64 x 64
images, grow with the images' height. What is drawn does not depend on the level: with the same generator a higher
level disturbs the same places more.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from langevin.errors import UserError

Images = NDArray[np.uint8]
Disturbance = Callable[[Images, float, np.random.Generator], Images]

PAPER_SIDE = 64
RECTANGLES = 5
SWIRL_EXTENT = 25  # pixels of the paper's images


def gaussian_noise(images: Images, level: float, rng: np.random.Generator) -> Images:
    """Mix each image with a share `level` of Gaussian noise, which is scaled to [0, 255]."""
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    least, most = (function(noise, axis=(1, 2, 3), keepdims=True) for function in (np.min, np.max))
    return _levels((1 - level) * images + level * 255 * (noise - least) / (most - least))


def gaussian_blur(images: Images, level: float, rng: np.random.Generator) -> Images:
    """Blur with a standard deviation of `level` pixels of the paper's images."""
    sigma = level * images.shape[1] / PAPER_SIDE
    return _levels(gaussian_filter(images.astype(np.float32), sigma, axes=(1, 2)))


def black_rectangles(images: Images, level: float, rng: np.random.Generator) -> Images:
    """Cover each image with five black rectangles, `level` times as high and as wide as itself."""
    size = np.rint(level * np.array(images.shape[1:3])).astype(int)
    corners = rng.random((len(images), RECTANGLES, 2)) * (np.array(images.shape[1:3]) - size + 1)
    result = images.copy()
    for image, own in zip(result, corners.astype(int), strict=True):
        for top, left in own:
            image[top : top + size[0], left : left + size[1]] = 0
    return result


def swirl(images: Images, level: float, rng: np.random.Generator) -> Images:
    """Turn each image about its centre, there by `level` radians and less outwards: bilinear interpolation."""
    height, width = images.shape[1:3]
    extent = SWIRL_EXTENT * height / PAPER_SIDE
    y, x = np.mgrid[:height, :width].astype(float)
    centre = ((height - 1) / 2, (width - 1) / 2)
    radius = np.hypot(y - centre[0], x - centre[1])
    # The paper's exponent as printed is 5 r / (ln 2 rho), scikit-image's too, which it describes.
    angle = np.arctan2(y - centre[0], x - centre[1]) + level * np.exp(-5 * radius / (np.log(2) * extent))
    origin = np.stack([centre[0] + radius * np.sin(angle), centre[1] + radius * np.cos(angle)])
    planes = np.moveaxis(images, 3, 1).reshape(-1, height, width).astype(np.float32)
    swirled = np.stack([map_coordinates(plane, origin, order=1, mode="nearest") for plane in planes])
    return _levels(np.moveaxis(swirled.reshape(len(images), -1, height, width), 1, 3))


def salt_and_pepper(images: Images, level: float, rng: np.random.Generator) -> Images:
    """Make a share `level` of the pixels black or white, each as often."""
    chosen, white = rng.random((2, *images.shape[:3], 1))
    return np.where(chosen < level, np.where(white < 0.5, np.uint8(255), np.uint8(0)), images)


def contamination(images: Images, level: float, rng: np.random.Generator, others: Images) -> Images:
    """Replace a share `level` of the images by others, uint8 (M, H, W, C).

    Raises:
        UserError: when there are too few others.
    """
    number = round(level * len(images))
    if len(others) < number:
        raise UserError(f"{number} images are to be replaced, but the other data set has only {len(others)}")
    places, chosen = (rng.permutation(len(those))[:number] for those in (images, others))
    result = images.copy()
    result[places] = others[chosen]
    return result


def _levels(values: NDArray[np.floating]) -> Images:
    return np.rint(values).clip(0, 255).astype(np.uint8)
