import itertools

import numpy as np
import pytest
import torch
from diffusion_helpers import TinyNetwork
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws, SampleDraws
from langevin.diffusion.objective import Simple
from langevin.diffusion.parameterization import X
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import UniformTimes
from langevin.diffusion.weighting import UnitX

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
    return [BatchDraws(5, x[rank::world_size], total, rank, world_size, *others) for rank in range(world_size)]


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
        BatchDraws(5, torch.zeros(count, 2, 3, 4), 8, rank, 4) for rank, count in enumerate((2, 2, 1, 1))
    ):
        assert torch.equal(process.normal(), expected[rank::4][: (2, 2, 1, 1)[rank]])


def words(seed, place, number):
    """SplitMix64's words of a sample, in Python's numbers."""
    found = []
    for step in range(1, number + 1):
        z = (seed + (place * 0x9E3779B97F4A7C15 + step) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


def test_a_batchs_words_are_those_of_splitmix64():
    """Of the seed 0 as published, and of any by the reference; an odd number of normals leaves half a word."""
    assert words(0, 0, 3) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    for seed, total in ((0, 1), (2**63 - 1, 5), (1234567, 2**40)):
        draws = BatchDraws(seed, torch.zeros(1, 5), total, total - 1)
        uniform, normal, after = draws.uniform(), draws.normal(), draws.uniform()
        first, *pairs, last = words(seed, total - 1, 5)
        assert [uniform.item(), after.item()] == [(first >> 40) / 2**24, (last >> 40) / 2**24]
        radius = np.sqrt([-2 * np.log(((word >> 32) + 0.5) / 2**32) for word in pairs])
        angle = np.array([word % 2**32 * 2 * np.pi / 2**32 for word in pairs])
        expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).flatten()[:5]
        np.testing.assert_allclose(normal[0].numpy(), expected, rtol=0, atol=2e-6)


def test_a_batchs_noise_does_not_depend_on_the_memory_format():
    x = torch.zeros(4, 2, 3, 4)
    first, second = (
        BatchDraws(5, x.contiguous(memory_format=layout), 4).normal()
        for layout in (torch.contiguous_format, torch.channels_last)
    )
    assert torch.equal(first, second)
    assert first.stride() == second.stride()


def test_a_batchs_noise_is_standard_normal_to_its_tails():
    noise = BatchDraws(3, torch.zeros(500, 3, 32, 32), 500).normal().double()
    for values in (noise.flatten(), noise[5].flatten(), noise[:, 1, 2, 3], noise[::2, ..., ::2].flatten()):
        assert stats.kstest(values.numpy(), "norm").pvalue > 0.001
    for power, (mean, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        error = noise.pow(power).mean() - mean
        assert abs(error) < 4 * (variance / noise.numel()) ** 0.5, power
    for limit in (3.0, 4.0, 4.5):
        expected = 2 * stats.norm.sf(limit) * noise.numel()
        assert abs((noise.abs() > limit).sum() - expected) < 4 * expected**0.5, limit


def test_a_batchs_uniform_numbers_are_uniform():
    values = BatchDraws(3, torch.zeros(20_000, 1), 20_000).uniform()
    assert (values.dtype, values.min() >= 0, values.max() < 1) == (torch.float32, True, True)
    assert stats.kstest(values.double().numpy(), "uniform").pvalue > 0.001


def test_no_two_seeds_or_places_or_calls_of_a_batch_share_noise():
    """Nor their squares, nor neighbours in an image."""
    rows = []
    for seed in (0, 1, 2, 3, 2**32, 2**32 + 1, 2**63 - 1):
        draws = BatchDraws(seed, torch.zeros(16, 3, 16, 16), 16)
        rows += [draws.normal().flatten(1), draws.normal().flatten(1)]
    table = torch.cat(rows)
    for values in (table, table.square(), torch.cat([table[:, 1:], table[:, :-1]])):
        correlation = torch.corrcoef(values).fill_diagonal_(0)
        assert correlation.abs().max() < 6 / table.shape[1] ** 0.5
    values = table.T[:64]  # one number of all samples each
    assert torch.corrcoef(values).fill_diagonal_(0).abs().max() < 6 / values.shape[1] ** 0.5


class Allocated(TorchDispatchMode):
    """Adds up the bytes of all memory that is allocated within."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):  # kept, so that no other takes its place
                self.storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return result

    @property
    def bytes(self):
        return sum(storage.nbytes() for storage in self.storages.values())


OWN, SIDE = 2, 16
"""Samples of each process, and their side in pixels."""


def allocated(world_size, compute):
    """The bytes that the last of so many processes allocates for what it computes from its draws."""
    x = torch.zeros(OWN, 2, SIDE, SIDE)
    with Allocated() as memory:
        compute(x, BatchDraws(5, x, OWN * world_size, world_size - 1, world_size))
    return memory.bytes


def test_a_process_allocates_for_its_own_samples_alone():
    """The same in a world of 64 processes as by itself."""

    def draw(x, draws):
        return draws.normal(), draws.uniform()

    assert allocated(64, draw) == allocated(1, draw) > OWN * 2 * SIDE**2 * 4


def test_of_others_an_objective_draws_their_times_alone():
    objective = Simple(UniformTimes(), UnitX())
    denoiser = Denoiser(TinyNetwork(), GaussianProcess(Linear(), X()))

    def loss(x, draws):
        return objective(denoiser, {"x": x}, draws)

    of_others = (allocated(64, loss) - allocated(1, loss)) / (63 * OWN)
    assert 0 < of_others < 100, "bytes a sample: a few float64, where its noise alone has 2048"
