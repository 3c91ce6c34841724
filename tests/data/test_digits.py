import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from langevin.data.cache import open_or_build
from langevin.data.digits import Digits
from langevin.data.images import SquareTransform


def cached(source, split, cache_dir):
    transform = SquareTransform(source.image_size, source.channels)
    return open_or_build(cache_dir, "digits", source.fingerprint(split), transform, lambda: source.load(split))


def test_pixels_and_labels_are_scikit_learns(tmp_path):
    bunch = load_digits()
    train, test = (cached(Digits(), split, tmp_path) for split in ("train", "test"))
    assert (len(train), len(test)) == (1500, 297)
    levels = np.concatenate([train.samples, test.samples])[..., 0]
    # Every level of 0..16 has one byte, at most half a step from its place in 0..255.
    np.testing.assert_allclose(levels, bunch.images * 255 / 16, atol=0.5)
    assert len(np.unique(levels)) == 17
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), bunch.target)
    assert train.class_names == tuple("0123456789")


def test_larger_sizes_are_resized(tmp_path):
    native, large = (cached(Digits(image_size=size), "test", tmp_path) for size in (8, 12))
    assert large.samples.shape == (297, 12, 12, 1)
    want = Image.fromarray(native.samples[5, ..., 0]).resize((12, 12), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(large.samples[5, ..., 0], np.asarray(want))
