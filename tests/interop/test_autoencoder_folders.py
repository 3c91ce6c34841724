"""Folders of diffusers' autoencoders as runs, and back."""

import json

import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, VQModel
from helpers.autoencoders import KINDS, STABLE_DIFFUSION, autoencoder, compvis_state, save
from helpers.commands import composed
from networks.network_helpers import images

from langevin.assembly.check import check_model
from langevin.assembly.components import make_network
from langevin.assembly.meta import without_values
from langevin.errors import UserError
from langevin.interop.autoencoder_weights import to_diffusers
from langevin.interop.autoencoders import KL, autoencoder_config, read_autoencoder, write_autoencoder
from langevin.interop.compvis import read_compvis
from langevin.spec import DataSpec

WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"


def built(imported):
    """The network of an import, and its parameters."""
    cfg, _ = composed("train", *imported.overrides)
    check_model(cfg)
    model = {name: value for name, value in cfg.autoencoder.items() if name != "_target_"}
    spec = DataSpec.of_images(imported.channels, imported.image_size, None)
    return make_network(cfg, spec, None), model


def loaded(imported):
    network, model = built(imported)
    network.load_state_dict(imported.weights(model), strict=True)
    return network.eval(), model


@torch.no_grad()
def assert_equal(ours, theirs, size=16):
    x = images(2, size)
    made = theirs.encode(x)
    expected = made.latents if isinstance(theirs, VQModel) else made.latent_dist.parameters
    torch.testing.assert_close(ours.moments(x), expected, rtol=0, atol=1e-5)
    z = ours.mean_and_variance(expected)[0]
    torch.testing.assert_close(ours.decode(z), theirs.decode(z).sample, rtol=0, atol=1e-5)
    assert theirs.decode(z).sample.std() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"in_channels": 1, "out_channels": 1, "mid_block_add_attention": False},
        {"block_out_channels": (24, 36, 36), "norm_num_groups": 6, "layers_per_block": 2},
    ],
    ids=["tiny", "grey", "no common width"],
)
def test_there_and_back(kind, changes, tmp_path):
    """To the bit, and diffusers loads what is written."""
    save(tmp_path / "theirs", kind, **changes)
    ours, model = loaded(read_autoencoder(tmp_path / "theirs"))
    assert write_autoencoder(tmp_path / "ours", ours, model, {"step": 3}) == KINDS[kind].__name__
    before, after = (safetensors.torch.load_file(tmp_path / each / WEIGHTS) for each in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    fields, written = (json.loads((tmp_path / each / CONFIG).read_text()) for each in ("theirs", "ours"))
    assert written["scaling_factor"] == 1, "not diffusers' default, Stable Diffusion's"
    unlike = ("scaling_factor", "_diffusers_version")
    assert {name: fields[name] for name in written if name not in unlike} == {
        name: value for name, value in written.items() if name not in unlike
    }
    assert json.loads((tmp_path / "ours" / "langevin.json").read_text()) == {"step": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_numbers(kind, tmp_path):
    theirs = save(tmp_path, kind)
    ours, _ = loaded(read_autoencoder(tmp_path))
    if kind == "vq":
        z = theirs.encode(images(2, 16)).latents
        assert torch.equal(ours.nearest(z).flatten(), theirs.quantize(z)[2][2])
    assert_equal(ours, theirs)


def test_without_convolutions_around_the_latents(tmp_path):
    """As Stable Diffusion 3's: ours has identities there."""
    scaling = {"scaling_factor": 1.5305, "shift_factor": 0.0609, "latent_channels": 16}
    theirs = save(tmp_path, "kl", use_quant_conv=False, use_post_quant_conv=False, **scaling)
    imported = read_autoencoder(tmp_path)
    assert imported.origin == {"class": KL, "scaling_factor": 1.5305, "shift_factor": 0.0609}
    assert "by 1.5305 after a shift of 0.0609" in imported.notes[0]
    ours, model = loaded(imported)
    assert_equal(ours, theirs)
    write_autoencoder(tmp_path / "back", ours, model, {"origin": imported.origin})
    back = AutoencoderKL.from_pretrained(tmp_path / "back").eval()
    assert (back.config.scaling_factor, back.config.shift_factor) == (1.5305, 0.0609)
    assert_equal(ours, back)


def test_attention_of_old_versions(tmp_path):
    """And weights that torch has saved, in half precision."""
    theirs = save(tmp_path, "kl")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = theirs.state_dict()
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): tensor.half() for key, tensor in state.items()}
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in state
    (tmp_path / WEIGHTS).unlink()
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    ours, _ = loaded(read_autoencoder(tmp_path))
    assert_equal(ours, theirs.half().float())


def test_stable_diffusion():
    """In its real layout: the same names and shapes; and its scale, which old configs lack."""
    with torch.device("meta"):
        theirs = AutoencoderKL.from_config(STABLE_DIFFUSION)
    config = autoencoder_config("config.json", KL, STABLE_DIFFUSION)
    assert (config["scaling_factor"], config["shift_factor"]) == (0.18215, None)
    widths = {"width": 128, "multipliers": (1, 2, 4, 4), "latents": 4}
    imported = read_compvis({name: tensor.to("meta") for name, tensor in compvis_state(**widths).items()})
    with without_values():
        ours, model = built(imported)
    state = to_diffusers(ours.state_dict(), model)
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in theirs.state_dict().items()
    }
    assert sum(tensor.numel() for tensor in state.values()) == 83_653_863


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("kl", {"act_fn": "relu"}, 'act_fn is "relu"; allowed: silu, swish'),
        ("kl", {"out_channels": 1}, "out_channels is 1; allowed: 3"),
        ("kl", {"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "down_block_types is "),
        ("kl", {"up_block_types": ["UpDecoderBlock2D"]}, "up_block_types are 1; allowed: 3, as block_out_channels"),
        ("kl", {"block_out_channels": [16, 32, 30]}, "block_out_channels is [16, 32, 30]; allowed: multiples of norm_"),
        ("kl", {"block_out_channels": []}, "block_out_channels"),
        ("kl", {"sample_size": [16, 8]}, "sample_size is [16, 8]; allowed: a multiple of 4"),
        ("kl", {"temporal_layers": 2}, "temporal_layers is 2; allowed: null, for it is not known here"),
        ("kl", {"scaling_factor": 0.0}, "scaling_factor is 0.0; allowed: a number, above 0"),
        ("vq", {"vq_embed_dim": 8}, "vq_embed_dim is 8; allowed: 4 or null"),
        ("vq", {"norm_type": "spatial"}, 'norm_type is "spatial"; allowed: group'),
    ],
)
def test_what_we_have_not(kind, changes, words, tmp_path):
    save(tmp_path, kind)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | changes))
    with pytest.raises(UserError) as refused:
        read_autoencoder(tmp_path)
    assert words in str(refused.value)
    assert str(tmp_path / CONFIG) in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm_groups": None}, "autoencoder.norm_groups is null, which are [4, 8] groups; allowed: the same number"),
        ({"norm_epsilon": 1e-5}, "autoencoder.norm_epsilon is 1e-05; allowed: 1e-06 in diffusers"),
    ],
)
def test_what_diffusers_has_not(changes, words, tmp_path):
    save(tmp_path, "kl")
    ours, model = loaded(read_autoencoder(tmp_path))
    with pytest.raises(UserError) as refused:
        write_autoencoder(tmp_path / "out", ours, model | changes, {})
    assert words in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_weight_too_many(tmp_path):
    network = autoencoder("kl")
    network.register_parameter("extra", torch.nn.Parameter(torch.zeros(1)))
    network.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="weights: 'extra' is unknown; allowed: the weights of diffusers'"):
        loaded(read_autoencoder(tmp_path))
