import pytest
import torch
from helpers.commands import composed
from helpers.images import example_images
from helpers.saved import save_untrained

from langevin.assembly.components import loaders
from langevin.assembly.make import make
from langevin.assembly.saved import classifier_for_guidance
from langevin.config.validate import ConfigError
from langevin.digest import digest_of
from langevin.errors import OptionError
from langevin.images import from_uint8
from langevin.spec import DataSpec

SPEC = DataSpec.of_images(channels=1, image_size=8, num_classes=10)
SMALL = ("task=classifier", "classifier.channels=32", "classifier.channel_multipliers=[1,2,1]")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "last.ckpt"
    return save_untrained(path, composed("train", *SMALL, "classifier.blocks_per_level=2")[0], SPEC)


def distance_of(run):
    cfg, _ = composed("train", "perceptual=classifier", f"perceptual.run={run}")
    return make(cfg, "perceptual", **loaders(cfg))


def pair():
    x, target = (from_uint8(example_images(4, 8, 1, seed)) for seed in (0, 1))
    return x, target


def test_it_compares_what_each_level_of_the_way_down_ends_in(checkpoint):
    """By hooks on the network, which is called at its time of least noise, and by the formula."""
    distance = distance_of(checkpoint)
    x, target = pair()
    classifier, _ = classifier_for_guidance("classifier", str(checkpoint))
    network, seen = classifier.network, []
    # Two blocks, then twice a downsampling and two blocks.
    for position in (1, 4, 7):
        network.down[position].register_forward_hook(lambda module, inputs, output: seen.append(output.double()))
    t, alpha = torch.tensor(1.0, dtype=torch.float64), (1 - 1e-4) ** 0.5
    classifier(alpha * x, t)
    classifier(alpha * target, t)
    assert [each.shape[1:] for each in seen[:3]] == [(32, 8, 8), (64, 4, 4), (32, 2, 2)]
    expected = torch.zeros(4, dtype=torch.float64)
    for a, b in zip(seen[:3], seen[3:], strict=True):
        a, b = (each / each.norm(dim=1, keepdim=True) for each in (a, b))
        expected += (a - b).square().sum(1).mean((1, 2))
    assert expected.min() > 1e-2
    torch.testing.assert_close(distance(x, target).double(), expected, rtol=1e-5, atol=1e-6)


def test_it_is_frozen_and_follows_x_alone(checkpoint):
    distance = distance_of(checkpoint).train()
    assert not any(module.training for module in distance.modules())
    assert not any(weight.requires_grad for weight in distance.parameters())
    x, target = pair()
    x.requires_grad_()
    target.requires_grad_()
    before = distance(x, target)
    before.sum().backward()
    assert target.grad is None
    nearer = distance(x.detach() - 0.01 * x.grad / x.grad.norm(), target)
    assert nearer.sum() < before.sum()
    assert distance(x, x).abs().max() == 0


def test_its_record_is_the_digest_of_the_runs_weights(checkpoint, tmp_path):
    record = distance_of(checkpoint).record()["perceptual"]
    assert record["class"] == "langevin.perceptual.classifier.ClassifierDistance"
    assert record["weights"] == digest_of(distance_of(checkpoint))
    other = save_untrained(tmp_path / "other.ckpt", composed("train", *SMALL)[0], SPEC)
    assert distance_of(other).record()["perceptual"]["weights"] != record["weights"]


def test_other_images_and_other_runs_are_refused(checkpoint, tmp_path):
    distance_of(checkpoint).check(SPEC)
    with pytest.raises(OptionError, match=r"^run is .*last\.ckpt, a classifier of images .* \(1, 8, 8\); allowed: one"):
        distance_of(checkpoint).check(DataSpec.of_images(3, 8, 10))
    model = save_untrained(
        tmp_path / "model.ckpt", composed("train", "model.channels=32", "model.channel_multipliers=[1]")[0], SPEC
    )
    for run, reason in ((model, "this is a denoiser's"), (tmp_path / "nowhere", "does not exist")):
        with pytest.raises(ConfigError, match=rf"perceptual\.run: is {run}[;,] .*{reason}"):
            distance_of(run)
