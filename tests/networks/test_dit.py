from functools import partial
from typing import ClassVar

import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.attention import BasicTransformerBlock
from network_helpers import Sequence, preset, randomize

from langevin.conditions.class_label import ClassLabel
from langevin.errors import OptionError
from langevin.networks.dit import DiT, DiTBlock

TINY = {"patch_size": 2, "width": 32, "depth": 2, "heads": 4, "checkpointing": False}
TIMES = torch.tensor([0.0, 17.5, 999.0])
LABELS = torch.tensor([0, 6, -1])


def tiny(**changes):
    facts = {"in_channels": 3, "out_channels": 6, "image_size": 8, "condition": None}
    return DiT(**(facts | TINY | changes))


def labelled(**changes):
    return tiny(condition=partial(ClassLabel, num_classes=7, dropout=0.1), **changes)


def images(size=8):
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def diffusers_dit(patch_size=2, size=8):
    theirs = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=3,
        out_channels=6,
        num_layers=2,
        sample_size=size,
        patch_size=patch_size,
        num_embeds_ada_norm=7,
        norm_eps=1e-6,
    )
    randomize(theirs)
    first = theirs.transformer_blocks[0].norm1.emb
    for block in theirs.transformer_blocks:
        # Each block has an embedding of its own, of which the released code has one; and DDPM's frequencies.
        block.norm1.emb.load_state_dict(first.state_dict())
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return theirs.eval()


def weights_of(theirs):
    """Diffusers' weights under our names."""
    emb = theirs.transformer_blocks[0].norm1.emb
    layers = {
        "patches": theirs.pos_embed.proj,
        "time.0": emb.timestep_embedder.linear_1,
        "time.2": emb.timestep_embedder.linear_2,
        "modulation": theirs.proj_out_1,
        "last": theirs.proj_out_2,
    }
    weights = {"condition.table.weight": emb.class_embedder.embedding_table.weight}
    for index, block in enumerate(theirs.transformer_blocks):
        layers |= {
            f"blocks.{index}.project": block.attn1.to_out[0],
            f"blocks.{index}.mlp.0": block.ff.net[0].proj,
            f"blocks.{index}.mlp.2": block.ff.net[2],
            f"blocks.{index}.modulation": block.norm1.linear,
        }
        for kind in ("weight", "bias"):
            parts = [getattr(getattr(block.attn1, f"to_{part}"), kind) for part in "qkv"]
            weights[f"blocks.{index}.qkv.{kind}"] = torch.cat(parts)
    for name, layer in layers.items():
        weights |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    return weights


def run(network, x):
    """The output, and the gradient of a fixed mixture of it with respect to the input."""
    x = x.clone().requires_grad_()
    output = network(x)
    mixture = torch.randn(output.shape, generator=torch.Generator().manual_seed(7), dtype=output.dtype)
    (gradient,) = torch.autograd.grad((output * mixture).sum(), x)
    return output.detach(), gradient


@pytest.mark.parametrize(("patch_size", "size"), [(2, 8), (4, 16), (1, 4)])
def test_equals_diffusers(patch_size, size):
    theirs = diffusers_dit(patch_size, size).double()
    ours = labelled(patch_size=patch_size, image_size=size)
    ours.load_state_dict(weights_of(theirs), strict=True)
    ours = ours.eval().double()
    x, labels = images(size).double(), torch.where(LABELS < 0, 7, LABELS)
    expected, expected_gradient = run(lambda x: theirs(x, TIMES, labels).sample, x)
    output, gradient = run(lambda x: ours(x, TIMES, {"label": LABELS}), x)
    assert expected.std() > 0.1
    # The positions of diffusers and of us are float32.
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "count"), [("dit_s", 32_865_056), ("dit_b", 130_315_808)])
def test_parameter_counts_are_the_published_ones(name, count):
    """33M and 130M in table 1: of latents of 4 channels with learned variance, and a thousand classes.

    To the last digit they are those of the released code's trainable parameters.
    """
    cls, own = preset(name)
    with torch.device("meta"):
        condition = partial(ClassLabel, num_classes=1000, dropout=0.1)
        network = cls(in_channels=4, out_channels=8, image_size=32, condition=condition, **own)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_starts_at_zero_with_blocks_that_do_nothing():
    network = labelled()
    assert not network(images(), TIMES, {"label": LABELS}).any()
    tokens = torch.randn(3, 16, 32)
    assert torch.equal(network.blocks[0](tokens, torch.randn(3, 32)), tokens)


def test_weights_start_as_in_the_released_code():
    network = labelled(width=128, depth=1)
    block = network.blocks[0]
    # Xavier: 2 / (fan in + fan out), of query, key and value as of one matrix, of a patch as of a vector.
    expected = [
        (block.qkv.weight, 2 / (128 + 3 * 128)),
        (block.mlp[0].weight, 2 / (128 + 4 * 128)),
        (network.patches.weight, 2 / (3 * 2 * 2 + 128)),
        (network.time[0].weight, 0.02**2),
        (network.time[2].weight, 0.02**2),
        (network.condition.table.weight, 0.02**2),
    ]
    for weight, variance in expected:
        assert weight.var().item() == pytest.approx(variance, rel=0.15)
    biases = [value for name, value in network.named_parameters() if name.endswith("bias")]
    assert len(biases) > 8
    assert not any(bias.any() for bias in biases)


def test_every_patch_has_a_place_of_its_own():
    """Without positions, a transformer would not know one order of the patches from another."""
    network = tiny()
    randomize(network)
    swapped = images().roll(2, dims=3)
    outputs = network(images(), TIMES), network(swapped, TIMES).roll(-2, dims=3)
    assert (outputs[0] - outputs[1]).abs().max() > 0.1
    network.positions.zero_()
    torch.testing.assert_close(network(images(), TIMES), network(swapped, TIMES).roll(-2, dims=3), rtol=0, atol=1e-5)


def test_checkpointing_changes_nothing_but_computes_twice():
    calls = []
    gradients = {}
    for checkpointing in (False, True):
        network = tiny(checkpointing=checkpointing)
        randomize(network)
        calls.clear()
        network.blocks[0].mlp.register_forward_hook(lambda *_: calls.append(1))
        output = network(images(), TIMES)
        assert len(calls) == 1
        output.square().mean().backward()
        assert len(calls) == 1 + checkpointing
        gradients[checkpointing] = output, [weight.grad for weight in network.parameters()]
    torch.testing.assert_close(gradients[True], gradients[False], rtol=0, atol=0)
    with torch.no_grad():
        calls.clear()
        network(images(), TIMES)
        assert len(calls) == 1


def test_samples_do_not_mix():
    network = tiny()
    randomize(network)
    together = network(images(), TIMES)
    apart = torch.cat([network(images()[i : i + 1], TIMES[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_positions_are_in_no_checkpoint():
    network = tiny()
    assert "positions" in dict(network.named_buffers())
    assert "positions" not in network.state_dict()


def test_bfloat16_autocast_is_close_to_float32():
    network = tiny()
    randomize(network)
    expected = network(images(), TIMES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(images(), TIMES)
    torch.testing.assert_close(output.float(), expected, rtol=0.1, atol=0.1 * expected.std().item())
    output.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"image_size": 9}, "patch_size", ["is 2;", "9", "a divisor"]),
        ({"patch_size": 3}, "patch_size", ["is 3;", "8"]),
        ({"width": 30, "heads": 5}, "width", ["30", "multiple of 4"]),
        ({"heads": 5}, "heads", ["is 5;", "32", "a divisor"]),
    ],
)
def test_a_mistake_is_named_with_value_and_what_is_allowed(changes, field, words):
    with pytest.raises(OptionError) as error:
        tiny(**changes)
    ((found, message),) = error.value.found
    assert found == field
    assert all(word in message for word in words)


def test_all_mistakes_are_found_at_once():
    with pytest.raises(OptionError) as error:
        tiny(image_size=9, width=30, depth=1)
    assert [field for field, _ in error.value.found] == ["patch_size", "width", "heads"]


class TestCrossAttention:
    cond: ClassVar = {"text": torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(1))}

    def test_a_block_is_pixarts(self):
        """Diffusers' gets shifts, scales and gates of itself and of the noise level; the last row is masked whole."""
        ours = DiTBlock(32, 4, 1e-6, token_channels=12)
        randomize(ours)
        shared = {"activation_fn": "gelu-approximate", "attention_bias": True, "norm_elementwise_affine": False}
        theirs = BasicTransformerBlock(
            32, 4, 8, cross_attention_dim=12, norm_type="ada_norm_single", norm_eps=1e-6, **shared
        )
        layers = {
            "attn1.to_q attn1.to_k attn1.to_v": ours.qkv,
            "attn1.to_out.0": ours.project,
            "attn2.to_q": ours.cross.query,
            "attn2.to_k attn2.to_v": ours.cross.kv,
            "attn2.to_out.0": ours.cross.project,
            "ff.net.0.proj": ours.mlp[0],
            "ff.net.2": ours.mlp[2],
        }
        state = {"scale_shift_table": torch.randn(6, 32)}
        for names, layer in layers.items():
            for kind in ("weight", "bias"):
                parts = getattr(layer, kind).chunk(len(names.split()))
                state |= {f"{name}.{kind}": part for name, part in zip(names.split(), parts, strict=True)}
        theirs.load_state_dict(state, strict=True)
        ours, theirs = ours.double(), theirs.double()
        patches, tokens = torch.randn(3, 16, 32).double(), torch.randn(3, 5, 12).double()
        embedding, mask = torch.randn(3, 32).double(), torch.tensor([[1] * 5, [1, 1, 0, 0, 0], [0] * 5])
        modulation = ours.modulation(embedding) - theirs.scale_shift_table.flatten()
        bias = -10000.0 * (1 - mask.double())[:, None]
        expected = theirs(patches, encoder_hidden_states=tokens, encoder_attention_mask=bias, timestep=modulation)
        torch.testing.assert_close(ours(patches, embedding, tokens, mask.bool()), expected, rtol=0, atol=1e-9)
        assert (ours(patches, embedding, tokens) - expected)[1].abs().max() > 1e-3

    def test_starts_as_the_network_without_it(self):
        network = tiny(condition=Sequence, cross_attention=True)
        assert not any(block.cross.project.weight.any() for block in network.blocks)
        added = network.state_dict().keys() - tiny().state_dict().keys()
        assert {name.split(".")[2] for name in added} == {"cross"}

    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_tokens_matter_each_to_its_own_sample(self, checkpointing):
        network = tiny(condition=Sequence, cross_attention=True, checkpointing=checkpointing)
        randomize(network)
        other = {"text": self.cond["text"].index_fill(0, torch.tensor(1), 0.5)}
        changed = network(images(), TIMES, other) - network(images(), TIMES, self.cond)
        assert changed.flatten(1).any(dim=1).tolist() == [False, True, False]

    def test_a_label_by_itself_is_a_token(self):
        network = labelled(cross_attention=True)
        randomize(network)
        before, after = (network(images(), TIMES, {"label": LABELS.where(LABELS != 0, to)}) for to in (0, 5))
        assert (before != after).flatten(1).any(dim=1).tolist() == [True, False, False]
        for block in network.blocks:
            torch.nn.init.zeros_(block.cross.kv.weight)
        assert torch.equal(network(images(), TIMES, {"label": LABELS}), network(images(), TIMES))

    def test_without_a_condition_it_is_refused(self):
        with pytest.raises(OptionError, match="cross_attention is true, but there is no condition to attend to"):
            tiny(cross_attention=True)
