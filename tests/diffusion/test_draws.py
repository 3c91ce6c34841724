import itertools

import pytest
import torch
from scipy import stats

from langevin.diffusion.draws import BatchDraws, SampleDraws, Streams

SHAPE = (3, 4, 4)


def drawn(seed, indices, calls=3):
    noise = SampleDraws(seed, indices, SHAPE)
    return [noise.normal() for _ in range(calls)]


@pytest.mark.parametrize("indices", [[4], [0, 4], [4, 0], [9, 7, 4, 1000], range(2, 6)])
def test_a_images_noise_depends_on_seed_and_index_alone(indices):
    alone = drawn(7, [4])
    together = drawn(7, indices)
    row = list(indices).index(4)
    for call in range(3):
        assert torch.equal(together[call][row], alone[call][0])


def test_no_two_seeds_or_images_or_calls_share_noise():
    seeds = [0, 1, 2, 1234, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**63]
    indices = [0, 1, 2, 49_999, 2**32, 2**32 + 1]
    rows = [row for seed in seeds for noise in drawn(seed, indices, calls=2) for row in noise]
    assert len(rows) == len(seeds) * len(indices) * 2
    table = torch.stack(rows).flatten(1)
    assert len(table.unique(dim=0)) == len(rows)
    correlation = torch.corrcoef(table).fill_diagonal_(0)
    assert correlation.abs().max() < 6 / table.shape[1] ** 0.5


def test_seed_and_index_do_not_stand_in_for_each_other():
    for a, b in itertools.combinations(range(5), 2):
        assert not torch.equal(drawn(a, [b])[0], drawn(b, [a])[0])


def test_is_standard_normal():
    noise = SampleDraws(3, range(200), (3, 8, 8))
    first, second = noise.normal(), noise.normal()
    for values in (first.flatten(), second.flatten(), first[:, 0, 0, 0], first[5].flatten()):
        assert stats.kstest(values.double().numpy(), "norm").pvalue > 0.001
    assert abs(float((first * second).mean())) < 4 / first.numel() ** 0.5


def test_is_float32_of_the_shape_asked_for():
    (first, *_) = drawn(0, [1, 2])
    assert (first.shape, first.dtype, first.device.type) == ((2, *SHAPE), torch.float32, "cpu")


def test_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    drawn(5, [1, 2])
    assert torch.equal(torch.rand(4), expected)


def numbers(indices, seed=3):
    draws = SampleDraws(seed, indices, SHAPE)
    return [draws.uniform() for _ in range(3)]


@pytest.mark.parametrize("indices", [[4], [0, 4], [9, 7, 4, 1000], range(2, 6)])
def test_a_samples_uniform_numbers_depend_on_seed_and_index_alone(indices):
    row = list(indices).index(4)
    for together, alone, other in zip(numbers(indices), numbers([4]), numbers([4], seed=4), strict=True):
        assert together[row] == alone[0] != other[0]


def test_uniform_numbers_are_uniform_and_no_two_alike():
    first, second, _ = numbers(range(3000))
    assert (first.shape, first.dtype) == ((3000,), torch.float32)
    for values in (first, second):
        assert 0 <= values.min() < values.max() < 1
        assert stats.kstest(values.double().numpy(), "uniform").pvalue > 0.001
    assert torch.corrcoef(torch.stack([first, second]))[0, 1].abs() < 4 / 3000**0.5


def split(world_size, total=8, gather=None):
    """The draws of each process, all of one seed, for samples that are their numbers in the batch."""
    x = torch.arange(float(total)).reshape(-1, 1, 1, 1).expand(-1, 2, 3, 4)
    others = [] if gather is None else [gather]
    return [BatchDraws(Streams(5), x[rank::world_size], total, rank, world_size, *others) for rank in range(world_size)]


def dealt(parts, total=8):
    """Values of all samples, in the batch's order, from those of each process."""
    whole = parts[0].new_empty(total, *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_sample_of_a_batch_gets_the_same_numbers_under_any_number_of_processes(world_size):
    (alone,), processes = split(1), split(world_size)
    for draw in ("normal", "uniform", "normal"):
        expected = getattr(alone, draw)()
        assert len(expected.flatten(1 if draw == "normal" else 0).unique(dim=0)) == 8
        assert torch.equal(dealt([getattr(process, draw)() for process in processes]), expected)
    shared = torch.rand(3, generator=alone.shared)
    assert all(torch.equal(torch.rand(3, generator=process.shared), shared) for process in processes)


def test_a_batchs_noise_is_of_the_samples_shape_and_channels_last():
    draws = split(2)[1]
    noise = draws.normal()
    assert noise.shape == (4, *draws.shape) == (4, 2, 3, 4)
    assert all(image.movedim(0, -1).is_contiguous() for image in noise)
    assert draws.uniform().shape == (4,)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_gathering_undoes_taking_ones_own(world_size):
    values = torch.arange(8) * 10
    parts = [process.mine(values) for process in split(world_size)]
    assert [list(part) for part in parts] == [list(values[rank::world_size]) for rank in range(world_size)]
    for process in split(world_size, gather=lambda own: torch.stack(parts)):
        assert torch.equal(process.gather(process.mine(values)), values)


def test_of_a_batch_that_is_not_full_a_process_has_what_there_is():
    """The last batch of a validation: six samples where eight are the rule, and so on two of four processes one."""
    expected = split(1)[0].normal()
    for rank, process in enumerate(
        BatchDraws(Streams(5), torch.zeros(count, 2, 3, 4), 8, rank, 4) for rank, count in enumerate((2, 2, 1, 1))
    ):
        assert torch.equal(process.normal(), expected[rank::4][: (2, 2, 1, 1)[rank]])
