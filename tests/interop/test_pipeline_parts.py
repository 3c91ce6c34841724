"""What of a folder of diffusers we have, and what of our parts diffusers has; the rest is refused by its name."""

import json
import re

import pytest
import torch
from diffusers import DDPMScheduler
from helpers.commands import composed
from helpers.pipelines import BETAS, TWO_LEVELS, ddpm_folder, unet

from langevin.assembly.components import make_schedule
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import EDMParameterization, Eps, FlowParameterization, V
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.rescalings.input_scaling import InputScaling
from langevin.diffusion.rescalings.resolution_shift import ResolutionShift
from langevin.diffusion.rescalings.unscaled_timesteps import UnscaledTimesteps
from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.explicit import ExplicitSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.quadratic import QuadraticSchedule
from langevin.diffusion.schedules.sigmoid import SigmoidSchedule
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.variance import FixedLarge, FixedSmall, LearnedRange
from langevin.errors import UserError
from langevin.interop.pipeline import read_folder
from langevin.interop.pipeline_export import write_folder
from langevin.interop.scheduler_config import scheduler_config
from langevin.interop.schedulers import scheduler_of
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.dpm_solver_multistep import DPMSolver2M, DPMSolver3M
from langevin.samplers.heun import Heun
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import Karras, Leading, Trailing

UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"


@pytest.fixture(scope="module")
def network():
    return unet()


def changed(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        (
            "model_index.json",
            {"_class_name": "KarrasVePipeline"},
            '_class_name is "KarrasVePipeline"; allowed: DDPMPipe',
        ),
        (
            "model_index.json",
            {"_class_name": "LDMPipeline"},
            "_class_name is LDMPipeline, whose autoencoder is not there",
        ),
        (UNET, {"_class_name": "UNet3DConditionModel"}, '_class_name is "UNet3DConditionModel"; allowed'),
        (UNET, {"mid_block_scale_factor": 1.41}, "mid_block_scale_factor is 1.41; allowed: 1"),
        (UNET, {"act_fn": "gelu"}, 'act_fn is "gelu"; allowed: silu, swish'),
        (UNET, {"norm_num_groups": 0}, "norm_num_groups is 0; allowed: a whole number, at least 1"),
        (
            UNET,
            {"norm_num_groups": 3},
            "block_out_channels is [128]; allowed: multiples of the first, which is a multip",
        ),
        (UNET, {"attn_norm_num_groups": 16}, "attn_norm_num_groups is 16; allowed: 32, as norm_num_groups, or null"),
        (UNET, {"add_attention": False}, "add_attention is false; allowed: True"),
        (UNET, {"class_embed_type": "timestep"}, 'class_embed_type is "timestep"; allowed: null'),
        (UNET, {"time_embedding_type": "fourier"}, 'time_embedding_type is "fourier"; allowed: '),
        (UNET, {"time_embedding_dim": 256}, "time_embedding_dim is 256; allowed: null or 512"),
        (UNET, {"center_input_sample": True}, "center_input_sample is true; allowed"),
        (UNET, {"mid_block_type": None}, "mid_block_type is null; allowed: UNetMidBlock2D"),
        (UNET, {"down_block_types": ["SkipDownBlock2D"]}, 'down_block_types is ["SkipDownBlock2D"]; all'),
        (UNET, {"down_block_types": ["DownBlock2D"] * 2}, "allowed: one for each of block_out_channels"),
        (UNET, {"up_block_types": ["UpBlock2D"]}, "allowed: attention where down_block_types has it"),
        (
            UNET,
            {"block_out_channels": [48]},
            "block_out_channels is [48]; allowed: multiples of the first, which is a multiple of norm_num_groups (32)",
        ),
        (UNET, {"block_out_channels": []}, "block_out_channels is []; allowed: multiples of the first"),
        (UNET, {"sample_size": None}, "sample_size is null; allowed: a whole number"),
        (UNET, {"sample_size": [8, 16]}, "sample_size is [8, 16]; allowed: one number"),
        (UNET, {"flip_sin_to_cos": False}, "freq_shift is 0; allowed: 0 with flip_sin_to_cos true"),
        (
            UNET,
            {"resnet_time_scale_shift": "scale_shift"},
            "attn_norm_num_groups is null; allowed: 32, as norm_num_groups",
        ),
        (UNET, {"layers_per_block": "2"}, 'layers_per_block is "2"; allowed: a whole number, at least 1'),
        (UNET, {"out_channels": 3}, "out_channels is 3; allowed: 1, as in_channels, or 2"),
        (UNET, {"out_channels": 2}, "out_channels is 2; allowed: 1, as in_channels, or 2"),
        (UNET, {"encoder_hid_dim": 4}, "encoder_hid_dim is 4; allowed: null, for it is not known here"),
        (SCHEDULER, {"_class_name": "LMSDiscreteScheduler"}, '_class_name is "LMSDiscreteScheduler"; allowed: DDPMSch'),
        (
            SCHEDULER,
            {"beta_schedule": "sigmoid"},
            'beta_schedule is "sigmoid"; allowed: ',
        ),
        (SCHEDULER, {"num_train_timesteps": 0}, "num_train_timesteps is 0; allowed: a whole number, at least 1"),
        (SCHEDULER, {"trained_betas": [0.1, 0.2]}, "trained_betas are 2; allowed: num_train"),
        (SCHEDULER, {"trained_betas": [1.5] * 1000}, "allowed: a list, each item a number"),
        (
            SCHEDULER,
            {"variance_type": "learned"},
            'variance_type is "learned"; allowed: ',
        ),
        (SCHEDULER, {"prediction_type": "flow"}, 'prediction_type is "flow"; allowed: '),
        (
            SCHEDULER,
            {"clip_sample_range": 2.0},
            "clip_sample_range is 2.0; allowed: 1, or clip",
        ),
        (SCHEDULER, {"steps_offset": -1}, "steps_offset is -1; allowed: a whole number, at least 0"),
        (
            SCHEDULER,
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            'timestep_type is "continuous"; allowed: discrete',
        ),
        (
            SCHEDULER,
            {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True},
            "use_flow_sigmas is true; allowed: ",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_we_have_not(network, file, fields, words, tmp_path):
    ddpm_folder(tmp_path, network)
    changed(tmp_path / file, **fields)
    with pytest.raises(UserError, match=re.escape(words)) as error:
        read_folder(tmp_path)
    assert str(error.value).startswith(str(tmp_path / file))


def test_resolutions_that_change_here_by_a_convolution_and_there_inside_a_block(tmp_path):
    ddpm_folder(tmp_path, unet(**TWO_LEVELS))
    changed(tmp_path / UNET, up_block_types=["AttnUpBlock2D", "UpBlock2D"], upsample_type="resnet")
    with pytest.raises(UserError, match=r"allowed: with up_block_types, all Resnet\.\.\.sample or none"):
        read_folder(tmp_path)


def test_what_an_averaged_network_says_of_its_averaging_is_no_mistake(network, tmp_path):
    ddpm_folder(tmp_path, network)
    changed(tmp_path / UNET, decay=0.9999, power=0.75, optimization_step=10, _name_or_path="here")
    assert read_folder(tmp_path).image_size == 8


def test_a_network_alone(network, tmp_path):
    ddpm_folder(tmp_path, network)
    alone = read_folder(tmp_path / "unet").overrides
    assert not any(override.startswith(("schedule", "parameterization", "sampler", "variance")) for override in alone)
    assert alone == [override for override in read_folder(tmp_path).overrides if override in alone]


SCHEDULE = Linear(1000)
PARTS = {
    "schedule": SCHEDULE,
    "parameterization": Eps(),
    "variance": FixedSmall(),
    "sampler": Ancestral(Leading(), Static()),
}


def betas_of(**parts):
    config = scheduler_config(**PARTS | parts)
    return config, DDPMScheduler.from_config(config).alphas_cumprod.double()


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        (Linear(1000), "linear"),
        (Linear(1000, 2e-4, 0.01, rescale=False), "linear"),
        (QuadraticSchedule(1000, 8.5e-4, 0.012), "scaled_linear"),
        (Cosine(1000), "squaredcos_cap_v2"),
        (Cosine(1000, s=0.01), None),
        (Cosine(1000, beta_max=0.9), None),
        (SigmoidSchedule(1000), None),
        (ExplicitSchedule(BETAS), None),
        (ZeroTerminalSNR(Linear(1000)), "linear"),
        (UnscaledTimesteps(Linear(200)), "linear"),
        (UnscaledTimesteps(ZeroTerminalSNR(QuadraticSchedule(4000))), "scaled_linear"),
        (ZeroTerminalSNR(UnscaledTimesteps(Cosine(300))), "squaredcos_cap_v2"),
        (ResolutionShift(UnscaledTimesteps(Linear(300)), 128), None),
        (ZeroTerminalSNR(SigmoidSchedule(1000)), None),
        (ResolutionShift(Linear(1000), 256), None),
        (ZeroTerminalSNR(ResolutionShift(Cosine(1000), 256)), None),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_schedule(schedule, kind):
    """What diffusers makes of the config has our levels, up to its float32."""
    config, made = betas_of(schedule=schedule, parameterization=V())
    assert config.get("beta_schedule") == kind
    assert ("trained_betas" in config) == (kind is None)
    times = torch.arange(schedule.num_steps + 1).double()
    expected = schedule(times[1:]).alpha.square()
    torch.testing.assert_close(made, expected, rtol=2e-3, atol=1e-7)
    overrides = scheduler_of("", config).overrides
    again = make_schedule(composed("train", *overrides)[0], 8)
    assert torch.allclose(again(times).alpha, schedule(times).alpha, 1e-12)
    assert torch.allclose(again.clock(times), times - 1)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"schedule": Cosine(None)}, "schedule is Cosine in continuous time; allowed: 1000 steps"),
        (
            {"schedule": Linear(200)},
            "schedule.num_steps is 200; allowed: 1000, or a model trained with rescalings=[unscaled_timesteps], for",
        ),
        ({"schedule": FlowSchedule(1000)}, "schedule is FlowSchedule; allowed: one that preserves variance"),
        ({"schedule": InputScaling(SCHEDULE, 0.5)}, "rescalings.input_scaling.b is 0.5; allowed: no input scaling"),
        (
            {"schedule": ZeroTerminalSNR(InputScaling(SCHEDULE, 1.0))},
            "rescalings.input_scaling.b is 1.0; allowed: no input scaling",
        ),
        ({"schedule": VE()}, "schedule is VE in continuous time"),
        (
            {"parameterization": FlowParameterization()},
            "parameterization is FlowParameterization; allowed: eps, x, v in diffusers",
        ),
        ({"parameterization": EDMParameterization()}, "parameterization is EDMParameterization; allowed: eps, x, v"),
        ({"sampler": Ancestral(Karras())}, "timestep_spacing is Karras; allowed: trailing, uniform, leading"),
        ({"sampler": Heun(Trailing())}, "sampler is Heun; allowed: ancestral, ddim, dpm_solver_2m, dpm_solver_3m"),
        ({"sampler": DPMSolver2M(Leading())}, "timestep_spacing is Leading; allowed: trailing, or inner_log_snr"),
        ({"sampler": DPMSolver3M(Trailing())}, "sampler.released is false; allowed: true"),
        (
            {"sampler": Ancestral(Leading(1, stop_at_first=True))},
            "timestep_spacing.stop_at_first is true; allowed: false, or sampler=ddim",
        ),
        (
            {"sampler": DDIM(Trailing()), "variance": LearnedRange()},
            "variance is learned_range with sampler=ddim; allowed: sampler=ancestral",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_diffusers_has_not(parts, words):
    with pytest.raises(UserError, match=re.escape(words)):
        scheduler_config(**PARTS | parts)


def test_a_network_that_is_neither(tmp_path):
    denoiser = Denoiser(torch.nn.Identity(), GaussianProcess(SCHEDULE, Eps(), FixedLarge()))
    with pytest.raises(UserError, match="model is Identity; allowed: a UNet or a DiT"):
        write_folder(tmp_path / "out", denoiser, PARTS["sampler"], {}, 1, 8, None, {})
    assert not (tmp_path / "out").exists()
