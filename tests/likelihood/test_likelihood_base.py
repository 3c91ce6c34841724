"""What is the same for every likelihood: how images are added up."""

import math

import pytest
import torch
import torch.multiprocessing as mp
from helpers.exact import Mixture
from helpers.images import example_images
from torchmetrics.utilities.data import dim_zero_sum

from langevin.diffusion.draws import SampleDraws
from langevin.diffusion.schedules.linear import Linear
from langevin.images import from_uint8
from langevin.likelihood.base import strata
from langevin.likelihood.continuous_vlb import ContinuousVLB
from langevin.likelihood.discrete_vlb import DiscreteVLB
from langevin.likelihood.probability_flow import ProbabilityFlow

SHAPE = (3, 4, 4)
MAKERS = {
    "discrete_vlb": lambda: DiscreteVLB(3),
    "continuous_vlb": lambda: ContinuousVLB(3),
    "probability_flow": lambda: ProbabilityFlow(3, 2),
}


class Biased(Mixture):
    """Each class has its own shift."""

    def __call__(self, x_t, t, cond=None):
        prediction = super().__call__(x_t, t)
        shift = 0.1 * cond["label"].reshape(-1, 1, 1, 1)
        return prediction._replace(x=prediction.x + shift, eps=prediction.eps - shift)


def data():
    return from_uint8(example_images(7, size=4)).double(), torch.arange(7) % 3


def metric(name):
    likelihood = MAKERS[name]()
    likelihood.begin(Linear(50))
    return likelihood


def add(likelihood, indices, seed=0):
    x, labels = data()
    noise = SampleDraws(seed, indices, SHAPE)
    likelihood.update(Biased(Linear(50)), x[indices], {"label": labels[indices]}, noise)


def values(likelihood):
    return {name: torch.nan_to_num(value, -1.0) for name, value in likelihood.compute().items()}


@pytest.mark.parametrize("name", MAKERS)
def test_batches_do_not_matter(name):
    whole, parts = metric(name), metric(name)
    add(whole, range(7))
    for indices in ([6, 2], [0], [5, 4, 1, 3]):
        add(parts, indices)
    torch.testing.assert_close(values(whole), values(parts), rtol=1e-10, atol=0)
    other = metric(name)
    add(other, range(7), seed=1)
    assert float(other.compute()["bits_per_dim"]) != pytest.approx(float(whole.compute()["bits_per_dim"]), rel=1e-3)


@pytest.mark.parametrize("name", MAKERS)
def test_the_whole_is_the_sum_of_its_parts_and_the_mean_of_the_images(name):
    likelihood = metric(name)
    add(likelihood, range(7))
    found = likelihood.compute()
    assert next(iter(found)) == "bits_per_dim"
    assert tuple(found)[1:4] == likelihood.parts[:3]
    total = sum(float(found[part]) for part in likelihood.parts)
    assert float(found["bits_per_dim"]) == pytest.approx(total, rel=1e-12)
    x, labels = data()
    one_by_one = [
        sum(likelihood.measure(Biased(Linear(50)), x[[i]], {"label": labels[[i]]}, SampleDraws(0, [i], SHAPE)).values())
        for i in range(7)
    ]
    assert float(found["bits_per_dim"]) == pytest.approx(float(sum(one_by_one)) / 7 / math.log(2), rel=1e-10)


@pytest.mark.parametrize("name", MAKERS)
def test_it_begins_anew(name):
    likelihood = metric(name)
    with torch.inference_mode():
        add(likelihood, [3, 4])
        likelihood.compute()
        likelihood.reset()
    add(likelihood, [0, 1])
    fresh = metric(name)
    add(fresh, [0, 1])
    torch.testing.assert_close(values(likelihood), values(fresh), rtol=0, atol=0)


@pytest.mark.parametrize("name", MAKERS)
def test_it_leaves_the_global_random_numbers_alone(name):
    before = torch.get_rng_state()
    add(metric(name), range(7))
    assert torch.equal(torch.get_rng_state(), before)


def process(rank, world, folder):
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.set_num_threads(1)
    found = {}
    for name in MAKERS:
        likelihood = metric(name)
        if rank < 2:  # the last has no images
            add(likelihood, range(rank, 7, 2))
        found[name] = values(likelihood)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("name", MAKERS)
def test_states_are_sums(name):
    """What torchmetrics does with two processes, one of which may be without images; the real thing is slow."""
    whole, *shares = (metric(name) for _ in range(4))
    add(whole, range(7))
    add(shares[0], [0, 2, 4, 6])
    add(shares[1], [1, 3, 5])
    for state in whole.metric_state:
        assert whole._reductions[state] is dim_zero_sum
        setattr(shares[2], state, sum(getattr(share, state) for share in shares))
    torch.testing.assert_close(values(shares[2]), values(whole), rtol=1e-12, atol=0)


@pytest.mark.slow
def test_processes_do_not_matter(tmp_path):
    mp.spawn(process, (3, tmp_path), nprocs=3)
    for name in MAKERS:
        alone = metric(name)
        add(alone, range(7))
        for rank in range(3):
            found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)[name]
            torch.testing.assert_close(found, values(alone), rtol=1e-12, atol=0)


def test_strata_are_uniform_and_each_images_own():
    places = torch.stack(list(strata(4, SampleDraws(0, range(3000), (1, 2, 2)))))
    assert places.dtype == torch.float64
    within = 4 * places - torch.arange(4)[:, None]
    assert 0 < float(within.min()) < float(within.max()) < 1
    for row in within:
        # Kolmogorov and Smirnov's distance from the uniform distribution.
        steps = torch.arange(1, 3001) / 3000
        assert float((row.sort().values - steps).abs().max()) < 1.95 / math.sqrt(3000)
    correlation = torch.corrcoef(within)
    assert float((correlation - torch.eye(4)).abs().max()) < 5 / math.sqrt(3000)
    some = torch.stack(list(strata(4, SampleDraws(0, [7, 2500], (1, 2, 2)))))
    assert torch.equal(some, places[:, [7, 2500]])
