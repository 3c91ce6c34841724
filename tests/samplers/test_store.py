import numpy as np
import pytest

from langevin.samplers.store import SampleStore

MEANING = {"weights": "abc", "seed": 0}
IMAGES = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)


@pytest.fixture
def store(tmp_path):
    return SampleStore(tmp_path, "kind", MEANING)


def test_what_is_put_there_is_found_by_another_process(store, tmp_path):
    assert store.get([4, 5]) is None
    store.put([4, 5], {"images": IMAGES})
    found = SampleStore(tmp_path, "kind", dict(reversed(MEANING.items()))).get([4, 5])
    assert found is not None
    assert np.array_equal(found["images"], IMAGES)
    assert store.get([4]) is None, "another batch"
    assert store.get([5, 6]) is None


@pytest.mark.parametrize("other", [{"seed": 1}, {"weights": "abd"}, {"steps": 3}])
def test_images_of_another_meaning_are_not_found(store, tmp_path, other):
    store.put([0, 1], {"images": IMAGES})
    assert SampleStore(tmp_path, "kind", {**MEANING, **other}).get([0, 1]) is None
    assert SampleStore(tmp_path, "other", MEANING).get([0, 1]) is None


@pytest.mark.parametrize("left", [0, 1, 30, -1])
def test_a_damaged_batch_is_none(store, left):
    store.put([0, 1], {"images": IMAGES})
    (file,) = store.folder.iterdir()
    file.write_bytes(file.read_bytes()[:left])
    assert store.get([0, 1]) is None
    store.put([0, 1], {"images": IMAGES})
    assert store.get([0, 1]) is not None


def test_arrays_come_in_the_order_asked_for(store):
    store.put([2, 3], {"images": IMAGES + 1})
    store.put([0, 1], {"images": IMAGES})
    first, second = store.arrays("images", [[0, 1], [2, 3]])
    assert np.array_equal(first, IMAGES)
    assert np.array_equal(second, IMAGES + 1)


def test_only_its_own_is_removed(store, tmp_path):
    others = SampleStore(tmp_path, "kind", {"seed": 3}), SampleStore(tmp_path, "another", MEANING)
    for each in (store, *others):
        each.put([0, 1], {"images": IMAGES})
    store.remove_others()
    assert [each.folder.exists() for each in (store, *others)] == [True, False, True]
    store.remove()
    store.remove()
    assert [each.folder.exists() for each in (store, *others)] == [False, False, True]
