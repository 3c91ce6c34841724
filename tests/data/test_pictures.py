import io

import numpy as np
import pytest
from PIL import Image

from langevin.data.pictures import ArrayPictures, FilePictures, NativeTransform, SquareTransform


class Bytes:
    """An archive of one file."""

    path = "memory"

    def __init__(self, content):
        self.content = content

    def read(self, name):
        return self.content


def test_a_picture_of_the_right_size_keeps_its_pixels(pixels):
    array = pixels(0, 12, 12)
    np.testing.assert_array_equal(SquareTransform(12, 3)(Image.fromarray(array)), array)


@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20), (20, 20), (7, 5)])
@pytest.mark.parametrize("size", [5, 8, 40])
def test_centre_crop_then_lanczos(pixels, height, width, size):
    array = pixels(1, height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(np.ascontiguousarray(array[top : top + side, left : left + side]))
    want = np.asarray(square if side == size else square.resize((size, size), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(SquareTransform(size, 3)(Image.fromarray(array)), want)


def test_resizing_is_antialiased():
    # One-pixel stripes: without antialiasing they stay black and white, with it they become grey.
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = SquareTransform(8, 1)(Image.fromarray(stripes))
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes(pixels, mode, channels):
    image = Image.fromarray(pixels(2)).convert(mode)
    array = SquareTransform(10, channels)(image)
    assert array.shape == (10, 10, channels)
    assert array.dtype == np.uint8
    want = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(array.shape)
    np.testing.assert_array_equal(array, want)


def test_sixteen_bits_keep_their_upper_byte():
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    file = io.BytesIO()
    Image.fromarray(levels * 257).save(file, "PNG")
    np.testing.assert_array_equal(SquareTransform(16, 1)(Image.open(file))[..., 0], levels)


def test_a_mode_of_unknown_range_is_refused():
    with pytest.raises(ValueError, match="mode F"):
        SquareTransform(4, 1)(Image.fromarray(np.zeros((4, 4), np.float32)))


def test_exif_orientation_is_followed(pixels):
    array = pixels(3, 10, 6)
    lying = Image.fromarray(np.rot90(array).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated clockwise by 90 degrees
    file = io.BytesIO()
    lying.save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(FilePictures(Bytes(file.getvalue()), ["a"]).open(0)), array)


def test_box_is_clipped_to_the_picture_and_must_meet_it(pixels):
    array = pixels(4, 10, 12)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    pictures = FilePictures(Bytes(file.getvalue()), ["a", "b"], [(2, 3, 99, 9), (12, 0, 20, 5)])
    np.testing.assert_array_equal(np.asarray(pictures.open(0)), array[3:9, 2:])
    with pytest.raises(ValueError, match="outside"):
        pictures.open(1)


def test_native_keeps_pixels_and_refuses_another_size_or_colour(pixels):
    grey, colour = Image.fromarray(pixels(5, 6, 8)[..., 0].copy()), Image.fromarray(pixels(5, 6, 8))
    assert NativeTransform.like(grey).shape == (6, 8, 1)
    assert NativeTransform.like(colour).shape == (6, 8, 3)
    np.testing.assert_array_equal(NativeTransform.like(colour)(colour), np.asarray(colour))
    with pytest.raises(ValueError, match=r"6x8.*8x6"):
        NativeTransform.like(colour)(colour.transpose(Image.Transpose.ROTATE_90))
    with pytest.raises(ValueError, match="colour"):
        NativeTransform.like(grey)(colour)


def test_arrays():
    pictures = ArrayPictures(np.arange(32, dtype=np.uint8).reshape(2, 4, 4))
    assert len(pictures) == 2
    np.testing.assert_array_equal(np.asarray(pictures.open(1)), pictures.array[1])
