"""Models of improved-diffusion and guided-diffusion from their weights and flags, those of their READMEs above all."""

from functools import partial

import pytest
import torch
from helpers.commands import composed
from omegaconf import OmegaConf
from peer_states import assert_fills, openai_state, upsampler_state
from torch.nn import functional

from langevin.assembly.check import check_model
from langevin.assembly.components import make_model, make_schedule
from langevin.conditions.class_label import ClassLabel
from langevin.errors import UserError
from langevin.interop.openai import from_openai, read_openai
from langevin.interop.openai_flags import parse_flags
from langevin.networks.unet import UNet
from langevin.spec import DataSpec

IMAGENET_64 = "--image_size 64 --num_channels 128 --num_res_blocks 3 --learn_sigma True"
CIFAR_10 = "--image_size 32 --num_channels 128 --num_res_blocks 3 --learn_sigma True --dropout 0.3"
LSUN = (
    "--image_size 256 --num_channels 128 --num_res_blocks 2 --num_heads 1 --learn_sigma True "
    "--use_scale_shift_norm False --attention_resolutions 16 --diffusion_steps 1000 --noise_schedule linear "
    "--rescale_learned_sigmas False --rescale_timesteps False"
)
COSINE_4000 = "--diffusion_steps 4000 --noise_schedule cosine"
RESCALED = "--rescale_timesteps True --rescale_learned_sigmas True"
ADM_64 = (
    "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --dropout 0.1 --image_size 64 "
    "--learn_sigma True --noise_schedule cosine --num_channels 192 --num_head_channels 64 --num_res_blocks 3 "
    "--resblock_updown True --use_new_attention_order True --use_fp16 True --use_scale_shift_norm True"
)
ADM_128 = (
    "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --image_size 128 --learn_sigma True "
    "--noise_schedule linear --num_channels 256 --num_heads 4 --num_res_blocks 2 --resblock_updown True "
    "--use_fp16 True --use_scale_shift_norm True"
)
ADM_256 = (
    "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --image_size 256 --learn_sigma True "
    "--noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2 --resblock_updown True "
    "--use_fp16 True --use_scale_shift_norm True"
)
ADM_256_UNCONDITIONAL = ADM_256.replace("--class_cond True", "--class_cond False")
ADM_LSUN = ADM_256_UNCONDITIONAL + " --dropout 0.1"

IMPROVED_MODEL = {
    "channels": 128,
    "blocks_per_level": 3,
    "attention_resolutions": [16, 8],
    "heads": 4,
    "head_channels": None,
    "scale_shift": True,
    "residual_resampling": False,
    "symmetric_padding": True,
    "dropout": 0.0,
}
ADM_MODEL = {
    "channels": 256,
    "channel_multipliers": [1, 1, 2, 2, 4, 4],
    "blocks_per_level": 2,
    "attention_resolutions": [32, 16, 8],
    "heads": None,
    "head_channels": 64,
    "scale_shift": True,
    "residual_resampling": True,
    "symmetric_padding": False,
    "dropout": 0.0,
}
ALL_MODELS = {"time_embedding": "cosine_first", "norm_epsilon": 1e-5, "map_condition": False, "skip_rescale": False}
HYBRID = {
    "parameterization": "eps",
    "weighting": "unit_eps",
    "variance": "learned_range",
    "objective": "hybrid",
    "time_sampler": "uniform",
}
VLB = HYBRID | {"objective": "vlb", "time_sampler": "loss_aware"}
LINEAR, COSINE = {"schedule": "linear"} | HYBRID, {"schedule": "cosine"} | HYBRID

# Flags; image size, classes, millions of parameters (ADM's paper says 296, 422, 554; the others are counted in their
# networks) and steps; choices; the model's parameters.
PUBLISHED = {
    "imagenet64_uncond_100M": (
        f"{IMAGENET_64} {COSINE_4000} {RESCALED}",
        (64, None, 121, 4000),
        COSINE,
        IMPROVED_MODEL | {"channel_multipliers": [1, 2, 3, 4]},
    ),
    "imagenet64_uncond_vlb_100M": (
        f"{IMAGENET_64} {COSINE_4000} --use_kl True --rescale_timesteps True",
        (64, None, 121, 4000),
        COSINE | VLB,
        IMPROVED_MODEL | {"channel_multipliers": [1, 2, 3, 4]},
    ),
    "cifar10_uncond_50M": (
        f"{CIFAR_10} {COSINE_4000}",
        (32, None, 53, 4000),
        COSINE,
        IMPROVED_MODEL | {"channel_multipliers": [1, 2, 2, 2], "dropout": 0.3},
    ),
    "cifar10_uncond_vlb_50M": (
        f"{CIFAR_10} {COSINE_4000} --use_kl True",
        (32, None, 53, 4000),
        COSINE | VLB,
        IMPROVED_MODEL | {"channel_multipliers": [1, 2, 2, 2], "dropout": 0.3},
    ),
    "lsun_uncond_100M": (
        f"{LSUN} --use_scale_shift_norm False",
        (256, None, 114, 1000),
        LINEAR,
        IMPROVED_MODEL
        | {
            "channel_multipliers": [1, 1, 2, 2, 4, 4],
            "blocks_per_level": 2,
            "attention_resolutions": [16],
            "heads": 1,
            "scale_shift": False,
        },
    ),
    "64x64_diffusion": (
        ADM_64,
        (64, 1000, 296, 1000),
        COSINE,
        ADM_MODEL | {"channels": 192, "channel_multipliers": [1, 2, 3, 4], "blocks_per_level": 3, "dropout": 0.1},
    ),
    "128x128_diffusion": (
        ADM_128,
        (128, 1000, 422, 1000),
        LINEAR,
        ADM_MODEL | {"channel_multipliers": [1, 1, 2, 3, 4], "heads": 4, "head_channels": None},
    ),
    "256x256_diffusion": (ADM_256, (256, 1000, 554, 1000), LINEAR, ADM_MODEL),
    "256x256_diffusion_uncond": (ADM_256_UNCONDITIONAL, (256, None, 553, 1000), LINEAR, ADM_MODEL),
    "lsun_bedroom": (ADM_LSUN, (256, None, 553, 1000), LINEAR, ADM_MODEL | {"dropout": 0.1}),
}


def read(flags, **changes):
    return read_openai(openai_state(flags, **changes), flags)


def config(imported):
    cfg, choices = composed("train", *imported.overrides)
    check_model(cfg, ("objective", "weighting", "time_sampler", "sampler", "timestep_spacing"))
    return cfg, choices


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name):
    """At full width: the network is built and its weights named, but never filled."""
    flags, (size, classes, millions, steps), expected, model = PUBLISHED[name]
    imported = read(flags)
    cfg, choices = config(imported)
    assert imported[1:4] == (3, size, classes)
    assert choices.items() >= expected.items()
    assert set(cfg.get("conditions") or ()) == (set() if classes is None else {"class_label"})
    assert cfg.schedule.num_steps == steps
    assert OmegaConf.to_container(cfg.model).items() >= (ALL_MODELS | model).items()
    assert sum(tensor.numel() for tensor in openai_state(flags).values()) / 1e6 == pytest.approx(millions, abs=0.5)
    assert_fills(cfg, imported)


UPSAMPLERS = {
    "64_256_upsampler": (
        "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --large_size 256 --small_size 64 "
        "--learn_sigma True --noise_schedule linear --num_channels 192 --num_heads 4 --num_res_blocks 2 "
        "--resblock_updown True --use_fp16 True --use_scale_shift_norm True",
        (256, 64),
        {"channels": 192, "heads": 4, "head_channels": None},
    ),
    "128_512_upsampler": (
        "--attention_resolutions 32,16 --class_cond True --diffusion_steps 1000 --large_size 512 --small_size 128 "
        "--learn_sigma True --noise_schedule linear --num_channels 192 --num_head_channels 64 --num_res_blocks 2 "
        "--resblock_updown True --use_fp16 True --use_scale_shift_norm True",
        (512, 128),
        {"channels": 192, "attention_resolutions": [32, 16]},
    ),
}


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_published_upsamplers(name):
    flags, (size, small), model = UPSAMPLERS[name]
    imported = read_openai(upsampler_state(flags), flags)
    cfg, choices = config(imported)
    assert imported[1:4] == (3, size, 1000)
    assert choices.items() >= LINEAR.items()
    assert list(cfg.conditions) == ["class_label", "low_res"]
    assert (cfg.conditions.low_res.size, cfg.conditions.low_res.augmentation) == (small, "none")
    assert OmegaConf.to_container(cfg.model).items() >= (ALL_MODELS | ADM_MODEL | model).items()
    assert_fills(cfg, imported)


def test_flags_of_an_upsampler_that_cannot_be():
    flags, _, _ = UPSAMPLERS["64_256_upsampler"]
    state = upsampler_state(flags)
    for wrong, message in {
        "--image_size 256": "--image_size is 256; the weights also take a smaller image: give --large_size and .*",
        "--large_size 128": "--large_size is 128; allowed: 256 or 512, for the weights' multipliers 1,1,2,2,4,4",
    }.items():
        with pytest.raises(UserError, match=f"^flags: {message}"):
            read_openai(state, wrong)
    cfg, _ = composed("train", *read_openai(state, flags.replace("--small_size 64", "--small_size 48")).overrides)
    with pytest.raises(UserError, match="is 48; allowed: a divisor of the images' side 256"):
        check_model(cfg, spec=DataSpec.of_images(3, 256, 1000))


@pytest.mark.slow
def test_an_upsampler_is_a_network_of_twice_as_many_channels():
    """Of the large image, noisy, and below it the small one, enlarged."""
    flags = "--large_size 64 --small_size 16 --num_channels 128 --num_res_blocks 1 --attention_resolutions 16,8"
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(tensor.shape, generator=generator) / max(tensor[0].numel(), 4) ** 0.5
        for name, tensor in upsampler_state(f"{flags} --class_cond True").items()
    }
    imported = read_openai(state, flags)
    cfg, _ = config(imported)
    network = make_model(cfg, DataSpec.of_images(3, 64, 1000)).network.eval()
    parameters = {name: value for name, value in cfg.model.items() if name != "_target_"}
    network.load_state_dict(imported.weights(parameters))
    label = partial(ClassLabel, num_classes=1000, dropout=0.0)
    plain = UNet(in_channels=6, out_channels=3, image_size=64, condition=label, **parameters).eval()
    plain.load_state_dict(from_openai(state, parameters))
    x, small = torch.randn(2, 3, 64, 64, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)
    cond, time = {"label": torch.tensor([3, 999])}, torch.tensor([7.0, 950.0])
    enlarged = functional.interpolate(small, scale_factor=4, mode="bilinear")
    with torch.no_grad():
        expected = plain(torch.cat([x, enlarged], dim=1), time, cond)
        torch.testing.assert_close(network(x, time, {**cond, "low_res": small}), expected)


SMALL = "--image_size 32 --num_channels 128 --num_res_blocks 1"
ADM_SMALL = "--image_size 16 --channel_mult 1,2 --num_channels 128 --num_res_blocks 1 --resblock_updown True"


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ("", {"parameterization": "eps", "weighting": "unit_eps", "variance": "fixed_large", "objective": "simple"}),
        ("--sigma_small True", {"variance": "fixed_small"}),
        ("--predict_xstart True", {"parameterization": "x", "weighting": "unit_x", "variance": "fixed_large"}),
        ("--use_kl True", {"objective": "vlb", "time_sampler": "loss_aware", "variance": "fixed_large"}),
        ("--learn_sigma True --sigma_small True", {"variance": "learned_range", "objective": "hybrid"}),
    ],
)
def test_choices(flags, chosen):
    cfg, choices = config(read(f"{SMALL} {flags}"))
    assert choices.items() >= chosen.items()
    assert choices["schedule"] == "linear"
    assert (cfg.schedule.num_steps, cfg.schedule.rescale) == (1000, True)


@pytest.mark.parametrize(
    ("flags", "weight"),
    [
        (f"{SMALL} --learn_sigma True --diffusion_steps 500", 0.001),
        (f"{SMALL} --learn_sigma True --diffusion_steps 500 --rescale_learned_sigmas False", 1 / 500),
        # The same at T = 1000, where T / 1000 is one.
        (f"{SMALL} --learn_sigma True --rescale_learned_sigmas False", 0.001),
        (f"{ADM_SMALL} --learn_sigma True --diffusion_steps 500 --rescale_timesteps True", 1 / 500),
    ],
)
def test_weight_of_the_bound(flags, weight):
    """A step's term counts T / 1000 times with rescale_learned_sigmas, once without. Ours is 0.001 times T of it."""
    cfg, _ = config(read(flags))
    assert cfg.objective.vlb_weight == pytest.approx(weight, rel=1e-12)


def test_what_weights_show_need_not_be_given():
    full, short = f"{ADM_64} --use_checkpoint True", "--num_head_channels 64 --noise_schedule cosine --dropout 0.1"
    short += " --use_new_attention_order=True --use_checkpoint=y --timestep_respacing ddim25"
    assert read_openai(openai_state(full), short).overrides == read(full).overrides


def test_last_of_equal_flags_counts():
    assert parse_flags("--dropout 0.1 --num_heads_upsample=-1 --dropout '0.2'") == {
        "dropout": 0.2,
        "num_heads_upsample": None,
    }


def test_half_precision_becomes_single():
    state = {name: torch.zeros(tensor.shape).half() for name, tensor in openai_state(SMALL).items()}
    imported = read_openai(state, SMALL)
    cfg, _ = config(imported)
    assert {tensor.dtype for tensor in imported.weights(cfg.model).values()} == {torch.float32}


MANY_STEPS = IMAGENET_64.replace("128", "192") + " --class_cond True " + COSINE_4000


@pytest.mark.parametrize(
    ("flags", "state", "message"),
    [
        ("--image_size 64 --lr 1e-4", SMALL, "--lr is unknown; allowed: --image_size, .*"),
        ("MODEL_FLAGS=--image_size", SMALL, "MODEL_FLAGS=--image_size is unknown; allowed: --image_size, .*"),
        ("--image_size '64", SMALL, ".* cannot be read .*; allowed: --name value, one after the other"),
        ("--image_size", SMALL, "--image_size is ''; allowed: a whole number, at least 1"),
        ("--image_size --class_cond True", SMALL, "--image_size is '--class_cond'; allowed: a whole number, .*"),
        ("--num_res_blocks 1.5", SMALL, "--num_res_blocks is '1.5'; allowed: a whole number, at least 1"),
        ("--num_head_channels 0", SMALL, "--num_head_channels is '0'; allowed: a whole number, at least 1, or -1 .*"),
        ("--learn_sigma maybe", SMALL, "--learn_sigma is 'maybe'; allowed: True or False"),
        ("--dropout 1", SMALL, "--dropout is '1'; allowed: a number, at least 0, below 1"),
        ("--dropout nan", SMALL, "--dropout is 'nan'; allowed: a number, at least 0, below 1"),
        ("--channel_mult 0.5,1", SMALL, "--channel_mult is '0.5,1'; allowed: whole numbers with commas between, .*"),
        ("--noise_schedule sqrt", SMALL, "--noise_schedule is 'sqrt'; allowed: linear or cosine"),
        ("--large_size 256 --small_size 64", SMALL, "--large_size is 256; the weights take no smaller image: give .*"),
        ("--image_size 48", SMALL, "--image_size is 48; allowed: 32 or another with its --channel_mult, .* 1,2,2,2"),
        ("", SMALL, "--image_size is 64; allowed: 32 or another with its --channel_mult, .* 1,2,2,2"),
        (f"{SMALL} --num_channels 192", SMALL, "--num_channels is 192; allowed: 128, as the weights have it"),
        (f"{SMALL} --num_res_blocks 2", SMALL, "--num_res_blocks is 2; allowed: 1, as the weights have it"),
        (f"{SMALL} --channel_mult 1,2,2", SMALL, "--channel_mult is 1,2,2; allowed: 1,2,2,2, as the weights have it"),
        (f"{SMALL} --learn_sigma True", SMALL, "--learn_sigma is True; allowed: False, as the weights have it"),
        (f"{SMALL} --class_cond True", SMALL, "--class_cond is True; allowed: False, as the weights have it"),
        (f"{SMALL} --use_scale_shift_norm n", SMALL, "--use_scale_shift_norm is False; allowed: True, as .*"),
        (f"{SMALL} --resblock_updown True", SMALL, "--resblock_updown is True; allowed: False, as .*"),
        (ADM_SMALL.replace("True", "False"), ADM_SMALL, "--resblock_updown is False; allowed: True, as .*"),
        (
            f"{SMALL} --attention_resolutions 16",
            SMALL,
            "--attention_resolutions is 16 with --image_size 32; allowed: 16,8, as the weights have it",
        ),
        (
            f"{SMALL} --num_heads 3",
            SMALL,
            "--num_heads is 3; allowed: a divisor of the widths that attend, 256,256,256",
        ),
        (f"{SMALL} --num_head_channels 48", SMALL, "--num_head_channels is 48; allowed: a divisor of .* 256,256,256"),
        (f"{SMALL} --num_heads_upsample 2", SMALL, "--num_heads_upsample is 2; allowed: -1 or 4, .*"),
        (
            f"{ADM_SMALL} --sigma_small False",
            ADM_SMALL,
            "--sigma_small is False beside --channel_mult; allowed: one of them, for the first is improved-.*",
        ),
        (
            f"{IMAGENET_64} {COSINE_4000}",
            IMAGENET_64,
            "--rescale_timesteps and --rescale_learned_sigmas must be given, .*; allowed: True .* or False .*",
        ),
    ],
)
def test_flags_that_cannot_be(flags, state, message):
    with pytest.raises(UserError, match=f"^flags: {message}$"):
        read_openai(openai_state(state), flags)


@pytest.mark.parametrize(
    ("flags", "unscaled"),
    [
        (f"{ADM_SMALL} --diffusion_steps 500", True),  # guided-diffusion's default
        (f"{ADM_SMALL} --diffusion_steps 500 --rescale_timesteps True", False),
        (f"{SMALL} --diffusion_steps 500", False),  # improved-diffusion's
        (f"{SMALL} --diffusion_steps 500 --rescale_timesteps False", True),
        (f"{ADM_SMALL} --rescale_timesteps False", False),  # of 1000 steps, both are the same
    ],
)
def test_the_numbers_of_other_than_1000_steps(flags, unscaled):
    overrides = read_openai(openai_state(flags), flags).overrides
    clock = make_schedule(composed("train", *overrides)[0], 64).clock(torch.tensor([1.0, 251.0]).double())
    assert clock.tolist() == [0, 250 if unscaled or "500" not in flags else 500]


def test_weights_that_cannot_be():
    ADM_512 = ADM_256.replace("--image_size 256", "--image_size 512")
    upsampler = {"in_channels": 4}
    for flags, state, message in [
        (
            ADM_512,
            openai_state(ADM_512),
            r"the first convolution is 128 wide .* num_channels 256; allowed: .*512x512.*",
        ),
        (SMALL, openai_state(SMALL, **upsampler), "the network maps 4 channels to 3; allowed: .*"),
        (
            SMALL,
            openai_state(f"{SMALL} --learn_sigma True", **upsampler),
            "the network maps 4 channels to 6; allowed: .*",
        ),
        (SMALL, openai_state(SMALL, num_channels="96"), "num_channels is 96; allowed: 128 or more, .*"),
        (SMALL, {"encoder.weight": torch.zeros(1)}, "'input_blocks.0.0.weight' is missing; allowed: .*OpenAI.*"),
    ]:
        with pytest.raises(UserError, match=f"^weights: {message}$"):
            read_openai(state, flags)
