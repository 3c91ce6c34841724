import itertools

import pytest
import torch
from scipy import stats

from langevin.diffusion.noise import ImageNoise

SHAPE = (3, 4, 4)


def drawn(seed, indices, calls=3):
    noise = ImageNoise(seed, indices, SHAPE)
    return [noise() for _ in range(calls)]


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
    noise = ImageNoise(3, range(200), (3, 8, 8))
    first, second = noise(), noise()
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
