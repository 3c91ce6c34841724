"""Batches of images that keep their proportions."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.data_modules import batches
from PIL import Image

from langevin.data.bucket_module import BucketDataModule
from langevin.data.bucket_stream import BucketStream
from langevin.data.buckets import SIZES as SIZES_FILE
from langevin.data.buckets import RectangleTransform, Size, assigned, bucket_sizes, part_of, read_sizes, told
from langevin.data.cache import open_or_build
from langevin.data.captioned import Captioned
from langevin.data.digits import Digits
from langevin.data.image_folder import ImageFolder
from langevin.data.images import ImageFiles
from langevin.data.module import DataModule
from langevin.data.store import folder_named
from langevin.errors import OptionError, UserError

SIZES = [(16, 16), (12, 20), (20, 12), (30, 52), (40, 40)]


@pytest.fixture
def photos(tmp_path, pixels):
    """Twenty images of two classes and three proportions, each with a caption beside it.

    The header of a damaged BMP still says how large it is.
    """
    for number in range(20):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(number, *SIZES[number % 5])).save(folder / f"{number:02}.bmp")
        (folder / f"{number:02}.txt").write_text(f"image {number}\n")
    return tmp_path / "photos"


def without_end(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.fixture
def opened(photos, tmp_path):
    def open_(source=None, batch_size=4, **options):
        source = source or ImageFolder(str(photos), 16)
        options = {"multiple_of": 4, "cache_dir": str(tmp_path / "cache"), **options}
        module = BucketDataModule(source, batch_size, **options)
        module.prepare_data()
        return module

    return open_


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_have_what_the_stream_says_cropped_as_their_bucket(opened, photos, num_workers):
    module = opened(seed=2, num_workers=num_workers)
    files = sorted(photos.rglob("*.bmp"))
    stream = BucketStream(module.train_set.bucket, batch_size=4, seed=2, flip=True)
    shapes = set()
    for batch, (indices, flips, _) in zip(batches(module, 20), stream, strict=False):
        assert np.array_equal(batch["index"], indices)
        assert np.array_equal(batch["flip"], flips)
        height, width = batch["x"].shape[2:]
        shapes.add((height, width))
        for x, size, row, label in zip(batch["x"], batch["size"], indices, batch["label"], strict=True):
            image = Image.open(files[row])
            assert np.array_equal(x.movedim(0, -1), RectangleTransform(Size(height, width), 3)(image))
            expected = told(np.array([[image.height, image.width]], np.int32), Size(height, width))[0]
            assert size.tolist() == expected.tolist()
            assert "ab"[label] == files[row].parent.name
    assert shapes == {(16, 16), (12, 20), (20, 12)}


def test_metrics_see_squares_in_the_order_of_the_data(opened, photos, tmp_path):
    module = opened()
    squares = DataModule(ImageFolder(str(photos), 16), 4, cache_dir=str(tmp_path / "cache"))
    squares.prepare_data()
    assert np.array_equal(module.train_set.samples, squares.train_set.samples)
    assert np.array_equal(module.train_set.labels, squares.train_set.labels)
    assert module.spec.shape == squares.spec.shape


def test_captions_stay_with_their_images(opened, photos):
    module = opened(Captioned(str(photos), 16))
    files = sorted(photos.rglob("*.bmp"))
    assert [module.train_set.captions.of(row) for row in range(20)] == [[f"image {int(file.stem)}"] for file in files]


def test_a_run_that_resumes_gets_what_an_undisturbed_one_does(opened):
    def trainer(step):
        return SimpleNamespace(global_rank=1, world_size=2, global_step=step)

    whole, rest = (batches(opened(accumulate=2), number, trainer(step)) for number, step in ((30, 0), (16, 7)))
    for batch, expected in zip(rest, whole[14:], strict=True):
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_a_second_start_decodes_nothing_and_other_buckets_do(opened, photos, monkeypatch):
    digest = opened().train_set.digest
    loaded = []
    monkeypatch.setattr(ImageFolder, "load", lambda self, split: loaded.append(split))
    assert opened().train_set.digest == digest
    with pytest.raises(AttributeError):
        opened(longest=1.2)
    assert loaded == ["train"]


def test_only_buckets_whose_images_changed_are_decoded_again(opened, photos, pixels, tmp_path, monkeypatch, capsys):
    """An earlier version has swapped the sides of turned TIFFs, and named caches by the data and the buckets alone."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(0, 12, 20)).save(photos / "b" / "turned.tif", exif=exif)
    correct = opened(cache_dir=str(tmp_path / "new")).train_set
    assert "decoding imagefolder-train-16x16: 100%" in capsys.readouterr().err
    cache_dir, source = tmp_path / "cache", ImageFolder(str(photos), 16)
    meaning, buckets = repr(("train", source.fingerprint("train"))), bucket_sizes(16, 4, 2.0)
    images = source.load("train")
    swapped = read_sizes(images.lazy, "all")
    swapped[20] = swapped[20, ::-1]
    folder = folder_named(cache_dir, "imagefolder-train-sizes", (1, meaning))
    folder.mkdir(parents=True)
    np.save(folder / SIZES_FILE, swapped)
    for number, bucket in enumerate(buckets):
        rows = np.flatnonzero(assigned(swapped, buckets) == number)
        if len(rows):
            part = part_of(images, rows, told(swapped[rows], bucket))
            called = f"imagefolder-train-{bucket.height}x{bucket.width}"
            transform = RectangleTransform(bucket, 3)
            open_or_build(cache_dir, called, f"{meaning} {buckets}", transform, lambda part=part: part)
    capsys.readouterr()
    samples = opened().train_set
    shown = capsys.readouterr().err
    assert "reading the sizes" in shown
    assert all(f"decoding imagefolder-train-{each}: 100%" in shown for each in ("12x20", "20x12"))
    assert "16x16" not in shown
    assert samples.digest == correct.digest


def test_broken_images_are_named_or_left_out(opened, photos):
    (photos / "a" / "99.bmp").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"99\.bmp .*cannot be used"):
        opened()
    first = sorted(photos.rglob("*.bmp"))[:3]  # of two buckets
    whole = {path: path.read_bytes() for path in first}
    for path in first:
        without_end(path)
    with pytest.raises(UserError, match=r"(?s)^4 of 21 images .*\n  a/00\.bmp .*\n  a/02\.bmp .*\n  a/04.*99\.bmp "):
        opened()
    for path, content in whole.items():
        path.write_bytes(content)
    module = opened(ImageFolder(str(photos), 16, skip_broken=True))
    assert len(module.train_set) == 20
    assert module.train_set.skipped[0].startswith("a/99.bmp")


def test_the_only_image_of_a_class_in_a_bucket_may_be_broken(opened, photos, pixels):
    """Other buckets have the class."""
    (photos / "c").mkdir()
    for name, size in (("1", (16, 16)), ("2", (20, 12))):
        Image.fromarray(pixels(9, *size)).save(photos / "c" / f"{name}.bmp")
    path = photos / "c" / "2.bmp"
    without_end(path)
    module = opened(ImageFolder(str(photos), 16, skip_broken=True))
    assert (module.train_set.labels == 2).sum() == 1
    path.with_name("1.bmp").unlink()
    with pytest.raises(UserError, match="no image of class c can be used"):
        opened(ImageFolder(str(photos), 16, skip_broken=True))


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no memory")])
@pytest.mark.parametrize("skip_broken", [False, True])
def test_the_disk_or_memory_failing_ends_it_at_once(opened, photos, monkeypatch, error, skip_broken):
    """No further bucket is decoded, as is done to name the broken images of all of them."""
    decode, read = ImageFiles.open, []

    def fail(self, index):
        read.append(self.files[index])
        if self.files[index] == "a/06.bmp":  # in the first bucket
            raise error
        return decode(self, index)

    monkeypatch.setattr(ImageFiles, "open", fail)
    with pytest.raises(UserError, match=rf"^a/06\.bmp .*cannot be used: .*{error.args[-1]}"):
        opened(ImageFolder(str(photos), 16, skip_broken=skip_broken))
    sizes = {Image.open(photos / name).size for name in read}
    assert sizes == {(20, 12), (52, 30)}


@pytest.mark.parametrize("kind", [ImageFolder, Captioned])
def test_a_bucket_of_broken_images_alone_is_left_out(opened, photos, kind):
    upright = [path for path in photos.rglob("*.bmp") if Image.open(path).size == (12, 20)]
    assert len(upright) == 4
    for path in upright:
        without_end(path)
    with pytest.raises(UserError, match=r"^4 of 20 images cannot be used"):
        opened(kind(str(photos), 16))
    for _ in range(2):  # decodes them, then finds them in the cache
        module = opened(kind(str(photos), 16, skip_broken=True))
        assert len(module.train_set) == 16
        assert len(module.train_set.skipped) == 4
    assert {tuple(batch["x"].shape[2:]) for batch in batches(module, 20)} == {(16, 16), (12, 20)}
    assert len(module.train_set.samples) == 16, "squares"


def test_some_image_must_remain_in_some_bucket_of_each_class(opened, photos):
    """Also when the caches are there already."""
    for path in (photos / "a").glob("*.bmp"):
        without_end(path)
    for _ in range(2):
        with pytest.raises(UserError, match=r"no image of class a can be used; 10 of 20 images cannot be used"):
            opened(ImageFolder(str(photos), 16, skip_broken=True))
    for path in (photos / "b").glob("*.bmp"):
        without_end(path)
    for _ in range(2):
        with pytest.raises(UserError, match=r"^20 of 20 images cannot be used; replace or remove them:\n"):
            opened(ImageFolder(str(photos), 16, skip_broken=True))


def test_the_sizes_are_read_under_a_bar(opened, capsys):
    opened()
    assert "reading the sizes of imagefolder-train: 100%" in capsys.readouterr().err
    opened()
    assert "sizes" not in capsys.readouterr().err


def test_a_worker_may_be_started_anew(opened):
    """Under spawn and forkserver samples are pickled."""
    module = opened()
    samples = pickle.loads(pickle.dumps(module.train_set))
    rows = np.flatnonzero(samples.bucket == 1)[:2]
    assert torch.equal(samples.batch(rows)["x"], module.train_set.batch(rows)["x"])


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (lambda path: ImageFolder(path, 16, resize="pad"), {}, "crops images; allowed: data.resize=crop"),
        (lambda path: ImageFolder(path, 16), {"first": 3}, "overfit_samples=3"),
        (lambda path: ImageFolder(path, 16), {"longest": 0.5}, "is 0.5; allowed: at least 1"),
        (lambda path: ImageFolder(path, 16), {"multiple_of": 0}, "is 0; allowed: at least 1"),
    ],
)
def test_what_does_not_go_is_reported(opened, photos, source, options, message):
    with pytest.raises((UserError, OptionError), match=message):
        opened(source(str(photos)), **options)


def test_images_of_one_size_are_one_bucket(opened):
    module = opened(Digits())
    assert {tuple(batch["x"].shape[1:]) for batch in batches(module, 5)} == {(1, 8, 8)}
