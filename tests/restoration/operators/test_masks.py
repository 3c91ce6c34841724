import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from langevin.errors import OptionError
from langevin.restoration.operators.box import BoxMask
from langevin.restoration.operators.mask import FileMask
from langevin.restoration.operators.random_mask import RandomMask

WHITE = np.zeros((4, 6), bool)
WHITE[:2, 3:] = True


def image(path, pixels, mode=None):
    picture = Image.fromarray(np.asarray(pixels))
    (picture if mode is None else picture.convert(mode)).save(path)
    return str(path)


def unknown(mask, height=4, width=6):
    """Where it is not known, by what it makes of ones in three channels."""
    measured = mask(torch.ones(1, 3, height, width))
    assert set(measured.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(measured, measured[:, :1].expand(-1, 3, -1, -1))
    return measured[0, 0].numpy() == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_white_is_unknown_in_an_image_of_any_kind(tmp_path, mode):
    mask = FileMask(image(tmp_path / "mask.png", 255 * WHITE.astype(np.uint8), mode))
    np.testing.assert_array_equal(unknown(mask), WHITE)


def test_true_is_unknown_in_an_array(tmp_path):
    np.save(tmp_path / "mask.npy", WHITE)
    np.savez(tmp_path / "mask.npz", anything=WHITE)
    for name in ("mask.npy", "mask.npz"):
        np.testing.assert_array_equal(unknown(FileMask(str(tmp_path / name))), WHITE)


def test_the_digest_is_of_the_content_alone(tmp_path):
    np.save(tmp_path / "mask.npy", WHITE)
    same = image(tmp_path / "other.png", 255 * WHITE.astype(np.uint8))
    reshaped = tmp_path / "reshaped.npy"
    np.save(reshaped, WHITE.reshape(6, 4))
    of_array, of_image, of_reshaped = (
        FileMask(str(path)).record()["sha256"] for path in (tmp_path / "mask.npy", same, reshaped)
    )
    assert of_array == of_image != of_reshaped
    assert len(of_array) == 64


def test_a_mask_of_another_size_is_refused(tmp_path):
    mask = FileMask(image(tmp_path / "mask.png", 255 * WHITE.astype(np.uint8)))
    assert mask.measured((3, 4, 6)) == (3, 4, 6)
    with pytest.raises(
        OptionError, match=r"^file is '.*mask\.png', of 4 x 6 pixels \(height x width\); allowed: 8 x 8$"
    ):
        mask.measured((3, 8, 8))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.write_bytes(b"\x89PNG nothing more"), "cannot be read"),
        (lambda path: image(path, np.array([[0, 128], [255, 7]], np.uint8)), "has levels such as 7, 128; allowed: 0"),
        (lambda path: image(path, np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8)), "has colours; allowed: 0 (black"),
        (lambda path: image(path, np.array([[[0, 0, 0, 0], [255] * 4]], np.uint8)), "has transparent pixels"),
        (lambda path: image(path, np.array([[0, 65535]], np.uint16)), "mode I;16; allowed: 8 bits"),
    ],
    ids=["missing", "broken", "grey", "coloured", "transparent", "16 bits"],
)
def test_other_images_are_refused(tmp_path, write, message):
    path = tmp_path / "mask.png"
    write(path)
    with pytest.raises(OptionError) as error:
        FileMask(str(path))
    ((field, text),) = error.value.found
    assert field == "file"
    assert repr(str(path)) in text
    assert message in text


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("mask.npy", lambda path: np.save(path, WHITE.astype(np.uint8)), "holds uint8 of shape (4, 6); allowed: bool"),
        ("mask.npy", lambda path: np.save(path, WHITE[None]), "holds bool of shape (1, 4, 6); allowed: bool (H, W)"),
        ("mask.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read"),
        ("mask.npz", lambda path: np.savez(path, a=WHITE, b=WHITE), "holds a, b; allowed: a single array"),
    ],
    ids=["bytes", "three axes", "objects", "two arrays"],
)
def test_other_arrays_are_refused(tmp_path, name, save, message):
    save(tmp_path / name)
    with pytest.raises(OptionError) as error:
        FileMask(str(tmp_path / name))
    assert message in str(error.value)


@pytest.mark.parametrize(("level", "message"), [(255, "nothing is known"), (0, "nothing is to be made")])
def test_a_mask_of_one_colour_is_taken_with_a_warning(tmp_path, level, message):
    path = image(tmp_path / "mask.png", np.full((4, 6), level, np.uint8))
    with pytest.warns(UserWarning, match=message):
        mask = FileMask(path)
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(mask(x), x if level == 0 else torch.zeros_like(x))
    assert torch.equal(mask.pseudo_inverse(mask(x), (3, 4, 6)), mask(x))


def test_what_is_unknown_is_zero_whatever_it_was(tmp_path):
    np.save(tmp_path / "mask.npy", WHITE)
    x = torch.full((1, 1, 4, 6), torch.nan)
    assert torch.equal(FileMask(str(tmp_path / "mask.npy"))(x)[0, 0].isnan(), torch.from_numpy(~WHITE))


def box(rows, columns, height=4, width=6):
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (BoxMask(), box(slice(1, 3), slice(1, 4))),
        (BoxMask(0.5, 0.5, top=0.5, left=0.0), box(slice(2, 4), slice(0, 3))),
        (BoxMask(1.0, 1 / 3), box(slice(0, 4), slice(2, 4))),
        (BoxMask(0.7, 0.1, top=0.3, left=0.9), box(slice(1, 4), slice(5, 6))),
    ],
    ids=["centred", "placed", "column", "corner"],
)
def test_a_box(mask, expected):
    np.testing.assert_array_equal(unknown(mask), expected)


def test_a_box_outside_or_of_no_pixel_is_refused():
    with pytest.raises(OptionError, match=r"^top is 0\.6; allowed: at most 1 - height \(0\.5\)$"):
        BoxMask(top=0.6)
    with pytest.raises(OptionError, match=r"^width is 0\.05, which is no pixel of 6; allowed: such as 0\.167$"):
        BoxMask(width=0.05).measured((1, 4, 6))


def test_a_random_mask_is_decided_by_its_share_and_seed():
    one, again, other = (unknown(RandomMask(0.3, seed), 16, 20) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert one.sum() == other.sum() == 96
    # Of two masks independent of each other, 9 % of the pixels are unknown in both, +- 4 sd.
    assert abs((one & other).mean() - 0.09) < 4 * 0.3 * 0.7 / np.sqrt(320)


def test_masks_that_are_no_file_warn_of_nothing():
    with warnings.catch_warnings(action="error"):
        BoxMask(1.0, 1.0).measured((1, 4, 4))


@pytest.mark.parametrize("share", [0.005, 0.995])
def test_a_random_mask_hides_a_part(share):
    with pytest.raises(OptionError, match=r"of 64 pixels; allowed: 1 to 63 of them"):
        RandomMask(share).measured((1, 8, 8))
