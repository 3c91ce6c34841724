"""Diffusers' UNet2DConditionModel of text: the same function on the same weights, and there and back."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from networks.network_helpers import Sequence, assert_same, norms, randomize, refused

from langevin.errors import UserError
from langevin.interop.text_unet import from_text_unet, text_unet_config, text_unet_of, to_text_unet
from langevin.networks.unet import UNet

TOKENS = 24
SPATIAL = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 2,
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": TOKENS,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 2,
}
DEEP = SPATIAL | {
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": [2, 4],
    "use_linear_projection": True,
    "transformer_layers_per_block": 2,
}
JOINED = SPATIAL | {
    "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "attention_head_dim": 8,
    "resnet_time_scale_shift": "scale_shift",
}
FAMILIES = {"spatial": SPATIAL, "deep": DEEP, "joined": JOINED}
TIMES = torch.tensor([0.0, 20.0, 999.0])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)


class Text(Sequence):
    """Tokens of a text encoder, of a size of their own."""

    token_channels = TOKENS

    def forward(self, cond, batch):
        return super().forward(cond, batch)._replace(mask=cond.get("text_mask"))


def networks(config, **changes):
    theirs = UNet2DConditionModel(**config)
    randomize(theirs)
    read = text_unet_of("config.json", config)
    assert read.token_channels == TOKENS
    own = read.model | changes
    ours = UNet(in_channels=3, out_channels=2, image_size=read.image_size, condition=Text, **own)
    ours.load_state_dict(from_text_unet(theirs.state_dict(), own), strict=True)
    return ours, theirs, own


def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 8, 8, generator=generator), torch.randn(3, 5, TOKENS, generator=generator)


def given(text, mask):
    """Tokens as ours gets them, and a mask as theirs does."""
    return {"text": text} | ({} if mask is None else {"text_mask": mask}), {"encoder_attention_mask": mask}


@pytest.mark.parametrize("mask", [None, MASK], ids=["all tokens", "masked"])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_diffusers(family, mask):
    """In float64 so are the gradients of weights and tokens.

    There the last row is masked whole: theirs subtracts 10000 from its logits, which costs digits in float32.
    """
    ours, theirs, own = networks(FAMILIES[family], checkpointing=True)
    assert norms(ours) == norms(theirs)
    x, text = inputs()
    partly = None if mask is None else mask.index_fill(0, torch.tensor(2), True)
    cond, with_mask = given(text, partly)
    assert_same(lambda x: ours(x, TIMES, cond), lambda x: theirs(x, TIMES, text, **with_mask).sample, x)

    ours, theirs, text = ours.double(), theirs.double(), text.double()
    seen = text.clone().requires_grad_(), text.clone().requires_grad_()
    cond, with_mask = given(seen[0], mask)
    ours(x.double(), TIMES, cond).square().sum().backward()
    theirs(x.double(), TIMES, seen[1], **with_mask).sample.square().sum().backward()
    expected = from_text_unet({name: weight.grad for name, weight in theirs.named_parameters()}, own)
    expected["tokens"] = seen[1].grad
    for name, weight in [("tokens", seen[0]), *ours.named_parameters()]:
        scale = expected[name].abs().max()
        assert scale > 0, name
        torch.testing.assert_close(weight.grad, expected[name], rtol=0, atol=float(1e-9 * scale))


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_tokens_do_not_matter(family):
    ours, _, _ = networks(FAMILIES[family])
    x, text = inputs()
    other = torch.where(MASK[..., None], text, 100.0)
    before, after = (ours(x, TIMES, {"text": each, "text_mask": MASK}) for each in (text, other))
    torch.testing.assert_close(before[:2], after[:2])
    assert (ours(x, TIMES, {"text": text}) - before)[1].abs().max() > 1e-3
    assert after.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(family):
    ours, theirs, own = networks(FAMILIES[family])
    config = json.loads(json.dumps(text_unet_config(own, 3, 2, 8, TOKENS)))
    assert text_unet_of("config.json", config) == text_unet_of("config.json", FAMILIES[family])
    state = ours.state_dict() | {"condition.null_text": torch.zeros(5, TOKENS)}
    back, before = to_text_unet(state, own), theirs.state_dict()
    assert back.keys() == before.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in before.items())
    UNet2DConditionModel(**config).load_state_dict(back, strict=True)


PUBLISHED = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-05,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
"""Of Stable Diffusion 1's unet/config.json; 2's differ by the following."""
SECOND = {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "sample_size": 96,
    "use_linear_projection": True,
}


@pytest.mark.parametrize(("changes", "split"), [({}, "heads"), (SECOND, "head_channels")], ids=["1", "2"])
def test_stable_diffusions_own(changes, split):
    """Its 859.5 and 865.9 million parameters."""
    published = PUBLISHED | changes
    model, size, channels = text_unet_of("config.json", published)
    assert (size, channels) == (published["sample_size"], published["cross_attention_dim"])
    assert model[split] == {"heads": 8, "head_channels": 64}[split]
    assert refused(UNet, in_channels=4, out_channels=4, image_size=size, condition=Text, **model) == []

    class Wide(Text):
        token_channels = channels

    with torch.device("meta"):
        network = UNet(in_channels=4, out_channels=4, image_size=size, condition=Wide, **model)
    count = sum(weight.numel() for weight in network.parameters())
    assert count == {768: 859_520_964, 1024: 865_910_724}[channels]
    written = json.loads(json.dumps(text_unet_config(model, 4, 4, size, channels)))
    assert published.items() <= written.items()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"only_cross_attention": True}, "only_cross_attention is true; allowed: False"),
        ({"layers_per_block": [1, 2]}, "layers_per_block is [1, 2]; allowed: one number"),
        ({"attention_head_dim": [2, 3]}, "attention_head_dim is [2, 3]; allowed: one number, or block_out_channels"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "allowed: SimpleCrossAttn blocks, as mid_block_type"),
        ({"encoder_hid_dim": 8}, "encoder_hid_dim is 8; allowed: null"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_ours(changes, words):
    with pytest.raises(UserError) as error:
        text_unet_of("config.json", SPATIAL | changes)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cross_attention": False}, "model.cross_attention is false; allowed: true"),
        ({"skip_rescale": True}, "model.skip_rescale is true"),
        ({"residual_resampling": True}, "model.residual_resampling is true; allowed: false"),
        ({"transformer_depth": 0}, "model.residual_resampling is false; allowed: true"),
        ({"transformer_depth": 0, "residual_resampling": True, "norm_epsilon": 1e-6}, "model.norm_epsilon is 1e-06"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_not_theirs(changes, words):
    model = text_unet_of("config.json", SPATIAL).model | changes
    with pytest.raises(UserError) as error:
        text_unet_config(model, 3, 2, 8, TOKENS)
    assert words in str(error.value)
