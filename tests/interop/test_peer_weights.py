"""Names and orders of OpenAI's and EDM's weights; tests/networks/test_peers.py has the networks themselves."""

import pytest
import torch

from langevin.errors import UserError
from langevin.interop.edm import from_edm
from langevin.interop.openai import from_openai

CHANNELS, HEADS = 8, 2
MODEL = {"heads": HEADS, "head_channels": None}
EACH = CHANNELS // HEADS


def layers(*names):
    return {f"{name}.{kind}": torch.randn(2, 2) for name in names for kind in ("weight", "bias")}


def openai(**others):
    return layers("time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2") | others


def edm(**others):
    return layers("map_layer0", "map_layer1") | others


def tagged(order):
    """A bias of query, key and value, each entry 100 * (0 query, 1 key, 2 value) + 10 * head + channel."""
    part, head, channel = torch.meshgrid(torch.arange(3), torch.arange(HEADS), torch.arange(EACH), indexing="ij")
    return (100.0 * part + 10 * head + channel).permute(order).flatten()


OURS = tagged((0, 1, 2))


@pytest.mark.parametrize(("order", "lies"), [("legacy", (1, 0, 2)), ("new", (0, 1, 2))])
def test_query_key_and_value_of_openai(order, lies):
    bias = tagged(lies)
    state = {"middle_block.1.qkv.bias": bias, "middle_block.1.qkv.weight": bias[:, None, None].expand(-1, CHANNELS, 1)}
    converted = from_openai(openai(**state), MODEL, order)
    assert torch.equal(converted["middle.blocks.1.qkv.bias"], OURS)
    assert torch.equal(converted["middle.blocks.1.qkv.weight"], OURS[:, None].expand(-1, CHANNELS))


def test_query_key_and_value_of_edm():
    bias = tagged((1, 2, 0))
    block = layers(*(f"dec.8x8_in0.{name}" for name in ("norm0", "conv0", "affine", "norm1", "conv1", "norm2", "proj")))
    qkv = {"dec.8x8_in0.qkv.bias": bias, "dec.8x8_in0.qkv.weight": bias[:, None, None, None].expand(-1, CHANNELS, 1, 1)}
    converted = from_edm(edm(**block, **qkv))
    assert torch.equal(converted["middle.blocks.1.qkv.bias"], OURS)
    assert torch.equal(converted["middle.blocks.1.qkv.weight"], OURS[:, None].expand(-1, CHANNELS))


def test_labels_of_openai():
    table = torch.randn(5, 3)
    converted = from_openai(openai(**{"label_emb.weight": table}), MODEL)["condition.table.weight"]
    assert torch.equal(converted, torch.cat((table, torch.zeros(1, 3))))


@pytest.mark.parametrize("bias", [None, torch.randn(3)])
def test_labels_of_edm(bias):
    """A row for each class is what their linear layer gives for its one-hot label, the last what it gives for none."""
    weight = torch.randn(3, 5)
    labels = torch.cat((torch.eye(5), torch.zeros(1, 5))) * (1 if bias is None else 5**0.5)
    state = {"map_label.weight": weight} | ({} if bias is None else {"map_label.bias": bias})
    converted = from_edm(edm(**state))["condition.table.weight"]
    torch.testing.assert_close(converted, torch.nn.functional.linear(labels, weight, bias))


def test_what_edm_does_not_use_when_sampling_is_left_out_where_ours_does_not_train_it():
    augment = torch.randn(3, 9)
    unused = {"map_augment.weight": augment, "enc.8x8_down.conv0.resample_filter": torch.ones(1, 1, 2, 2)}
    assert from_edm(edm(**unused)).keys() == from_edm(edm()).keys()
    assert torch.equal(from_edm(edm(**unused), augmentation=True)["condition.embed.weight"], augment)


@pytest.mark.parametrize(
    ("convert", "state", "whose"),
    [(lambda weights: from_openai(weights, MODEL), openai, "OpenAI's"), (from_edm, edm, "EDM's")],
)
def test_weights_of_something_else(convert, state, whose):
    for name in ("encoder.weight", "input_blocks.1.0.attn.weight", "dec.8x8_aux_up.weight"):
        with pytest.raises(UserError, match=f"weights: '.*' is unknown; allowed: the weights of {whose}"):
            convert(state(**{name: torch.zeros(1)}))
    weights = state()
    missing = next(iter(weights))
    del weights[missing]
    with pytest.raises(UserError, match=f"weights: '{missing}' is missing; allowed: all the weights of {whose}"):
        convert(weights)
