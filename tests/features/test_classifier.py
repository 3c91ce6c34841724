"""A classifier that was trained here, as an extractor."""

import shutil

import pytest
import torch
from helpers.commands import composed
from helpers.images import example_images
from helpers.saved import save_untrained

from langevin.assembly.components import loaders
from langevin.assembly.make import make
from langevin.assembly.saved import classifier_for_guidance
from langevin.errors import UserError
from langevin.spec import DataSpec

SPEC = DataSpec.of_images(channels=1, image_size=8, num_classes=10)
SMALL = ("task=classifier", "classifier.channels=32", "classifier.channel_multipliers=[1,2]")


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    def save(name, *overrides):
        path = tmp_path_factory.mktemp("classifier") / f"{name}.ckpt"
        return save_untrained(path, composed("train", *SMALL, *overrides)[0], SPEC)

    return save


@pytest.fixture(scope="module")
def checkpoint(save):
    return save("discrete")


def extractor_of(checkpoint):
    cfg, _ = composed("evaluate", "features=classifier", f"features.checkpoint={checkpoint}")
    return make(cfg, "features", **loaders(cfg))


@pytest.mark.parametrize(
    ("overrides", "t", "alpha"),
    [
        ((), 1.0, (1 - 1e-4) ** 0.5),  # the first of DDPM's linear betas
        (("schedule=edm",), 0.002, 1.0),
    ],
    ids=["discrete", "continuous"],
)
def test_outputs_are_those_at_the_time_of_least_noise(save, overrides, t, alpha):
    path = save("some", *overrides)
    images = example_images(5, size=8, channels=1)
    extractor = extractor_of(path)
    extractor.prepare()
    outputs = extractor(images)

    classifier, _ = classifier_for_guidance("classifier", str(path))
    seen = []
    classifier.network.pool.project.register_forward_hook(lambda module, inputs, logits: seen.append((*inputs, logits)))
    x = images.float() / 127.5 - 1
    log_probability = classifier(alpha * x, torch.tensor(t, dtype=torch.float64))
    torch.testing.assert_close(outputs["features"], seen[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs["logits"], seen[0][1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs["logits"].log_softmax(1), log_probability, rtol=1e-4, atol=1e-5)
    assert dict(extractor.sizes) == {"features": 64, "logits": 10}
    assert outputs["features"].std(0).mean() > 1e-3, "or the comparison would show nothing"
    assert torch.equal(extractor(images)["features"], outputs["features"])


def test_is_named_by_data_and_weights(save, checkpoint, tmp_path):
    extractor = extractor_of(checkpoint)
    assert extractor.name == "classifier"
    extractor.prepare()
    assert extractor.name == f"classifier-digits-{extractor.sha256[:8]}"
    assert extractor.metric_name("fid", "fd") == f"fd_{extractor.name}"
    assert extractor.record()["outputs"] == {"features": 64, "logits": 10}

    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"global_step": 7}, run / "checkpoints" / "last.ckpt")
    again = extractor_of(run)
    again.prepare()
    assert (again.name, again.sha256) == (extractor.name, extractor.sha256), "another file of the same weights"

    next(value for key, value in content["state_dict"].items() if key.startswith("ema.")).flatten()[0] += 1
    torch.save(content, tmp_path / "other.ckpt")
    other = extractor_of(tmp_path / "other.ckpt")
    other.prepare()
    assert other.sha256 != extractor.sha256


def test_only_images_of_its_own_shape_are_taken(checkpoint):
    extractor = extractor_of(checkpoint)
    extractor.prepare()
    extractor.check((1, 8, 8), "samples=there")
    for shape in ((3, 8, 8), (1, 16, 16), (1, 8, 16)):
        with pytest.raises(UserError, match=r"samples=there: .*features\.checkpoint=.*: \(1, 8, 8\)") as caught:
            extractor.check(shape, "samples=there")
        assert str(shape) in str(caught.value)


def test_constructing_reads_nothing():
    extractor = extractor_of("nowhere")
    with pytest.raises(UserError, match=r"features\.checkpoint is nowhere, which does not exist"):
        extractor.prepare()


def test_a_denoiser_is_refused(tmp_path):
    cfg, _ = composed("train", "model.channels=32", "model.channel_multipliers=[1]")
    path = save_untrained(tmp_path / "denoiser.ckpt", cfg, SPEC)
    with pytest.raises(UserError, match=r"features\.checkpoint is .*denoiser\.ckpt; allowed: a classifier's run"):
        extractor_of(path).prepare()


def test_what_was_imported_is_not_of_known_data(checkpoint, tmp_path):
    content = torch.load(shutil.copy(checkpoint, tmp_path / "imported.ckpt"), weights_only=True)
    lines = content["langevin"]["config"].splitlines(keepends=True)
    start = lines.index("data:\n")
    end = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith(" "))
    content["langevin"]["config"] = "".join(lines[:start] + lines[end:])
    torch.save(content, tmp_path / "imported.ckpt")
    extractor = extractor_of(tmp_path / "imported.ckpt")
    extractor.prepare()
    assert extractor.name == f"classifier-imported-{extractor.sha256[:8]}"
