"""The quickstart's samples beside real digits, each above the training image nearest to it; and a strip of samples.

See README.md for the command.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image, ImageDraw, ImageFont

import langevin
from langevin.assembly.run import make_data
from langevin.images import enlarged, image_grid, write_png

Images = NDArray[np.uint8]

REAL, PAIRS = 2, 3
"""Rows of real digits, and of samples with a row of training images below each."""
STRIP = (2, 20)
"""Rows and columns of the strip."""
SCALE = 8
"""How many times an image is enlarged, without smoothing."""
GAP, WIDE_GAP, MARGIN = 8, 28, 150
"""In pixels of the figure: between images, between groups of rows, and for the names at the left."""


def main() -> None:
    """Read the command line; sample, write the figure, and print how near samples and held-out digits come."""
    parser = argparse.ArgumentParser("python -m experiments.quickstart.figure", description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run of digits by class, such as outputs/quickstart")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "samples.png", help="the figure; strip.png beside it"
    )
    parser.add_argument("--num-samples", type=int, default=500, help="how many the printed distance is a median of")
    given = parser.parse_args()
    run = langevin.load(given.run)
    data = make_data(DictConfig(run.config))
    data.prepare_data()
    assert data.test_set is not None
    training = np.array(data.train_set.samples)
    samples = run.sample(given.num_samples, batch_size=250).samples  # every class in turn
    distances, nearest = nearest_images(samples, training)

    of_classes = [np.flatnonzero(data.train_set.labels == label) for label in range(10)]
    groups = [[("real", training[[of_class[row] for of_class in of_classes]]) for row in range(REAL)]]
    for row in range(PAIRS):
        columns = slice(10 * row, 10 * (row + 1))
        groups.append([("samples", samples[columns]), ("nearest real", training[nearest[columns]])])
    write_png(given.out, figure(groups))
    strip = torch.from_numpy(samples[: STRIP[0] * STRIP[1]]).permute(0, 3, 1, 2)
    write_png(given.out.with_name("strip.png"), image_grid(strip, STRIP[1]), SCALE // 2)
    for name, values in (
        ("samples", distances),
        ("held-out digits", nearest_images(data.test_set.samples, training)[0]),
    ):
        print(f"median distance to the nearest training image, {len(values)} {name}: {np.median(values):.2f}")


def nearest_images(images: Images, training: Images) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The training image nearest to each image, in pixel space.

    Args:
        images: uint8 (N, H, W, C).
        training: uint8 (M, H, W, C).

    Returns:
        the Euclidean distances (N,), of pixels in [0, 1], and the places in `training` (N,).
    """
    rows, others = (torch.tensor(np.array(each)).flatten(1).double() / 255 for each in (images, training))
    distances, places = torch.cdist(rows, others).min(dim=1)
    return distances.numpy(), places.numpy()


def figure(groups: list[list[tuple[str, Images]]]) -> Images:
    """Named rows of images in groups, on white.

    Args:
        groups: of each row its name and uint8 (N, H, W, 1), N the same in all.

    Returns:
        uint8 (H', W', 3).
    """
    number, side = len(groups[0][0][1]), SCALE * groups[0][0][1].shape[1]
    height = sum(len(group) * (side + GAP) for group in groups) + (len(groups) - 1) * (WIDE_GAP - GAP) + GAP
    canvas = Image.new("RGB", (MARGIN + number * (side + GAP), height), "white")
    draw, font, top = ImageDraw.Draw(canvas), ImageFont.load_default(18), GAP
    for group in groups:
        for name, images in group:
            draw.text((MARGIN - 14, top + side // 2), name, "black", font, anchor="rm")
            for column, image in enumerate(images):
                shown = enlarged(np.repeat(image, 3, axis=-1), SCALE)
                canvas.paste(shown, (MARGIN + column * (side + GAP), top))
            top += side + GAP
        top += WIDE_GAP - GAP
    return np.array(canvas)


if __name__ == "__main__":
    main()
