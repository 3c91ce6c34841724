"""Autoencoders of CompVis' checkpoints, against what diffusers itself makes of their weights."""

import os
import zipfile

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from helpers.autoencoders import compvis_state
from interop.test_autoencoder_folders import assert_equal, loaded
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf

from langevin.errors import UserError
from langevin.interop.compvis import is_compvis, read_compvis
from langevin.weights import read_weights


def converted(state, codes=0):
    """The network of diffusers, by its own renaming."""
    levels = 3
    config = {
        "block_out_channels": (32, 64, 128),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": 2,
        "latent_channels": 3,
        "norm_num_groups": 32,
    }
    theirs = VQModel(**config, num_vq_embeddings=codes) if codes else AutoencoderKL(**config)
    renamed = convert_ldm_vae_checkpoint(state, config)
    if codes:
        renamed["quantize.embedding.weight"] = state["quantize.embedding.weight"]
    theirs.load_state_dict(renamed, strict=True)
    return theirs.eval()


@pytest.mark.parametrize("codes", [0, 30])
def test_the_same_as_diffusers(codes):
    state = compvis_state(codes=codes)
    assert is_compvis(state)
    imported = read_compvis(state)
    ours, model = loaded(imported)
    assert model["channel_multipliers"] == [1, 2, 4]
    assert (model["latent_channels"], model["blocks_per_level"], model.get("num_codes", 0)) == (3, 2, codes)
    assert (imported.channels, imported.image_size) == (3, 256)
    assert_equal(ours, converted(state, codes))


def test_part_of_a_latent_diffusion_model():
    """With what stands beside it there, and in a checkpoint of its own training."""
    state = compvis_state()
    whole = {f"first_stage_model.{name}": tensor for name, tensor in state.items()}
    others = ("model.diffusion_model.time_embed.0.weight", "cond_stage_model.x", "betas", "model_ema.decay")
    whole |= dict.fromkeys(others, torch.zeros(3))
    own = state | dict.fromkeys(("loss.logvar", "loss.discriminator.main.0.weight"), torch.zeros(3))
    expected = loaded(read_compvis(state))[0].state_dict()
    for each in (whole, own):
        assert is_compvis(each)
        found = loaded(read_compvis(each))[0].state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def mark(marker):
    os.mkdir(marker)


class Noted:
    """Takes note of being unpickled, by a function of the system's or of anyone's."""

    def __init__(self, marker, function=os.mkdir):
        self.made = function, (str(marker),)

    def __reduce__(self):
        return self.made


def test_a_checkpoint_of_lightning(tmp_path):
    """Objects of any class lie beside the weights; none of them is made."""
    state, marker = compvis_state(), tmp_path / "executed"
    beside = {
        "callbacks": {ModelCheckpoint: {"best_model_path": "x", "best_model_score": torch.tensor(3.0)}},
        "hyper_parameters": OmegaConf.create({"lr": 1e-4, "ddconfig": {"ch_mult": [1, 2]}}),
        "epoch": Noted(marker, mark),
    }
    torch.save({"state_dict": state, **beside}, tmp_path / "model.ckpt")
    safe = torch.serialization.get_safe_globals()
    read = read_weights(tmp_path / "model.ckpt")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())
    assert set(torch.serialization.get_safe_globals()) == set(safe), "for this file alone"
    assert not marker.exists()


@pytest.mark.parametrize("name", ["object", "state"])
def test_code_in_a_checkpoint_is_not_run(name, tmp_path):
    marker = tmp_path / "executed"
    content = {"state_dict": Noted(marker)} if name == "state" else {"state_dict": compvis_state(), "x": Noted(marker)}
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "model.ckpt")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"encoder.down.1.attn.0.q.weight": torch.zeros(1)},
            "'encoder.down.1.attn.0.q.weight' is unknown; allowed: auto",
        ),
        (
            {"encoder.extra.weight": torch.zeros(1)},
            "'encoder.extra.weight' is unknown; allowed: the weights of CompVis'",
        ),
        ({"quant_conv.weight": None}, "'quant_conv.weight' is missing; allowed: all the weights of CompVis'"),
        ({"post_quant_conv.weight": torch.zeros(3, 2, 1, 1)}, "maps 2 channels to 3; allowed: as many latents as"),
    ],
)
def test_what_we_have_not(changes, words):
    state = compvis_state() | changes
    with pytest.raises(UserError) as refused:
        loaded(read_compvis({name: tensor for name, tensor in state.items() if tensor is not None}))
    assert words in str(refused.value)


def test_a_file_that_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "model.ckpt")
