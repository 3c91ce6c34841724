"""The order of images in buckets."""

import itertools

import numpy as np
import pytest

from langevin.data.bucket_stream import BucketStream

BUCKET = np.array([0] * 13 + [1] * 7 + [2] * 1 + [4] * 30)[np.random.default_rng(0).permutation(51)]


def batches(number, **options):
    return list(itertools.islice(BucketStream(BUCKET, **{"batch_size": 6, "seed": 3, **options}), number))


def test_a_step_has_images_of_one_bucket_and_buckets_get_their_share():
    steps = batches(51 * 20 // 6)
    buckets = [set(BUCKET[places.indices].tolist()) for places in steps]
    assert all(len(each) == 1 for each in buckets)
    number = np.bincount([each.pop() for each in buckets], minlength=5)
    expected = np.bincount(BUCKET, minlength=5) * 20 / 6
    assert np.abs(number - expected).max() <= 1


def test_no_image_of_a_bucket_is_given_again_before_all_others_were():
    rows = np.concatenate([places.indices for places in batches(170)])
    for bucket in (0, 1, 2, 4):
        members = np.flatnonzero(bucket == BUCKET)
        own = rows[np.isin(rows, members)]
        whole = own[: len(own) // len(members) * len(members)].reshape(-1, len(members))
        assert len(whole) > 10
        assert (np.sort(whole, 1) == members).all()
        assert bucket == 2 or len({tuple(each) for each in whole}) > 10, "in a new order each time"


def test_steps_of_an_epoch_are_mixed():
    """Not one bucket after the other."""
    buckets = [int(BUCKET[places.indices[0]]) for places in batches(160)]
    assert sum(a != b for a, b in itertools.pairwise(buckets)) > 60


@pytest.mark.parametrize("start", [1, 17, 100])
def test_it_begins_anywhere(start):
    for a, b in zip(batches(120)[start:], batches(120 - start, start=lambda: start), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 3), (3, 2)])
def test_a_step_is_the_same_for_any_number_of_processes(world_size, accumulate):
    whole = batches(40, flip=True, choose=True)
    of_ranks = [
        batches(40 * accumulate, flip=True, choose=True, rank=rank, world_size=world_size, accumulate=accumulate)
        for rank in range(world_size)
    ]
    for step, places in enumerate(whole):
        parts = [of_ranks[rank][step * accumulate + part] for part in range(accumulate) for rank in range(world_size)]
        for name in places._fields:
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert np.array_equal(np.sort(joined), np.sort(getattr(places, name))), name
    assert 0.2 < np.mean([places.flips.mean() for places in whole]) < 0.8


def test_a_bucket_smaller_than_a_batch_is_gone_through_several_times():
    stream = BucketStream(np.array([0, 0, 1]), batch_size=8, seed=0)
    steps = list(itertools.islice(stream, 30))
    counts = np.bincount(np.concatenate([places.indices for places in steps]), minlength=3)
    assert counts.tolist() == [80, 80, 80]
