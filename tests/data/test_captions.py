"""Captions come back as they were given, one of several is chosen evenly, and a cache keeps them."""

import pickle

import numpy as np
import pytest

from langevin.data.cache import CachedSamples, open_or_build
from langevin.data.captions import Captions
from langevin.data.images import ArrayImages, SquareTransform
from langevin.data.source import SampleSet
from langevin.errors import UserError
from langevin.spec import DataSpec

LISTS = [["a red car"], ["ein Auto", "a red car", "一輛紅色的車 🚗 для меня"], ["x" * 10_000], ["a car, a CAR"]]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 1), dtype=np.uint8)


def packed(lists=LISTS):
    return Captions.pack(lists, "image {}".format)


def built(folder, captions=LISTS, fingerprint="1", images=IMAGES, **options):
    def load():
        return SampleSet(ArrayImages(images[..., 0]), captions=captions, **options)

    return open_or_build(folder, "toy", fingerprint, SquareTransform(4, 1), load)


def test_captions_come_back_from_a_cache_and_through_a_pickle(tmp_path):
    built(tmp_path)
    cache = built(tmp_path, captions=None)
    for each in (cache, pickle.loads(pickle.dumps(cache))):
        assert [each.captions.of(index) for index in range(4)] == LISTS
        assert len(each.captions.texts) == 5, "distinct texts are stored once"
        assert each.captions.texts[:2] == ["a red car", "ein Auto"]
    given = CachedSamples(cache.folder).with_captions(packed([["other"]] * 4))
    assert pickle.loads(pickle.dumps(given)).captions.of(3) == ["other"]
    assert len({cache.digest, given.digest, built(tmp_path, fingerprint="2", captions=None).digest}) == 3
    assert cache.digest != built(tmp_path, [*LISTS[:3], ["a car, a car"]], "3").digest
    assert cache.digest != built(tmp_path, [LISTS[0], LISTS[1][::-1], *LISTS[2:]], "4").digest


def test_the_vocabulary_is_the_most_frequent_words_by_samples(tmp_path):
    words = built(tmp_path).captions.vocabulary
    assert words[:5] == ("a", "car", "red", ",", "auto")
    assert {"一輛紅色的車", "🚗", "для", "меня"} < set(words)
    assert built(tmp_path, captions=None).captions.vocabulary == words
    spec = DataSpec((1, 4, 4), None, "images", vocabulary=words)
    assert DataSpec.read(spec.plain()) == spec
    assert "vocabulary" not in DataSpec((1, 4, 4), None, "images").plain()
    with pytest.raises(ValueError, match="has vocabulary"):
        DataSpec.read(spec.plain() | {"vocabulary": "word"})
    many = packed([[" ".join(f"w{number}" for number in range(9000))]])
    assert len(many.vocabulary) == 8192


def test_each_of_several_captions_is_chosen_equally_often_and_0_chooses_the_first():
    captions = packed()
    rows = np.array([1, 1, 1, 1, 0, 2], np.int64)
    chosen = captions.choose(rows, np.array([0, 0.34, 0.67, 1 - 2**-53, 1 - 2**-53, 0.5]))
    assert [captions.texts[place] for place in chosen] == [*LISTS[1], LISTS[1][2], "a red car", "x" * 10_000]
    places = captions.choose(np.ones(30_000, np.int64), np.random.default_rng(0).random(30_000))
    assert np.abs(np.bincount(places)[np.unique(places)] - 10_000).max() < 4 * np.sqrt(30_000 * 2 / 9)
    assert captions.choose(rows[:0], np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([["a"], [" \n"]], "image 1 has an empty caption"),
        ([["a"], []], "image 1 has no caption"),
        ([["a"], ["b\ud800"]], "image 1 has a caption that is no Unicode text"),
    ],
)
def test_a_caption_that_is_none(lists, message):
    with pytest.raises(UserError, match=message):
        packed(lists)


def test_captions_of_broken_images_go_with_them(tmp_path):
    class Broken(ArrayImages):
        def open(self, index):
            if index == 1:
                raise ValueError("is broken")
            return super().open(index)

    def load():
        return SampleSet(Broken(IMAGES[..., 0]), captions=LISTS, skip_broken=True)

    cache = open_or_build(tmp_path, "toy", "1", SquareTransform(4, 1), load)
    assert [cache.captions.of(index) for index in range(3)] == [LISTS[0], *LISTS[2:]]
