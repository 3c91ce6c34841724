"""Classifiers of guided-diffusion from their weights and flags, those of its README above all."""

import pytest
import torch
from helpers.commands import composed
from omegaconf import OmegaConf
from peer_states import OPENAI_MULTIPLIERS, openai_classifier_state, openai_state, shapes
from test_openai_flags import ADM_64, ADM_128, ADM_256

from langevin.assembly.check import check_model
from langevin.assembly.components import make_schedule
from langevin.assembly.make import make
from langevin.errors import UserError
from langevin.guidance.guidance import require_same_process
from langevin.interop.openai import read_openai
from langevin.interop.openai_classifier import read_openai_classifier
from langevin.spec import DataSpec


def flags_of(size, depth):
    """CLASSIFIER_FLAGS, as the README has them for 128 pixels."""
    return (
        f"--image_size {size} --classifier_attention_resolutions 32,16,8 --classifier_depth {depth} "
        "--classifier_width 128 --classifier_pool attention --classifier_resblock_updown True "
        "--classifier_use_scale_shift_norm True"
    )


COSINE = "--diffusion_steps 1000 --noise_schedule cosine"
LINEAR = "--diffusion_steps 1000 --noise_schedule linear"
GUIDING = "--classifier_scale 1.0 --classifier_use_fp16 True"

# Flags; size, blocks in a level, millions of parameters, counted in their networks; schedule.
PUBLISHED = {
    "64x64_classifier": (f"{flags_of(64, 4)} {COSINE}", (64, 4, 65.4), "cosine"),
    "128x128_classifier": (f"{flags_of(128, 2)} {LINEAR}", (128, 2, 42.6), "linear"),
    "256x256_classifier": (f"{flags_of(256, 2)} {LINEAR}", (256, 2, 54.1), "linear"),
}
# What the README's commands give beside them, or alone: MODEL_FLAGS.
PASTED = {
    "64x64_classifier": f"{ADM_64} --classifier_scale 1.0 --classifier_depth 4",
    "128x128_classifier": f"{ADM_128} {flags_of(128, 2)} {GUIDING}",
    "256x256_classifier": f"{ADM_256} --classifier_scale 1.0",
}


def read(flags, **changes):
    return read_openai_classifier(openai_classifier_state(flags, **changes), flags)


def config(imported):
    assert imported.overrides[:2] == ["task=classifier", "classifier=adm_64"]
    cfg, choices = composed("train", *imported.overrides)
    spec = DataSpec.of_images(imported.channels, imported.image_size, imported.num_classes)
    check_model(cfg, spec=spec)
    return cfg, choices


def assert_fills(cfg, imported):
    spec = {"in_channels": imported.channels, "num_classes": imported.num_classes, "image_size": imported.image_size}
    with torch.device("meta"):
        network = make(cfg, "classifier", **spec)
    parameters = {name: value for name, value in cfg.classifier.items() if name != "_target_"}
    assert shapes(imported.weights(parameters)) == shapes(network.state_dict())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name):
    """At full width: the network is built and its weights named, but never filled."""
    flags, (size, blocks, millions), schedule = PUBLISHED[name]
    imported = read(flags)
    cfg, choices = config(imported)
    assert imported[1:4] == (3, size, 1000)
    assert OmegaConf.to_container(cfg.classifier) == {
        "_target_": "langevin.networks.half_unet.HalfUNet",
        "channels": 128,
        "channel_multipliers": OPENAI_MULTIPLIERS[size],
        "blocks_per_level": blocks,
        "attention_resolutions": [32, 16, 8],
        "head_channels": 64,
        "time_embedding": "cosine_first",
        "scale_shift": True,
        "residual_resampling": True,
        "symmetric_padding": False,
        "norm_epsilon": 1e-5,
        "dropout": 0.0,
    }
    assert (choices["schedule"], cfg.schedule.num_steps, choices["parameterization"]) == (schedule, 1000, "eps")
    assert "model" not in cfg
    assert sum(tensor.numel() for tensor in openai_classifier_state(flags).values()) / 1e6 == pytest.approx(
        millions, abs=0.05
    )
    assert_fills(cfg, imported)


@pytest.mark.parametrize("name", PUBLISHED)
def test_flags_of_the_model_that_is_guided_say_nothing(name):
    """But of the size of its images and their noise, which are the classifier's too."""
    flags = PUBLISHED[name][0]
    pasted = read_openai_classifier(openai_classifier_state(flags), PASTED[name])
    assert pasted.overrides == read(flags).overrides
    assert pasted[1:4] == read(flags)[1:4]


@pytest.mark.parametrize("name", PUBLISHED)
def test_noise_of_the_model_that_is_guided(name):
    """Read from the same flags, the two are found on one process."""
    flags = {"64x64_classifier": ADM_64, "128x128_classifier": ADM_128, "256x256_classifier": ADM_256}[name]
    state = openai_classifier_state(PUBLISHED[name][0])
    read_twice = (read_openai(openai_state(flags), flags), read_openai_classifier(state, PASTED[name]))
    schedules = [make_schedule(composed("train", *each.overrides)[0], each.image_size) for each in read_twice]
    require_same_process("classifier", "RUN", *schedules)


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ("--classifier_depth 1 --classifier_width 192", {"channels": 192, "blocks_per_level": 1}),
        ("--classifier_use_scale_shift_norm False", {"scale_shift": False}),
        ("--classifier_resblock_updown False", {"residual_resampling": False, "symmetric_padding": True}),
        ("--classifier_attention_resolutions 64,8", {"attention_resolutions": [64, 8]}),
        ("--image_size 128 --classifier_attention_resolutions 8", {"attention_resolutions": [8]}),
    ],
)
def test_others(flags, fields):
    imported = read(flags)
    cfg, _ = config(imported)
    assert cfg.classifier.items() >= fields.items()
    assert_fills(cfg, imported)


def test_what_weights_show_need_not_be_given():
    flags = PUBLISHED["128x128_classifier"][0]
    state = openai_classifier_state(flags)
    assert read_openai_classifier(state, "").overrides == read_openai_classifier(state, flags).overrides


def test_half_precision_becomes_single():
    state = {name: tensor.half() for name, tensor in openai_classifier_state("").items()}
    imported = read_openai_classifier(state, "")
    cfg, _ = config(imported)
    assert {tensor.dtype for tensor in imported.weights(cfg.classifier).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--classifier_pool adaptive", "--classifier_pool is 'adaptive'; allowed: attention"),
        ("--classifier_pool spatial", "--classifier_pool is 'spatial'; allowed: attention"),
        ("--classifier_pool spatial_v2", "--classifier_pool is 'spatial_v2'; allowed: attention"),
        ("--classifier_scale -1", "--classifier_scale is '-1'; allowed: a number, at least 0"),
        ("--classifier_heads 4", "--classifier_heads is unknown; allowed: --image_size, .*--classifier_width, .*"),
        ("--image_size 128", "--image_size is 128; allowed: 64, as the weights have it"),
        ("--image_size 512", "--image_size is 512; allowed: 64, as the weights have it"),
        ("--classifier_width 192", "--classifier_width is 192; allowed: 128, as the weights have it"),
        ("--classifier_depth 4", "--classifier_depth is 4; allowed: 2, as the weights have it"),
        (
            "--classifier_use_scale_shift_norm False",
            "--classifier_use_scale_shift_norm is False; allowed: True, as the weights have it",
        ),
        (
            "--classifier_resblock_updown False",
            "--classifier_resblock_updown is False; allowed: True, as the weights have it",
        ),
        (
            "--classifier_attention_resolutions 16,8",
            "--classifier_attention_resolutions is 16,8 with --image_size 64; allowed: 32,16,8, as the weights have it",
        ),
    ],
)
def test_flags_that_cannot_be(flags, message):
    with pytest.raises(UserError, match=f"^flags: {message}$"):
        read_openai_classifier(openai_classifier_state(""), flags)


def test_a_classifier_receives_the_number_of_the_step():
    """Whatever their number, and whatever the flag says, which guided-diffusion does not pass to a classifier."""
    for flags in ("--diffusion_steps 4000 --rescale_timesteps True", "--diffusion_steps 1000"):
        overrides = read_openai_classifier(openai_classifier_state(""), flags).overrides
        schedule = make_schedule(composed("train", *overrides)[0], 64)
        assert schedule.clock(torch.tensor([501.0])).tolist() == [500]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        *(
            (
                openai_classifier_state("", classifier_pool=pool),
                "'out.2.positional_embedding' is missing; allowed: a classifier that pools by attention "
                r"\(--classifier_pool attention\), not one of adaptive, spatial or spatial_v2",
            )
            for pool in ("adaptive", "spatial", "spatial_v2")
        ),
        (
            openai_classifier_state("--image_size 512"),
            r"for classifier_width 128 the steps are \[64, .*; allowed: .* 64, 128, 256 pixels \(that for 512 .*",
        ),
        (openai_classifier_state("--image_size 32"), "for classifier_width 128 the steps are .*; allowed: .*"),
        (openai_classifier_state("", classifier_width="96"), "classifier_width is 96; allowed: 128 or more, .*"),
    ],
    ids=["adaptive", "spatial", "spatial_v2", "512", "32", "narrow"],
)
def test_weights_that_cannot_be(state, message):
    with pytest.raises(UserError, match=f"^weights: {message}$"):
        read_openai_classifier(state, "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out.2.c_proj.extra": torch.zeros(1)}, "'out.2.c_proj.extra' is unknown"),
        ({"out.2.qkv_proj.weight": None}, "'out.2.qkv_proj.weight' is missing"),
    ],
)
def test_weights_too_many_and_too_few(changes, message):
    state = {name: tensor for name, tensor in (openai_classifier_state("") | changes).items() if tensor is not None}
    imported = read_openai_classifier(state, "")
    with pytest.raises(UserError, match=f"^weights: {message}; allowed: .* OpenAI's EncoderUNetModel$"):
        imported.weights({"head_channels": 64})
