import pytest
import torch
from helpers.exact import gaussian
from torch import nn

from langevin.codecs.identity import Identity
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import SampleDraws
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedSmall
from langevin.errors import UserError
from langevin.images import to_uint8
from langevin.modalities.image import ImageModality
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.heun import Heun
from langevin.samplers.lms import LMS
from langevin.samplers.predictor_corrector import PredictorCorrector
from langevin.samplers.requests import Labels
from langevin.samplers.thresholding import Dynamic, Static
from langevin.samplers.timestep_spacing import Trailing

SHAPE = (3, 4, 4)


class Labelled(nn.Module):
    """Arithmetic that is the same at any batch size; keeps the labels it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = []

    def forward(self, x, c_noise, cond=None):
        shift = 0.0
        if cond is not None:
            self.labels.append(cond["label"].tolist())
            shift = cond["label"].reshape(-1, 1, 1, 1) / 8
        return (0.75 * x + shift + c_noise.reshape(-1, 1, 1, 1) / 1024).clamp(-2, 2)


def denoiser():
    return Denoiser(Labelled(), GaussianProcess(Cosine(20), Eps(), FixedSmall()))


def unguided(model, device):
    return model


def generate(indices, batch_size, num_classes=None, labels=None, seed=0, sampler=None, model=None):
    sampler = sampler or Ancestral(Trailing(), Static(), 10)
    generator = SamplePipeline(sampler, unguided, SHAPE, ImageModality(), Identity(), Labels(num_classes, labels))
    return list(generator(model or denoiser(), indices, seed, batch_size, "cpu"))


def joined(batches):
    return torch.cat([b.indices for b in batches]), torch.cat([b.samples for b in batches])


@pytest.mark.parametrize(
    "sampler",
    [
        Ancestral(Trailing(), Static(), 10),
        DDIM(Trailing(), Static(), 10, eta=1.0),
        DDIM(Trailing(), Dynamic(), 10),
        Heun(Trailing(), Static(), 10, s_churn=5.0),
        LMS(Trailing(), Static(), 10),
        PredictorCorrector(Trailing(), Static(), 10),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_batch_size_changes_no_image(sampler):
    runs = [generate(range(7), size, num_classes=4, sampler=sampler) for size in (1, 3, 7, 100)]
    assert [[len(b.samples) for b in run] for run in runs] == [[1] * 7, [3, 3, 1], [7], [7]]
    expected_indices, expected = joined(runs[0])
    assert expected_indices.tolist() == list(range(7))
    assert expected.float().std() > 20  # not all black
    for run in runs[1:]:
        indices, images = joined(run)
        assert torch.equal(indices, expected_indices)
        assert torch.equal(images, expected)
        assert torch.cat([b.cond["label"] for b in run]).tolist() == [0, 1, 2, 3, 0, 1, 2]


@pytest.mark.parametrize("world", [2, 3])
def test_number_of_ranks_changes_no_image(world):
    whole = joined(generate(range(8), 3, num_classes=3))[1]
    for rank in range(world):
        for batch in generate(range(rank, 8, world), 2, num_classes=3):
            assert torch.equal(batch.samples, whole[batch.indices])
            assert batch.cond["label"].tolist() == [int(i) % 3 for i in batch.indices]


def test_images_and_seeds_differ():
    made_images = torch.cat([joined(generate(range(4), 4, seed=seed))[1] for seed in (0, 1)])
    assert len(made_images.flatten(1).unique(dim=0)) == 8


def test_images_are_the_samplers_as_uint8():
    model, sampler = gaussian(Linear(), 0.2, 0.3), DDIM(Trailing(), steps=5)
    (batch,) = SamplePipeline(sampler, unguided, SHAPE, ImageModality(), Identity(), Labels(None))(
        model, [3, 8], 11, 2, "cpu"
    )
    x = sampler(model, SampleDraws(11, [3, 8], SHAPE))
    assert batch.samples.dtype == torch.uint8
    assert torch.equal(batch.samples, to_uint8(x))
    assert batch.cond == {}


def test_requested_labels_are_given_to_the_model_in_turn():
    model = denoiser()
    batches = generate([0, 1, 2, 5, 9], 3, num_classes=10, labels=[7, 0, 2], model=model)
    assert [b.cond["label"].tolist() for b in batches] == [[7, 0, 2], [2, 7]]
    assert model.network.labels == [[7, 0, 2]] * 10 + [[2, 7]] * 10
    assert all(b.cond["label"].dtype == b.indices.dtype == torch.int64 for b in batches)


def test_labels_make_a_difference():
    one, other = (joined(generate([0], 1, num_classes=10, labels=[label]))[1] for label in (0, 9))
    assert not torch.equal(one, other)


def test_guidance_is_put_around_the_model():
    given = []

    def guide(model, device):
        given.append(model)
        return gaussian(Linear(), 0.0, 1e-6)

    model = denoiser()
    (batch,) = SamplePipeline(DDIM(Trailing(), steps=5), guide, SHAPE, ImageModality(), Identity(), Labels(None))(
        model, [0, 1], 0, 2, "cpu"
    )
    assert given == [model]
    assert ((batch.samples == 127) | (batch.samples == 128)).all()


def test_watcher_is_called_at_every_step():
    times = []
    generator = SamplePipeline(DDIM(Trailing(), steps=5), unguided, SHAPE, ImageModality(), Identity(), Labels(None))
    batches = generator(denoiser(), range(4), 0, 2, "cpu", lambda x_t, t, prediction: times.append(float(t)))
    assert times == []  # nothing is made before it is asked for
    assert len(list(batches)) == 2
    assert times == [20.0, 16.0, 12.0, 8.0, 4.0] * 2


@pytest.mark.parametrize(
    ("num_classes", "labels"), [(None, [0]), (None, []), (10, [10]), (10, [-1]), (10, [0, 3, 11]), (10, [])]
)
def test_labels_that_do_not_suit_are_refused(num_classes, labels):
    with pytest.raises(UserError, match="labels"):
        Labels(num_classes, labels)
