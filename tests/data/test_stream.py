"""The stream is judged by what its documentation promises, with the order taken apart batch by batch."""

import itertools

import numpy as np
import pytest

from langevin.data.stream import SampleStream, epoch_order


def take(count, **options):
    return list(itertools.islice(SampleStream(**options), count))


def indices(batches):
    return np.concatenate([batch[0] for batch in batches])


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63])
@pytest.mark.parametrize(("num_images", "batch_size"), [(10, 3), (7, 7), (100, 32), (5, 12), (1, 4)])
def test_every_epoch_is_a_permutation_and_epochs_differ(seed, num_images, batch_size):
    epochs = 6
    stream = indices(
        take(-(-epochs * num_images // batch_size), num_images=num_images, batch_size=batch_size, seed=seed)
    )
    parts = stream[: epochs * num_images].reshape(epochs, num_images)
    assert (np.sort(parts, axis=1) == np.arange(num_images)).all()
    if num_images >= 10:
        assert len({tuple(part) for part in parts}) == epochs


def test_types_and_sizes():
    for positions, flips, uniform in take(5, num_images=10, batch_size=8, flip=True, choose=True):
        assert positions.dtype == np.int64
        assert flips.dtype == np.bool_
        assert uniform.dtype == np.float64
        assert positions.shape == flips.shape == uniform.shape == (8,)


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("num_images", [5, 37, 64])
def test_steps_see_the_same_images_for_any_world(world_size, accumulate, num_images):
    common = {"num_images": num_images, "batch_size": 16, "seed": 3, "flip": True, "choose": True}
    expected = take(9, **common)
    ranks = [
        take(9 * accumulate, rank=rank, world_size=world_size, accumulate=accumulate, **common)
        for rank in range(world_size)
    ]
    for step, wanted in enumerate(expected):
        micro_batches = list(zip(*ranks, strict=True))[step * accumulate : (step + 1) * accumulate]
        assert {len(part) for shares in micro_batches for part, *_ in shares} == {16 // (world_size * accumulate)}
        for nth, want in enumerate(wanted):
            # Process r has the images r, r + world_size, ... of each micro-batch.
            whole = [np.stack([share[nth] for share in shares], 1).ravel() for shares in micro_batches]
            np.testing.assert_array_equal(np.concatenate(whole), want)


def test_no_image_is_given_twice_within_an_epoch_by_any_rank():
    seen = np.concatenate([indices(take(8, num_images=64, batch_size=8, rank=r, world_size=4)) for r in range(4)])
    assert sorted(seen) == list(range(64))


@pytest.mark.parametrize("start", [1, 6, 7, 50])
@pytest.mark.parametrize(("rank", "world_size", "accumulate"), [(0, 1, 1), (1, 2, 3)])
def test_a_resumed_stream_is_the_tail_of_the_undisturbed_one(start, rank, world_size, accumulate):
    options = {
        "num_images": 41,
        "batch_size": 12,
        "seed": 9,
        "flip": True,
        "choose": True,
        "rank": rank,
        "world_size": world_size,
        "accumulate": accumulate,
    }
    whole = take(start + 20, **options)
    for got, want in zip(take(20, start=lambda: start, **options), whole[start:], strict=True):
        for values, wanted in zip(got, want, strict=True):
            np.testing.assert_array_equal(values, wanted)


def test_a_new_iteration_asks_again_where_to_start():
    consumed = 0
    stream = SampleStream(20, 4, start=lambda: consumed)
    first = list(itertools.islice(stream, 3))
    consumed = 3
    second = list(itertools.islice(stream, 2))
    assert sorted(indices(first + second)) == list(range(20))


def test_flips_are_fair_and_off_when_not_wanted():
    flips = np.concatenate([flips for _, flips, _ in take(100, num_images=1000, batch_size=100, flip=True)])
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(flips))
    assert not np.array_equal(flips[:1000], flips[1000:2000])
    assert not any(flips.any() for _, flips, _ in take(20, num_images=1000, batch_size=100, flip=False))


def test_places_are_uniform():
    # Image 0's place over many epochs, against a uniform distribution (chi-square, 9 degrees of freedom).
    places = [int(np.flatnonzero(epoch_order(0, epoch, 10)[0] == 0)[0]) for epoch in range(2000)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # p = 0.001


def test_the_order_is_pinned():
    # numpy promises raw Philox words for ever; a change here would silently break resuming old runs.
    order, flips, uniform = epoch_order(0, 0, 8)
    assert not uniform.any()
    words = np.random.Philox(key=0).random_raw(16)
    assert order.tolist() == sorted(range(8), key=lambda i: words[i])
    assert flips.tolist() == [bool(word >= 2**63) for word in words[8:]]
    again, flipped, uniform = epoch_order(0, 0, 8, choose=True)  # changes neither the order nor the flips
    assert np.array_equal(again, order)
    assert np.array_equal(flipped, flips)
    more = np.random.Philox(key=0).random_raw(24)[16:]
    np.testing.assert_allclose(uniform, [int(word) / 2**64 for word in more], rtol=1e-14)
    assert not np.array_equal(order, epoch_order(1, 0, 8)[0])
    assert not np.array_equal(order, epoch_order(0, 1, 8)[0])


def test_the_epoch_is_not_sorted_again_for_each_batch(monkeypatch):
    calls = []
    monkeypatch.setattr("langevin.data.stream.epoch_order", lambda *args: calls.append(args[1]) or epoch_order(*args))
    take(100, num_images=64, batch_size=10)
    assert calls == sorted(set(calls))
