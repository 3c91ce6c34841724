"""Sizes of about as many pixels, and how images get to them."""

import io

import numpy as np
import pytest
from PIL import Image

from langevin.data.buckets import RectangleTransform, Size, assigned, bucket_sizes, read_sizes, told
from langevin.data.image_folder import ImageFolder
from langevin.data.images import SquareTransform, stored_size


def test_buckets_are_the_square_and_rectangles_of_no_more_pixels():
    sizes = bucket_sizes(64, 8, 2.0)
    assert Size(64, 64) in sizes
    assert Size(48, 80) in sizes
    assert {Size(width, height) for height, width in sizes} == set(sizes)
    assert all(height * width <= 64 * 64 and max(height / width, width / height) <= 2 for height, width in sizes)
    for height, width in sizes:
        assert height * (width + 8) > 64 * 64 or height == width, "the widest"
    assert bucket_sizes(64, 8, 1.0) == bucket_sizes(64, 64, 9.0) == [Size(64, 64)]


def test_an_image_goes_to_the_nearest_proportions():
    buckets = [Size(12, 20), Size(16, 16), Size(20, 12)]
    sizes = np.array([[300, 500], [99, 100], [900, 200], [0, 0], [10, 31]], np.int32)
    assert assigned(sizes, buckets).tolist() == [0, 1, 2, 0, 0]  # what cannot be read goes where most are
    # Between 12:20 and 16:16 the border is at sqrt(12 / 20), where both are as far by the logarithm.
    border = np.sqrt(12 / 20)
    near = np.array([[round(10_000 * border * each), 10_000] for each in (0.99, 1.01)], np.int32)
    assert assigned(near, buckets).tolist() == [0, 1]


def test_a_ramp_is_cropped_to_its_centre_and_resized():
    """Of light that grows by 2 levels a pixel, each pixel of the result has what stood in its middle."""
    ramp = np.repeat(np.arange(0, 240, 2, np.uint8)[None], 30, 0)  # 30 x 120
    made = RectangleTransform(Size(12, 20), 1)(Image.fromarray(ramp))
    assert made.shape == (12, 20, 1)
    # 30 rows become 12, so the scale is 0.4, and 20 columns are the middle 50 of 120, from 35 on.
    middles = 35 + (np.arange(20) + 0.5) / 0.4 - 0.5
    assert np.abs(made[:, :, 0] - 2 * middles).max() <= 1
    tall = RectangleTransform(Size(20, 12), 3)(Image.fromarray(ramp.T))
    assert np.abs(tall[:, :, 2] - 2 * middles[:, None]).max() <= 1


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_an_image_of_the_right_size_keeps_its_pixels(size, pixels):
    image = pixels(0, *size)
    assert np.array_equal(RectangleTransform(Size(*size), 3)(Image.fromarray(image)), image)


def test_of_a_square_it_is_the_square_transform(pixels):
    image = Image.fromarray(pixels(1, 40, 40))
    assert np.array_equal(RectangleTransform(Size(16, 16), 3)(image), SquareTransform(16, 3)(image))


def test_what_is_told_of_the_size():
    """Of 30 x 120 pixels 12 x 48 remain, of which 14 columns at each side are cut off; what was enlarged is told so."""
    np.testing.assert_allclose(told(np.array([[30, 120]], np.int32), Size(12, 20)), [[12, 48, 0, 14, 12, 20]])
    np.testing.assert_allclose(told(np.array([[900, 1500]], np.int32), Size(12, 20)), [[12, 20, 0, 0, 12, 20]])
    np.testing.assert_allclose(told(np.array([[6, 6]], np.int32), Size(20, 12)), [[6, 6, 0, 4, 20, 12]])


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_sizes_are_those_of_the_decoded_images(tmp_path, pixels, kind, orientation):
    """From 5 on the stored rows are columns."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels(0, 20, 31)).save(tmp_path / f"a.{kind}", exif=exif)
    images = ImageFolder(str(tmp_path), 16).load("train").lazy
    assert read_sizes(images, "all").tolist() == [[31, 20] if orientation >= 5 else [20, 31]]
    assert images.open(0).size == images.size(0)


def test_the_size_of_what_is_no_image(tmp_path, pixels):
    Image.fromarray(pixels(1, 20, 31)).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    images = ImageFolder(str(tmp_path), 16).load("train").lazy
    assert read_sizes(images, "all").tolist() == [[20, 31], [0, 0]]
    with pytest.raises(ValueError, match="it is damaged"):
        stored_size(io.BytesIO(b"no image"))
