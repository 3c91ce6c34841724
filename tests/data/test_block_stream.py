"""The stream of blocks is judged by what its documentation promises, with the order taken apart batch by batch."""

import itertools

import numpy as np
import pytest

from langevin.data.block_stream import BlockStream

COUNTS = [7, 1, 12, 5, 9, 3]


def take(count, **options):
    return list(itertools.islice(BlockStream(**options), count))


def joined(batches):
    return np.concatenate([batch.indices for batch in batches])


@pytest.mark.parametrize("window", [1, 2, 4, 6, 100])
@pytest.mark.parametrize("seed", [0, 2**63])
def test_an_epoch_has_every_row_once_and_a_pool_few_blocks(window, seed):
    number, epochs = sum(COUNTS), 5
    rows = joined(take(epochs * number, counts=COUNTS, window=window, batch_size=1, seed=seed))
    block_of = np.repeat(np.arange(len(COUNTS)), COUNTS)
    orders = set()
    for epoch in rows.reshape(epochs, number):
        assert (np.sort(epoch) == np.arange(number)).all()
        blocks = list(dict.fromkeys(block_of[epoch]))
        sets, place = [], 0
        while place < number:  # as many rows as the next blocks have are of these blocks alone
            unseen = [block for block in blocks if block not in itertools.chain(*sets)]
            found = next(
                set(chosen)
                for size in (min(window, len(unseen)),)
                for chosen in itertools.combinations(unseen, size)
                if set(block_of[epoch[place : place + sum(COUNTS[each] for each in chosen)]]) == set(chosen)
            )
            sets.append(found)
            place += sum(COUNTS[each] for each in found)
        assert len(sets) == -(-len(COUNTS) // window)
        orders.add(tuple(epoch))
    assert len(orders) == epochs


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_see_the_same_images_for_any_world_and_from_any_step(world_size, accumulate):
    common = {"counts": COUNTS, "window": 2, "batch_size": 16, "seed": 3, "flip": True, "choose": True}
    expected = take(11, **common)
    for begin in (0, 1, 7):
        ranks = [
            take(
                (11 - begin) * accumulate,
                rank=rank,
                world_size=world_size,
                accumulate=accumulate,
                start=lambda begin=begin: begin * accumulate,
                **common,
            )
            for rank in range(world_size)
        ]
        for step, wanted in enumerate(expected[begin:]):
            parts = list(zip(*ranks, strict=True))[step * accumulate : (step + 1) * accumulate]
            for nth, want in enumerate(wanted):
                whole = [np.stack([share[nth] for share in shares], 1).ravel() for shares in parts]
                np.testing.assert_array_equal(np.concatenate(whole), want)


def test_draws_are_uniform_and_belong_to_positions():
    plain, mirrored = (
        take(40, counts=[500] * 6, window=2, batch_size=500, flip=flip, choose=flip) for flip in (False, True)
    )
    assert (joined(plain) == joined(mirrored)).all()
    assert not np.concatenate([batch.flips for batch in plain]).any()
    assert np.concatenate([batch.flips for batch in mirrored]).mean() == pytest.approx(0.5, abs=0.02)
    uniform = np.concatenate([batch.uniform for batch in mirrored])
    assert np.histogram(uniform, 4, (0, 1))[0] == pytest.approx(np.full(4, 5000), rel=0.06)
    again = [np.concatenate([batch.flips for batch in mirrored[first : first + 6]]) for first in (0, 6)]
    assert np.mean(again[0] == again[1]) == pytest.approx(0.5, abs=0.05), "every epoch has its own draws"
