"""What a network takes of the weights that it is to start from."""

import copy
from dataclasses import replace

import pytest
import torch
from helpers.commands import composed
from helpers.saved import save_untrained
from omegaconf import open_dict

from langevin.assembly.components import make_model
from langevin.assembly.init_run import find_initial, mistakes_of_initial, start_from
from langevin.assembly.saved import load_model
from langevin.assembly.tasks import task_of
from langevin.diffusion.draws import BatchDraws
from langevin.errors import UserError
from langevin.spec import DataSpec

SPEC = DataSpec.of_images(channels=1, image_size=8, num_classes=10)
NARROW = ("model.channels=32", "model.channel_multipliers=[1,1]")
MODELS = {
    "unet": ("model=unet_small", *NARROW),
    "images at every resolution": (
        "model=unet_small",
        *NARROW,
        "model.residual_resampling=true",
        "model.progressive_input=true",
    ),
    "transformer": ("model=dit_s", "model.width=16", "model.depth=1", "model.heads=2", "model.patch_size=2"),
    "tutorial": ("model=tutorial_unet", "model.widths=[8,8]"),
}
LOW_RES = {"_target_": "tenants.parts.LowRes", "scale": 2}


def with_low_res(cfg):
    """A config with images of half the size as one more condition."""
    changed = copy.deepcopy(cfg)
    with open_dict(changed):
        changed.conditions = {**(cfg.get("conditions") or {}), "low_res": LOW_RES}
    return changed


def started(cfg, place, spec=SPEC):
    """The network of a config that starts from a checkpoint, its copy, and what was said."""
    cfg.init.checkpoint = str(place)
    assert find_initial(cfg)[1] == []
    torch.manual_seed(2)
    network = make_model(cfg, spec).network
    average = copy.deepcopy(network)
    said = start_from(cfg, [network, average], spec)
    return network.eval(), average.eval(), said


def inputs(number=4):
    generator = torch.Generator().manual_seed(0)
    x, low_res = (torch.randn(number, 1, side, side, generator=generator).double() for side in (8, 4))
    return x, torch.rand(number, generator=generator).double(), {"label": torch.arange(number), "low_res": low_res}


@pytest.mark.parametrize("model", MODELS)
def test_with_images_as_one_more_condition_it_computes_at_first_what_the_other_did(model, tmp_path):
    cfg, _ = composed("train", *MODELS[model], "conditions=[class_label]")
    place = save_untrained(tmp_path / "base.ckpt", cfg, SPEC)
    x, c_noise, cond = inputs()
    with torch.no_grad():
        expected = load_model(place).denoiser.network.double()(x, c_noise, cond)
        for network in started(with_low_res(cfg), place)[:2]:
            torch.testing.assert_close(network.double()(x, c_noise, cond), expected, rtol=0, atol=1e-12)
            for first in (weight for weight in network.parameters() if weight.shape[1:2] == (2,)):
                assert not first[:, 1].any()
                assert first[:, 0].any()


def test_an_inpainting_model_computes_at_first_what_the_unconditional_one_did(tmp_path):
    """Whatever is known, and in the size of its network."""
    cfg, _ = composed("train", *MODELS["unet"])
    place = save_untrained(tmp_path / "base.ckpt", cfg, SPEC)
    network, _, said = started(composed("train", *MODELS["unet"], "conditions=[inpaint]")[0], place)
    assert "new input channels start at zero), 0 new, 0 unused" in said
    x, c_noise, _ = inputs()
    with torch.no_grad():
        expected = load_model(place).denoiser.network.double()(x, c_noise)
        column = network.condition.derive(x.float(), BatchDraws(0, x, len(x)))
        assert column["inpaint"].any()
        torch.testing.assert_close(network.double()(x, c_noise, column), expected, rtol=0, atol=1e-12)


def test_what_is_taken_is_said(tmp_path):
    cfg, _ = composed("train", *MODELS["unet"], "conditions=[class_label]")
    place = save_untrained(tmp_path / "base.ckpt", cfg, SPEC)
    *_, said = started(with_low_res(cfg), place)
    assert said is not None
    assert "init.checkpoint=" in said
    assert "tensors taken (of first.weight the new input channels start at zero), 0 new, 0 unused" in said
    cfg, _ = composed("train", *MODELS["unet"], "parameterization=v", "schedule=cosine", "model.heads=2")
    *_, said = started(cfg, place)
    assert said is not None
    assert "0 new, 1 unused (condition.table.weight)" in said
    changes = "schedule=cosine (was linear), parameterization=v (was eps), model.heads=2 (was null)"
    assert said.endswith(f"; the weights have to adapt to changed settings: {changes}")


def test_what_does_not_fit_keeps_its_own_initial_values(tmp_path):
    """Here the classes: others than there."""
    cfg, _ = composed("train", *MODELS["unet"], "conditions=[class_label]")
    place = save_untrained(tmp_path / "base.ckpt", cfg, SPEC)
    other = DataSpec.of_images(channels=1, image_size=8, num_classes=3)
    torch.manual_seed(2)
    fresh = make_model(cfg, other).network.condition.table.weight
    network, _, said = started(cfg, place, other)
    assert torch.equal(network.condition.table.weight, fresh)
    assert "1 new (condition.table.weight), 1 unused (condition.table.weight)" in said


def test_its_own_images_come_first(tmp_path):
    """Else the weights of one image would be taken for those of another."""
    plain, _ = composed("train", *MODELS["unet"])
    cfg = with_low_res(plain)
    cfg.trust = ["tenants"]
    place = save_untrained(tmp_path / "base.ckpt", cfg, SPEC)
    more = copy.deepcopy(cfg)
    with open_dict(more):
        more.conditions = {"other": LOW_RES, "low_res": LOW_RES}
    for wrong in (more, plain):
        wrong.trust = ["tenants"]
        with pytest.raises(UserError, match=r"conditions: have as images .* in its order: low_res \(1 channels\)"):
            started(copy.deepcopy(wrong), place)
    more.conditions = {"low_res": LOW_RES, "other": LOW_RES}
    network, _, _ = started(more, place)
    base = load_model(place, ["tenants"]).denoiser.network
    assert torch.equal(network.first.weight[:, :2], base.first.weight)


def test_another_kind_of_samples_is_refused(tmp_path):
    cfg, _ = composed("train", *MODELS["unet"])
    place = save_untrained(tmp_path / "base.ckpt", cfg, SPEC)
    cfg.init.checkpoint = str(place)
    initial, _ = find_initial(cfg)
    for spec, text in (
        (DataSpec.of_images(3, 8, 10), "allowed: a model of 3 channels, and this is of samples (1, 8, 8)"),
        (DataSpec((1, 8, 8), None, SPEC.modality, latents="abc"), "a model of latents, as of this run's codec"),
    ):
        network = make_model(cfg, spec).network
        (mistake,) = mistakes_of_initial(cfg, task_of(cfg), initial, network, spec)
        assert mistake.path == "init.checkpoint"
        assert text in mistake.message


def test_what_has_moved_on_in_between_is_refused(tmp_path):
    cfg, _ = composed("train", *MODELS["unet"])
    place = save_untrained(tmp_path / "base.ckpt", cfg, SPEC)
    cfg.init.checkpoint = str(place)
    find_initial(cfg)
    network = make_model(cfg, SPEC).network
    checkpoint = torch.load(place, weights_only=True)
    checkpoint["state_dict"]["ema.network.last.bias"] += 1
    torch.save(checkpoint, place)
    with pytest.raises(UserError, match=r"init\.weights: is .*; leave it out"):
        start_from(cfg, [network], SPEC)


def test_words_that_both_know_keep_their_embeddings(tmp_path):
    """Though other captions give them other places; and none takes that of another word."""
    config = (*NARROW, "conditions=[text]", "captions=templates", "text=learned", "text.width=8", "text.heads=2")
    cfg, _ = composed("train", *config)
    before, after = (replace(SPEC, vocabulary=words) for words in (("a", "red", "car"), ("car", "blue", "a")))
    place = save_untrained(tmp_path / "before.ckpt", cfg, before)
    network, average, said = started(cfg, place, after)
    held = load_model(place).denoiser.network.condition.encoder
    torch.manual_seed(2)
    fresh = make_model(cfg, after).network.condition.encoder.embedding.weight
    for encoder in (network.condition.encoder, average.condition.encoder):
        ours, theirs, first = encoder.embedding.weight, held.embedding.weight, held.words.first
        assert torch.equal(ours[:first], theirs[:first])
        assert torch.equal(ours[first:], torch.stack([theirs[first + 2], fresh[first + 1], theirs[first]]))
        assert torch.equal(encoder.positions, held.positions)
    assert "1 new (condition.encoder.embedding.weight)" in said
