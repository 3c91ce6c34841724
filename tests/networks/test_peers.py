"""The same weights in OpenAI's and EDM's own networks and in ours, in float32.

LANGEVIN_PEERS names a folder with checkouts of improved-diffusion, guided-diffusion, glide-text2im and edm; peers.md
says how to get them and what came out.
"""

from types import SimpleNamespace

import pytest
import torch
from network_helpers import Sequence, assert_same, images, labelled, norms, preset, randomize
from torch.nn.functional import one_hot

from langevin.interop.edm import from_edm
from langevin.interop.openai import from_openai
from langevin.interop.openai_classifier import from_openai_classifier
from langevin.networks.half_unet import HalfUNet
from langevin.networks.unet import UNet

CLASSES = 10
LABELS = torch.tensor([3, 0])
STEPS = torch.tensor([7.0, 950.0])
LOG_SIGMAS = torch.tensor([-0.9, 0.7])
"""EDM's c_noise, ln(sigma) / 4."""

IDDPM = {
    "channels": 128,
    "channel_multipliers": [1, 2],
    "blocks_per_level": 2,
    "attention_resolutions": [8],
    "heads": 4,
    "head_channels": None,
    "time_embedding": "cosine_first",
    "symmetric_padding": True,
    "norm_epsilon": 1e-5,
    "dropout": 0.0,
}
ADM = IDDPM | {
    "heads": None,
    "head_channels": 64,
    "scale_shift": True,
    "symmetric_padding": False,
    "residual_resampling": True,
}


def ours(own, converted, size, out_channels=3, classes=None):
    condition = None if classes is None else labelled(classes)
    network = UNet(in_channels=3, out_channels=out_channels, image_size=size, condition=condition, **own)
    network.load_state_dict(converted, strict=True)
    return network.eval()


def openai_arguments(own, size, out_channels, classes):
    return {
        "in_channels": 3,
        "model_channels": own["channels"],
        "out_channels": out_channels,
        "num_res_blocks": own["blocks_per_level"],
        "attention_resolutions": [size // resolution for resolution in own["attention_resolutions"]],
        "channel_mult": own["channel_multipliers"],
        "num_classes": classes,
        "use_scale_shift_norm": own.get("scale_shift", False),
        "num_heads": own.get("heads") or 1,
    }


def assert_equals_openai(theirs, own, size, out_channels, classes, order="legacy", batch=2):
    randomize(theirs)
    theirs.eval()
    mine = ours(own, from_openai(theirs.state_dict(), own, order), size, out_channels, classes)
    assert norms(mine) == norms(theirs)
    labels = LABELS[:batch]
    given = () if classes is None else (labels,)
    cond = None if classes is None else {"label": labels}
    assert_same(
        lambda x: mine(x, STEPS[:batch], cond),
        lambda x: theirs(x, STEPS[:batch], *given),
        images(batch, size),
    )


@pytest.mark.parametrize("classes", [None, CLASSES])
@pytest.mark.parametrize("scale_shift", [False, True])
def test_improved_diffusion(peer, scale_shift, classes):
    own = IDDPM | {"scale_shift": scale_shift}
    cls = peer("improved-diffusion", "improved_diffusion.unet").UNetModel
    theirs = cls(**openai_arguments(own, 16, 6, classes))
    assert_equals_openai(theirs, own, 16, 6, classes)


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize(
    "own", [ADM, IDDPM, ADM | {"heads": 4, "head_channels": None}], ids=["adm", "iddpm", "adm-4-heads"]
)
def test_guided_diffusion(peer, own, order):
    cls = peer("guided-diffusion", "guided_diffusion.unet").UNetModel
    theirs = cls(
        image_size=16,
        **openai_arguments(own, 16, 6, CLASSES),
        num_head_channels=own["head_channels"] or -1,
        resblock_updown=own.get("residual_resampling", False),
        use_new_attention_order=order == "new",
    )
    assert_equals_openai(theirs, own, 16, 6, CLASSES, order)


@pytest.mark.slow
def test_preset_adm_64(peer):
    """The published network as it is, its 296M parameters filled at random."""
    _, own = preset("adm_64")
    cls = peer("guided-diffusion", "guided_diffusion.unet").UNetModel
    theirs = cls(
        image_size=64,
        **openai_arguments(own, 64, 6, 1000),
        num_head_channels=64,
        resblock_updown=True,
        use_new_attention_order=True,
    )
    assert sum(parameter.numel() for parameter in theirs.parameters()) == 295_904_454
    assert_equals_openai(theirs, own, 64, 6, 1000, "new", batch=1)


@pytest.mark.parametrize("options", [ADM, IDDPM | {"scale_shift": True}], ids=["adm", "4-heads"])
def test_glide(peer, options):
    """Its text encoder is left out: both are given what it puts out, a sequence for the attentions and no sum."""
    arguments = openai_arguments(options, 16, 6, None)
    theirs = peer("glide-text2im", "glide_text2im.text2im_model").Text2ImUNet(
        7,
        512,
        1,
        8,
        xf_final_ln=False,
        tokenizer=SimpleNamespace(n_vocab=1),
        num_head_channels=options["head_channels"] or -1,
        resblock_updown=options.get("residual_resampling", False),
        **arguments,
    )
    randomize(theirs)
    theirs.eval()
    text = torch.randn(2, 7, 512, generator=torch.Generator().manual_seed(2))
    theirs.get_text_emb = lambda tokens, mask: {"xf_out": text.transpose(1, 2), "xf_proj": torch.zeros(2, 512)}
    encoder = ("transformer", "token_embedding", "positional_embedding")
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith(encoder)}
    added = {name: state.pop(name) for name in list(state) if ".encoder_kv." in name}
    converted = from_openai(state, options)
    places = {"input_blocks": "down.{0}", "middle_block": "middle", "output_blocks": "up.{0}"}
    for name, tensor in added.items():
        part, step, *_, kind = name.split(".")
        place = places[part].format(int(step) - (part == "input_blocks"))
        heads = options["heads"] or len(tensor) // 2 // options["head_channels"]
        rows = tensor.flatten(1) if tensor.ndim > 1 else tensor
        converted[f"{place}.blocks.1.kv.{kind}"] = rows.unflatten(0, (heads, 2, -1)).transpose(0, 1).flatten(0, 2)
    mine = UNet(in_channels=3, out_channels=6, image_size=16, condition=Sequence, cross_attention=True, **options)
    mine.load_state_dict(converted, strict=True)
    mine.eval()
    assert norms(mine) == norms(theirs)
    assert_same(lambda x: mine(x, STEPS, {"text": text}), lambda x: theirs(x, STEPS), images(2, 16))


CLASSIFIER = {
    "channels": 128,
    "channel_multipliers": [1, 2],
    "blocks_per_level": 2,
    "attention_resolutions": [8],
    "head_channels": 64,
    "scale_shift": True,
    "residual_resampling": True,
    "norm_epsilon": 1e-5,
    "dropout": 0.0,
}


def assert_equals_openai_classifier(peer, own, size, classes, batch=2):
    arguments = openai_arguments(own, size, classes, None)
    del arguments["num_classes"]  # they are its output
    theirs = peer("guided-diffusion", "guided_diffusion.unet").EncoderUNetModel(
        image_size=size,
        **arguments,
        num_head_channels=own["head_channels"],
        resblock_updown=own["residual_resampling"],
        pool="attention",
    )
    randomize(theirs)
    theirs.eval()
    mine = HalfUNet(in_channels=3, num_classes=classes, image_size=size, **own)
    mine.load_state_dict(from_openai_classifier(theirs.state_dict(), own), strict=True)
    mine.eval()
    assert norms(mine) == norms(theirs)
    x, steps = images(batch, size), STEPS[:batch]
    assert_same(lambda x: mine(x, steps), lambda x: theirs(x, steps), x)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scale_shift": False, "residual_resampling": False, "symmetric_padding": True},
        {"channel_multipliers": [1, 1, 2], "attention_resolutions": [16, 4], "blocks_per_level": 1},
    ],
    ids=["adm", "strided", "three levels"],
)
def test_classifier_of_guided_diffusion(peer, changes):
    assert_equals_openai_classifier(peer, CLASSIFIER | changes, 16, CLASSES)


@pytest.mark.slow
def test_published_classifier_64(peer):
    """As it is, its 65M parameters filled at random."""
    _, own = preset("adm_64", "classifier")
    assert_equals_openai_classifier(peer, own, 64, 1000, batch=1)


SONG = {"ddpmpp": {}, "ncsnpp": {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2}}


def assert_equals_edm(theirs, own, size, classes, batch=2):
    randomize(theirs)
    theirs.eval()
    mine = ours(own, from_edm(theirs.state_dict()), size, classes=classes)
    assert norms(mine) == norms(theirs)
    noise, labels = LOG_SIGMAS[:batch], LABELS[:batch]
    given = None if classes is None else one_hot(labels, classes).float()
    cond = None if classes is None else {"label": labels}
    x = images(batch, size)
    assert_same(lambda x: mine(x, noise, cond), lambda x: theirs(x, noise, given), x)
    if classes is not None:
        with torch.no_grad():
            torch.testing.assert_close(mine(x, noise), theirs(x, noise, 0 * given), rtol=0, atol=1e-4)


@pytest.mark.parametrize("classes", [None, CLASSES])
@pytest.mark.parametrize("name", SONG)
def test_song_unet(peer, name, classes):
    _, own = preset(name)
    own |= {"channels": 32}
    theirs = peer("edm", "training.networks").SongUNet(
        32,
        3,
        3,
        label_dim=classes or 0,
        augment_dim=9,
        model_channels=32,
        channel_mult=own["channel_multipliers"],
        resample_filter=own["resample_filter"],
        **SONG[name],
    )
    assert_equals_edm(theirs, own, 32, classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", SONG)
def test_presets_of_edm(peer, name):
    _, own = preset(name)
    theirs = peer("edm", "training.networks").SongUNet(
        32, 3, 3, channel_mult=own["channel_multipliers"], resample_filter=own["resample_filter"], **SONG[name]
    )
    assert_equals_edm(theirs, own, 32, None)


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_dhariwal_unet(peer, classes):
    own = ADM | {"channels": 64, "channel_multipliers": [1, 2, 3], "attention_resolutions": [16, 8]}
    theirs = peer("edm", "training.networks").DhariwalUNet(
        16,
        3,
        3,
        label_dim=classes or 0,
        model_channels=64,
        channel_mult=[1, 2, 3],
        num_blocks=2,
        attn_resolutions=[16, 8],
    )
    assert_equals_edm(theirs, own, 16, classes)
