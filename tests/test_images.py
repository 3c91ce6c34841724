import numpy as np
import pytest
import torch
from helpers.images import shown
from PIL import Image

from langevin.images import (
    GridLabels,
    class_labels,
    enlargement,
    from_uint8,
    image_grid,
    labelled_grid,
    to_uint8,
    write_npz,
    write_png,
)

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_levels_run_from_minus_one_to_one():
    x = from_uint8(LEVELS)
    assert x.dtype == torch.float32
    expected = np.arange(256) / 127.5 - 1
    np.testing.assert_allclose(x.double().numpy().ravel(), expected, rtol=0, atol=6e-8)
    assert (x.min().item(), x.max().item()) == (-1.0, 1.0)


def test_images_themselves_are_left_alone():
    levels, x = LEVELS.clone(), torch.linspace(-2, 2, 9)
    before = x.clone()
    from_uint8(levels)
    to_uint8(x)
    assert torch.equal(levels, LEVELS)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_level_comes_back(dtype):
    back = to_uint8(from_uint8(LEVELS).to(dtype))
    assert back.dtype == torch.uint8
    assert torch.equal(back, LEVELS)


def test_rounds_to_the_nearest_level():
    levels = torch.arange(256, dtype=torch.float64)
    for shift in (-0.49, -0.1, 0.1, 0.49):
        assert torch.equal(to_uint8((levels + shift) / 127.5 - 1), levels.to(torch.uint8))


def test_clamps_what_lies_outside():
    x = torch.tensor([-1e9, -1.5, -1.01, 1.01, 1.5, 3.1, 1e9, float("inf"), float("-inf")])
    assert to_uint8(x).tolist() == [0, 0, 0, 255, 255, 255, 255, 255, 0]


def test_grid_lays_images_out_in_rows():
    images = torch.stack([torch.full((3, 4, 6), 10 * (i + 1), dtype=torch.uint8) for i in range(5)])
    images[:, 1] += 1  # channels differ
    grid = image_grid(images, columns=2)
    # One pixel of white around every image; the sixth place holds nothing.
    assert (grid.dtype, grid.shape) == (np.uint8, (3 * 5 + 1, 2 * 7 + 1, 3))
    covered = np.zeros(grid.shape[:2], bool)
    for i in range(5):
        top, left = 1 + 5 * (i // 2), 1 + 7 * (i % 2)
        shown = grid[top : top + 4, left : left + 6]
        assert (shown == [10 * (i + 1), 10 * (i + 1) + 1, 10 * (i + 1)]).all()
        covered[top : top + 4, left : left + 6] = True
    assert (grid[~covered] == 255).all()


def test_grid_keeps_the_pixels_of_an_image_in_place():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    grid = image_grid(images, columns=2)
    np.testing.assert_array_equal(grid[1:5, 6:10], images[1].permute(1, 2, 0).numpy())


def test_grid_of_large_images_has_a_wider_gap():
    assert image_grid(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), columns=2).shape == (2 * 34 + 2, 2 * 34 + 2, 3)


def test_grid_of_grey_images_is_in_colour():
    grid = image_grid(LEVELS.expand(3, 1, 16, 16), columns=3)
    assert grid.shape == (18, 3 * 17 + 1, 3)
    for channel in range(3):
        np.testing.assert_array_equal(grid[1:17, 1:17, channel], LEVELS[0, 0].numpy())


@pytest.mark.parametrize("scale", [1, 3])
def test_png_holds_the_pixels(tmp_path, scale):
    shown = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "new" / "image.png", shown, scale)
    with Image.open(tmp_path / "new" / "image.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        read = np.asarray(image)
    np.testing.assert_array_equal(read, shown.repeat(scale, 0).repeat(scale, 1))


def test_png_of_a_grid(tmp_path):
    grid = image_grid(torch.arange(96, dtype=torch.uint8).reshape(2, 3, 4, 4), columns=2)
    write_png(tmp_path / "grid.png", grid)
    with Image.open(tmp_path / "grid.png") as image:
        np.testing.assert_array_equal(np.asarray(image), grid)


def test_an_npz_is_written_part_by_part(tmp_path):
    parts = [np.full((2, 3, 3, 1), 5, np.uint8), np.full((1, 3, 3, 1), 6, np.uint8).transpose(0, 2, 1, 3)]
    write_npz(tmp_path / "a.npz", iter(parts), 3, arr_1=np.arange(3), record=np.array("text"))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert set(file.files) == {"arr_0", "arr_1", "record"}
        assert np.array_equal(file["arr_0"], np.concatenate(parts))
        assert file["arr_1"].tolist() == [0, 1, 2]
        assert str(file["record"]) == "text"


def test_an_npz_that_is_never_finished_is_not_there(tmp_path):
    def parts():
        yield np.zeros((2, 3), np.uint8)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_npz(tmp_path / "a.npz", parts(), 4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "times"), [(8, 8), (32, 2), (64, 1), (256, 1), (48, 1)])
def test_small_images_are_enlarged(size, times):
    assert enlargement(size) == times


SIX = torch.arange(6 * 64, dtype=torch.uint8).reshape(6, 1, 8, 8)


WHITE = torch.full_like(SIX, 255)


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("captions", [True, False])
@pytest.mark.parametrize("sides", [True, False])
def test_labels_are_written_beside_the_images(heads, captions, sides):
    labels = GridLabels([("head", 2), ("x", 1)] * heads, ["one", "two"] * sides, [*"abcdef"] * captions)
    figure = labelled_grid(SIX, 3, labels)
    rows = shown(figure.enlarged(), 2, 3, heads=heads, captions=captions)
    assert np.array_equal([image for row in rows for image in row], SIX[:, 0])
    assert figure.png().startswith(b"\x89PNG")


def test_a_label_is_below_its_own_image():
    captions = ["", "", "", "", "W", ""]
    ink = labelled_grid(WHITE, 3, GridLabels(captions=captions)).pixels[..., 0] < 128
    across = np.flatnonzero(ink.any(0))
    assert 8 + 72 <= across.min() < across.max() < 8 + 72 + 64
    assert abs((across.min() + across.max()) / 2 - (8 + 72 + 32)) < 2, "in its middle"
    assert np.flatnonzero(ink.any(1)).min() > ink.shape[0] / 2, "in the second row"


def test_labels_that_do_not_fit_are_cut():
    wide = labelled_grid(WHITE, 3, GridLabels([("W" * 99, 1)], ["W" * 999, ""]))
    assert wide.pixels.shape[1] < 3 * 72 + 8 + 24 * 20
    above = wide.pixels[:12, :, 0] < 128
    assert np.ptp(np.flatnonzero(above.any(0))) < 72
    # What could do something to a terminal or is no text does nothing here.
    labelled_grid(SIX, 3, GridLabels(captions=["\x1b[2J\n", "\ud800", "日本", "", "a", "b"]))


def test_a_word_is_written_smaller_rather_than_broken():
    """Two lines of a grid would be higher than one of two words in one."""
    heights = [
        len(labelled_grid(WHITE, 3, GridLabels(captions=[text, *"bcdef"])).pixels)
        for text in ("dog", "wheelbarrow", "wheel barrow cart", "W" * 12)
    ]
    assert heights[1] < heights[0] < heights[2]
    assert heights[3] > heights[0], "no smaller than can be read"


def test_classes_stand_above_columns_where_each_is_of_one():
    assert class_labels(None, 3) == GridLabels()
    assert class_labels([*"abcabc"], 3) == GridLabels(heads=[("a", 1), ("b", 1), ("c", 1)])
    assert class_labels([*"ab"], 3) == GridLabels(heads=[("a", 1), ("b", 1)])
    assert class_labels([*"abcab"], 2) == GridLabels(captions=[*"abcab"])
