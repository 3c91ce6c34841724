import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from langevin.data.images import (
    ArrayImages,
    ImageFiles,
    NativeTransform,
    PadTransform,
    SquareTransform,
    StretchTransform,
)


class Bytes:
    """An archive of one file."""

    path = "memory"

    def __init__(self, content):
        self.content = content

    def read(self, name):
        return self.content


def test_a_image_of_the_right_size_keeps_its_pixels(pixels):
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


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (20, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_image_on_a_background(pixels, height, width, channels):
    image = Image.fromarray(pixels(1, height, width))
    array = PadTransform(10, channels, (200, 30, 60))(image)
    rows, columns = height * 10 // max(height, width), width * 10 // max(height, width)
    top, left = (10 - rows) // 2, (10 - columns) // 2
    inside = (slice(top, top + rows), slice(left, left + columns))
    want = np.asarray(image.convert("L" if channels == 1 else "RGB").resize((columns, rows), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(array[inside], want.reshape(rows, columns, channels))
    outside = np.ones((10, 10), bool)
    outside[inside] = False
    colour = [200, 30, 60] if channels == 3 else [round(0.299 * 200 + 0.587 * 30 + 0.114 * 60)]
    np.testing.assert_array_equal(array[outside], np.broadcast_to(colour, (outside.sum(), channels)))
    assert outside.any() == (height != width)


def test_the_whole_image_stretched(pixels):
    image = Image.fromarray(pixels(1, 20, 50))
    want = np.asarray(image.resize((10, 10), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(StretchTransform(10, 3)(image), want)


@pytest.mark.parametrize(
    ("transform", "size", "enlarges"),
    [
        (SquareTransform(10, 3), (9, 30), True),
        (SquareTransform(10, 3), (10, 30), False),
        (StretchTransform(10, 3), (30, 9), True),
        (PadTransform(10, 3), (9, 30), False),
        (PadTransform(10, 3), (9, 9), True),
    ],
)
def test_what_is_enlarged(transform, size, enlarges):
    assert transform.enlarges(Image.new("RGB", size)) == enlarges


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


def opened(image, suffix="PNG", background=(255, 255, 255), **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return ImageFiles(Bytes(file.getvalue()), ["a"], background=background).open(0)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 30)])
@pytest.mark.parametrize("suffix", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_upon_the_background(pixels, background, suffix):
    alpha = np.linspace(0, 255, 100).reshape(10, 10).round()
    stored = np.dstack([pixels(6), alpha.astype(np.uint8)])
    array = np.asarray(opened(Image.fromarray(stored, "RGBA"), suffix, background, lossless=True))
    share = alpha[..., None] / 255
    np.testing.assert_allclose(array, stored[..., :3] * share + np.array(background) * (1 - share), atol=1)
    np.testing.assert_array_equal(array[alpha == 0], [background])
    np.testing.assert_array_equal(array[alpha == 255], stored[..., :3][alpha == 255])


def test_grey_with_transparency_stays_grey_where_the_background_is(pixels):
    image = Image.fromarray(np.dstack([pixels(7)[..., 0], np.full((10, 10), 255, np.uint8)]), "LA")
    image.putpixel((0, 0), (9, 0))
    grey = opened(image)
    assert (grey.mode, grey.getpixel((0, 0))) == ("L", 255)
    np.testing.assert_array_equal(np.asarray(grey)[1:], pixels(7)[1:, :, 0])
    assert opened(image, background=(255, 0, 0)).getpixel((0, 0)) == (255, 0, 0)


def test_a_transparent_entry_of_a_palette():
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 7, 7, 7])
    for suffix in ("PNG", "GIF"):
        array = np.asarray(opened(image, suffix, (1, 2, 3), transparency=1).convert("RGB"))
        assert array.tolist() == [[[255, 0, 0], [1, 2, 3]], [[0, 0, 255], [7, 7, 7]]]
    half = np.asarray(opened(image, "PNG", (0, 0, 0), transparency=bytes([128, 255, 255, 0])).convert("RGB"))
    assert half.tolist() == [[[128, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("depth", "row", "value", "want"),
    [
        (1, b"\x40", 1, [0, 77]),
        (2, b"\x90", 1, [170, 77]),
        (4, b"\x21", 1, [34, 77]),
        (8, b"\x22\x01", 1, [34, 77]),
        (16, b"\x22\x00\x22\x05", 0x2205, [34, 77]),
    ],
)
def test_one_transparent_level_of_grey(depth, row, value, want):
    png = png_of(2, depth, 0, row, struct.pack(">H", value))
    assert np.asarray(ImageFiles(Bytes(png), ["a"], background=(77, 77, 77)).open(0)).tolist() == [want]


@pytest.mark.parametrize(("depth", "levels"), [(8, (1, 2, 3)), (16, (0x180, 0x2FF, 0x300))])
def test_one_transparent_colour(depth, levels):
    one = struct.pack(f">3{'H' if depth == 16 else 'B'}", *levels)
    png = png_of(2, depth, 2, one + bytes(len(one)), struct.pack(">3H", *levels))
    lazy_images = ImageFiles(Bytes(png), ["a"], background=(7, 8, 9))
    assert np.asarray(lazy_images.open(0)).tolist() == [[[7, 8, 9], [0, 0, 0]]]


def png_of(width, depth, kind, row, transparent):
    """A PNG of one row, written by hand."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))
    body = chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def test_the_first_of_several_frames(pixels):
    frames = [Image.fromarray(pixels(seed)) for seed in (1, 2)]
    for suffix, options in (("TIFF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("GIF", {})):
        image = opened(frames[0], suffix, save_all=True, append_images=frames[1:], **options)
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels(1)).mean() < (
            12 if suffix == "GIF" else 0.1
        )


@pytest.mark.parametrize("suffix", ["PPM", "TGA", "ICO", "PDF"])
def test_other_formats_are_not_read_whatever_they_are_called(suffix):
    with pytest.raises(ValueError, match="damaged, or no PNG, JPEG"):
        opened(Image.new("RGB", (16, 16)), suffix)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels_is_not_decoded():
    header = struct.pack(">IIBBBBB", 10_000, 9_000, 1, 0, 0, 0, 0)
    bomb = png_of(2, 1, 0, b"\0", b"\0\0").replace(struct.pack(">IIBBBBB", 2, 1, 1, 0, 0, 0, 0), header)
    bomb = bomb.replace(
        struct.pack(">I", zlib.crc32(b"IHDR" + struct.pack(">IIBBBBB", 2, 1, 1, 0, 0, 0, 0))),
        struct.pack(">I", zlib.crc32(b"IHDR" + header)),
    )
    with pytest.raises(ValueError, match=r"10000x9000 pixels; allowed: at most 89,478,485"):
        ImageFiles(Bytes(bomb), ["a"]).open(0)


def test_exif_orientation_is_followed(pixels):
    array = pixels(3, 10, 6)
    lying = Image.fromarray(np.rot90(array).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated clockwise by 90 degrees
    file = io.BytesIO()
    lying.save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(ImageFiles(Bytes(file.getvalue()), ["a"]).open(0)), array)


def test_box_is_clipped_to_the_image_and_must_meet_it(pixels):
    array = pixels(4, 10, 12)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    lazy_images = ImageFiles(Bytes(file.getvalue()), ["a", "b"], [(2, 3, 99, 9), (12, 0, 20, 5)])
    np.testing.assert_array_equal(np.asarray(lazy_images.open(0)), array[3:9, 2:])
    with pytest.raises(ValueError, match="outside"):
        lazy_images.open(1)


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
    lazy_images = ArrayImages(np.arange(32, dtype=np.uint8).reshape(2, 4, 4))
    assert len(lazy_images) == 2
    np.testing.assert_array_equal(np.asarray(lazy_images.open(1)), lazy_images.array[1])
