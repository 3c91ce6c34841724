"""Names and shapes of OpenAI's and EDM's networks, written down from their sources, and filled with nothing.

test_peer_checkpoints.py holds them against the networks themselves.
"""

from functools import partial

import torch

from langevin.assembly.conditioning import make_condition
from langevin.assembly.make import make

OPENAI_MULTIPLIERS = {32: [1, 2, 2, 2], 64: [1, 2, 3, 4], 128: [1, 1, 2, 3, 4], 256: [1, 1, 2, 2, 4, 4]}
OPENAI_MULTIPLIERS[512] = [0.5, 1, 1, 2, 2, 4, 4]


class States(dict):
    """A state dict in the making, on the meta device."""

    def tensor(self, name, *shape):
        self[name] = torch.empty(shape, device="meta")

    def layer(self, name, *shape, bias=True):
        self.tensor(f"{name}.weight", *shape)
        if bias:
            self.tensor(f"{name}.bias", shape[0])


def numbers(text):
    return [int(number) for number in text.split(",")]


class OpenAIStates(States):
    """What `UNetModel` and `EncoderUNetModel` have in common."""

    def __init__(self, channels, scale_shift):
        super().__init__()
        self.embedding, self.parts = 4 * channels, 1 + scale_shift
        self.layer("time_embed.0", self.embedding, channels)
        self.layer("time_embed.2", self.embedding, self.embedding)

    def residual(self, name, width_in, width_out):
        self.layer(f"{name}.in_layers.0", width_in)
        self.layer(f"{name}.in_layers.2", width_out, width_in, 3, 3)
        self.layer(f"{name}.emb_layers.1", self.parts * width_out, self.embedding)
        self.layer(f"{name}.out_layers.0", width_out)
        self.layer(f"{name}.out_layers.3", width_out, width_out, 3, 3)
        if width_in != width_out:
            self.layer(f"{name}.skip_connection", width_out, width_in, 1, 1)

    def attention(self, name, width):
        self.layer(f"{name}.norm", width)
        self.layer(f"{name}.qkv", 3 * width, width, 1)
        self.layer(f"{name}.proj_out", width, width, 1)

    def down(self, in_channels, widths, blocks, scales, updown):
        """The way down and the middle; returns the widths after each step."""
        width = widths[0]
        self.layer("input_blocks.0.0", width, in_channels, 3, 3)
        skips = [width]
        for level, level_width in enumerate(widths):
            if level > 0:
                if updown:
                    self.residual(f"input_blocks.{len(skips)}.0", width, width)
                else:
                    self.layer(f"input_blocks.{len(skips)}.0.op", width, width, 3, 3)
                skips.append(width)
            for _ in range(blocks):
                self.residual(f"input_blocks.{len(skips)}.0", width, level_width)
                width = level_width
                if 2**level in scales:
                    self.attention(f"input_blocks.{len(skips)}.1", width)
                skips.append(width)
        self.residual("middle_block.0", width, width)
        self.attention("middle_block.1", width)
        self.residual("middle_block.2", width, width)
        return skips


def values(flags):
    """Of flags given as "--name value"."""
    words = flags.split()
    return dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))


def openai_state(flags, in_channels=3, **changes):
    """Of the `UNetModel` that flags, given in full as "--name value", describe."""
    given = values(flags) | changes
    size = int(given.get("image_size", 64))
    channels, blocks = int(given.get("num_channels", 128)), int(given.get("num_res_blocks", 2))
    multipliers = numbers(given["channel_mult"]) if "channel_mult" in given else OPENAI_MULTIPLIERS[size]
    scales = [size // height for height in numbers(given.get("attention_resolutions", "16,8"))]
    updown = given.get("resblock_updown") == "True"
    widths = [int(channels * multiplier) for multiplier in multipliers]
    state = OpenAIStates(channels, given.get("use_scale_shift_norm", "True") == "True")
    if given.get("class_cond") == "True":
        state.layer("label_emb", 1000, state.embedding, bias=False)
    skips = state.down(in_channels, widths, blocks, scales, updown)

    step, width = 0, widths[-1]
    for level, level_width in reversed(list(enumerate(widths))):
        for block in range(blocks + 1):
            state.residual(f"output_blocks.{step}.0", width + skips.pop(), level_width)
            width, place = level_width, 1
            if 2**level in scales:
                state.attention(f"output_blocks.{step}.1", width)
                place = 2
            if level > 0 and block == blocks and updown:
                state.residual(f"output_blocks.{step}.{place}", width, width)
            elif level > 0 and block == blocks:
                state.layer(f"output_blocks.{step}.{place}.conv", width, width, 3, 3)
            step += 1
    state.layer("out.0", width)
    state.layer("out.2", 6 if given.get("learn_sigma") == "True" else 3, width, 3, 3)
    return dict(state)


def upsampler_state(flags):
    """Of the `SuperResModel` that flags, given in full as "--name value", describe."""
    size = int(values(flags)["large_size"])
    multipliers = {64: "1,2,3,4", 256: "1,1,2,2,4,4", 512: "1,1,2,2,4,4"}[size]
    return openai_state(flags, in_channels=6, image_size=str(size), channel_mult=multipliers)


def openai_classifier_state(flags, **changes):
    """Of the `EncoderUNetModel` that flags, given in full as "--name value", describe."""
    given = values(flags) | changes
    size, channels = int(given.get("image_size", 64)), int(given.get("classifier_width", 128))
    multipliers = OPENAI_MULTIPLIERS[size]
    scales = [size // height for height in numbers(given.get("classifier_attention_resolutions", "32,16,8"))]
    state = OpenAIStates(channels, given.get("classifier_use_scale_shift_norm", "True") == "True")
    widths = [int(channels * multiplier) for multiplier in multipliers]
    updown = given.get("classifier_resblock_updown", "True") == "True"
    skips = state.down(3, widths, int(given.get("classifier_depth", 2)), scales, updown)

    pool, width, pixels = given.get("classifier_pool", "attention"), widths[-1], (size >> len(widths) - 1) ** 2
    if pool in ("attention", "adaptive"):
        state.layer("out.0", width)
    if pool == "attention":
        state.tensor("out.2.positional_embedding", width, pixels + 1)
        state.layer("out.2.qkv_proj", 3 * width, width, 1)
        state.layer("out.2.c_proj", 1000, width, 1)
    elif pool == "adaptive":
        state.layer("out.3", 1000, width, 1, 1)
    else:
        state.layer("out.0", 2048, sum(skips) + width)
        if pool == "spatial_v2":
            state.layer("out.1", 2048)
        state.layer("out.3" if pool == "spatial_v2" else "out.2", 1000, 2048)
    return dict(state)


def edm_state(
    network,
    size=32,
    channels=32,
    multipliers=(1, 2),
    blocks=1,
    attends=(16,),
    classes=0,
    augment=0,
    fourier=False,
    residual=False,
    taps=(1, 1),
    out_channels=3,
):
    """Of a "SongUNet" or "DhariwalUNet" in `EDMPrecond`."""
    song = network == "SongUNet"
    widths = [channels * multiplier for multiplier in multipliers]
    features, embedding = channels * (2 if fourier else 1), 4 * channels
    row = torch.tensor(taps, dtype=torch.float32) / sum(taps)
    kernel = torch.outer(row, row)[None, None]
    state = States()

    def step(name, width_in, width_out, resample=False, attend=False):
        state.layer(f"{name}.norm0", width_in)
        state.layer(f"{name}.conv0", width_out, width_in, 3, 3)
        state.layer(f"{name}.affine", width_out * (1 if song else 2), embedding)
        state.layer(f"{name}.norm1", width_out)
        state.layer(f"{name}.conv1", width_out, width_out, 3, 3)
        if width_in != width_out or (resample and song):
            state.layer(f"{name}.skip", width_out, width_in, 1, 1)
        if resample:
            state[f"{name}.conv0.resample_filter"] = state[f"{name}.skip.resample_filter"] = kernel
        if attend:
            state.layer(f"{name}.norm2", width_out)
            state.layer(f"{name}.qkv", 3 * width_out, width_out, 1, 1)
            state.layer(f"{name}.proj", width_out, width_out, 1, 1)

    if fourier:
        state.tensor("map_noise.freqs", channels)
    state.layer("map_layer0", embedding, features)
    state.layer("map_layer1", embedding, embedding)
    if classes:
        state.layer("map_label", features if song else embedding, classes, bias=song)
    if augment:
        state.layer("map_augment", features, augment, bias=False)

    width = channels if song else widths[0]
    state.layer(f"enc.{size}x{size}_conv", width, 3, 3, 3)
    skips, pyramid = [width], 3
    for level, level_width in enumerate(widths):
        here = f"{size >> level}x{size >> level}"
        if level > 0:
            step(f"enc.{here}_down", width, width, resample=True)
            skips.append(width)
            if residual:
                state.layer(f"enc.{here}_aux_residual", width, pyramid, 3, 3)
                state[f"enc.{here}_aux_residual.resample_filter"] = kernel
                pyramid = width
        for block in range(blocks):
            step(f"enc.{here}_block{block}", width, level_width, attend=size >> level in attends)
            width = level_width
            skips.append(width)
    for level, level_width in reversed(list(enumerate(widths))):
        here = f"{size >> level}x{size >> level}"
        if level == len(widths) - 1:
            step(f"dec.{here}_in0", width, width, attend=True)
            step(f"dec.{here}_in1", width, width)
        else:
            step(f"dec.{here}_up", width, width, resample=True)
        for block in range(blocks + 1):
            attend = size >> level in attends and (block == blocks or not song)
            step(f"dec.{here}_block{block}", width + skips.pop(), level_width, attend=attend)
            width = level_width
    norm, conv = (f"dec.{size}x{size}_aux_norm", f"dec.{size}x{size}_aux_conv") if song else ("out_norm", "out_conv")
    state.layer(norm, width)
    state.layer(conv, out_channels, width, 3, 3)
    return {f"model.{name}": tensor for name, tensor in state.items()}


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def network_of(cfg, imported):
    """Ours, unfilled: the widths are the published ones."""
    spec = {"in_channels": imported.channels, "image_size": imported.image_size}
    condition = None
    if cfg.get("conditions"):
        condition = partial(make_condition, cfg, num_classes=imported.num_classes, **spec)
    with torch.device("meta"):
        out_channels = make(cfg, "variance").channels(imported.channels)
        return make(cfg, "model", out_channels=out_channels, condition=condition, **spec)


def assert_fills(cfg, imported):
    """The weights have the names and shapes of the network that the config describes."""
    parameters = {name: value for name, value in cfg.model.items() if name != "_target_"}
    assert shapes(imported.weights(parameters)) == shapes(network_of(cfg, imported).state_dict())
