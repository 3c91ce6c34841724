"""Captions as a condition."""

import pytest
import torch
from torch import nn

from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Several
from langevin.conditions.text import Text
from langevin.errors import OptionError
from langevin.text.bag import BagTextEncoder
from langevin.text.encoder import Encoded, TextEncoder
from langevin.text.learned import LearnedTextEncoder

WORDS = ("a", "red", "car")
DIM = 6


class Frozen(TextEncoder):
    """Stands for a pretrained encoder: tokens and a vector of the caption's length; it counts how often it is asked."""

    columns = {  # noqa: RUF012
        "text": ((4, 3), torch.float16),
        "text_mask": ((4,), torch.bool),
        "text_pooled": ((2,), torch.float16),
    }
    token_channels, pooled_channels, cached, function = 3, 2, True, "frozen"
    asked = 0

    def prepare(self, captions, device="cpu"):
        self.asked += 1
        lengths = torch.tensor([len(caption) + 1.0 for caption in captions])
        mask = torch.arange(4) < lengths[:, None]
        text = (lengths[:, None] * mask)[..., None].expand(-1, -1, 3)
        return {"text": text.half(), "text_mask": mask, "text_pooled": lengths[:, None].expand(-1, 2).half()}

    def forward(self, columns):
        return Encoded(columns["text"].float(), columns["text_mask"], columns["text_pooled"].float())


def learned(**options):
    torch.manual_seed(0)
    return Text(LearnedTextEncoder(WORDS, length=8, width=8, heads=2), **{"dropout": 0.1, "dim": DIM, **options})


def frozen(**options):
    torch.manual_seed(0)
    condition = Text(Frozen(), **{"dropout": 0.1, "dim": DIM, **options})
    condition.set_null(condition.encoder.prepare([""]))
    return condition


def equal(one, other):
    return all(left is right or torch.equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize("make", [learned, frozen])
def test_tokens_mask_and_vector_have_the_size_that_the_network_takes(make):
    condition = make()
    context = condition(condition.encoder.prepare(["a red car", "a", ""]), 3)
    batch, length, _ = context.tokens.shape
    assert (batch, context.tokens.shape[2], context.vector.shape) == (3, DIM, (3, DIM))
    assert context.mask.shape == (batch, length)
    assert condition.token_channels == DIM
    assert not condition.tokens_only


@pytest.mark.parametrize("make", [learned, frozen])
def test_without_captions_all_have_the_empty_one(make):
    condition = make()
    empty = condition(condition.encoder.prepare(["", ""]), 2)
    assert equal(condition(None, 2), empty)
    rows = condition.encoder.prepare(["a red car", "car"])
    assert not equal(condition(rows, 2), empty)
    assert equal(condition(condition.null(rows), 2), empty)


def test_the_empty_caption_of_a_frozen_encoder_comes_with_the_weights():
    condition, again = frozen(), Text(Frozen(), 0.1, DIM)
    again.load_state_dict(condition.state_dict())
    assert equal(again(None, 2), condition(None, 2))
    assert again.encoder.asked == 0
    assert not any(name.startswith("encoder") for name in condition.state_dict())


def test_a_trained_encoder_is_part_of_the_weights():
    condition = learned()
    context = condition(condition.encoder.prepare(["a red car", "bus"]), 2)
    (context.tokens.square().sum() + context.vector.square().sum()).backward()
    names = {name for name, weight in condition.named_parameters() if weight.grad is not None}
    assert names == {name for name, _ in condition.named_parameters()}
    assert "encoder.embedding.weight" in names
    assert set(condition.state_dict()) - names == {"null_text"}


@pytest.mark.parametrize("make", [learned, frozen])
def test_a_negative_prompt_takes_the_place_of_the_empty_one(make):
    condition = make()
    rows, negative, empty = (condition.encoder.prepare(2 * [text]) for text in ("a red car", "bus", ""))

    def null(given):
        cond = {**rows, **{f"negative_{name}": values for name, values in given.items()}}
        return condition(condition.null(cond), 2)

    assert equal(null(negative), condition(negative, 2))
    assert equal(null(empty), condition(condition.null(rows), 2))


@pytest.mark.parametrize("make", [learned, frozen])
def test_dropout_replaces_whole_captions_by_the_empty_one(make):
    condition, number = make(dropout=0.25), 2000
    rows = condition.encoder.prepare(["a", "red car"] * (number // 2))
    label = torch.arange(number)
    drawn = torch.rand(number, generator=torch.Generator().manual_seed(0))
    kept = condition.drop({**rows, "label": label}, lambda: drawn)
    empty = condition.encoder.prepare([""])
    dropped = drawn < 0.25
    for name, values in rows.items():
        assert torch.equal(kept[name][~dropped], values[~dropped])
        assert torch.equal(kept[name][dropped], empty[name].expand_as(values)[dropped])
    assert torch.equal(kept["label"], label)


def test_tokens_are_handed_on_as_they_are():
    condition = frozen(project=False, pooled=False)
    rows = condition.encoder.prepare(["ab", ""])
    context = condition(rows, 2)
    assert condition.token_channels == 3
    assert condition.tokens_only
    assert context.vector is None
    assert torch.equal(context.tokens, rows["text"].float())
    assert list(condition.parameters()) == []


def test_a_network_that_attends_to_no_tokens_trains_none():
    condition = frozen()
    vector = condition(None, 1).vector
    condition.leave_out_tokens()
    context = condition(None, 1)
    assert torch.equal(context.vector, vector)
    assert (context.tokens, context.mask) == (None, None)
    assert {name for name, _ in condition.named_parameters()} == {"pooled.weight", "pooled.bias"}
    alone = frozen(pooled=False)
    alone.leave_out_tokens()  # there is nothing else
    assert alone(None, 1).tokens is not None


def test_beside_labels_its_tokens_keep_their_mask():
    parts = {"label": ClassLabel(num_classes=3, dropout=0.1, dim=DIM), "text": frozen()}
    cond = {"label": torch.tensor([0, 2]), **parts["text"].encoder.prepare(["a", "bcd"])}
    context = Several(parts)(cond, 2)
    assert torch.equal(context.mask, cond["text_mask"])
    assert context.vector.shape == (2, DIM)


def test_weights_of_half_precision_take_captions():
    condition = learned().bfloat16()
    assert condition(condition.encoder.prepare(["a car"]), 1).vector.dtype == torch.bfloat16
    assert frozen().bfloat16()(None, 2).tokens.dtype == torch.bfloat16


def test_a_bag_has_no_tokens_to_be_left_with():
    bag = BagTextEncoder(WORDS, width=4)
    condition = Text(bag, 0.1, DIM)
    assert condition(None, 2).tokens is None
    assert not condition.tokens_only
    assert [type(part) for part in condition.children() if part is not bag] == [nn.Linear]
    with pytest.raises(OptionError, match="pooled is false; allowed: true"):
        Text(bag, 0.1, DIM, pooled=False)
