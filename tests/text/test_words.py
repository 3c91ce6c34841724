"""Encoders that are trained with the model: what ids captions have, and what becomes of them."""

import pytest
import torch

from langevin.errors import OptionError
from langevin.text.bag import BagTextEncoder
from langevin.text.learned import LearnedTextEncoder
from langevin.text.words import BEGIN, END, PADDING, Words

VOCABULARY = ("a", "seven", "bright")
FIRST = 3 + 2 * 256
MIXED = "A bright 七 семь 🚗!"


def ids(caption, length=64):
    return Words(VOCABULARY).rows([caption], length)[0].tolist()


def test_known_words_have_an_id_each_and_all_others_are_spelled():
    assert ids("A  seven") == [BEGIN, FIRST, FIRST + 1, END] + 60 * [PADDING]
    # "é" is two bytes, of which the second is within the word.
    assert ids("é a", 6) == [BEGIN, 3 + 0xC3, 3 + 256 + 0xA9, FIRST, END, PADDING]
    assert ids("", 4) == [BEGIN, END, PADDING, PADDING]


@pytest.mark.parametrize(("one", "other"), [("ab c", "a bc"), ("七", "八"), ("🚗", "🚕"), ("a", ""), ("x", "X1")])
def test_texts_of_other_words_have_other_ids(one, other):
    assert ids(one) != ids(other)


@pytest.mark.parametrize("caption", ["a " * 5000, "x" * 10_000, MIXED * 100, "\ud800" * 10_000])
def test_what_is_too_long_is_cut_and_ends_all_the_same(caption):
    row = ids(caption, 8)
    assert row[0] == BEGIN
    assert row[-1] == END
    assert row[1:-1] == ids(caption, 20_000)[1:7]


def encoders(**options):
    torch.manual_seed(0)
    return BagTextEncoder(VOCABULARY, width=8, **options), LearnedTextEncoder(VOCABULARY, width=8, heads=2, **options)


def test_every_weight_learns_from_tokens_and_vector_together():
    for encoder in encoders():
        encoded = encoder(encoder.prepare(["a seven", MIXED, ""]))
        # Not the sum: that of a layer normalization is a constant.
        sum(
            part.square().mul(torch.arange(8)).sum() for part in (encoded.tokens, encoded.pooled) if part is not None
        ).backward()
        assert {name for name, weight in encoder.named_parameters() if not weight.grad.abs().sum() > 0} == set()


def test_padding_changes_nothing_that_is_not_masked():
    for short, long in zip(encoders(length=8), encoders(length=20), strict=True):
        for name, weight in long.state_dict().items():
            weight[: len(short.state_dict()[name])] = short.state_dict()[name]
        captions = ["a seven", "", "bright a"]
        one, other = (encoder(encoder.prepare(captions)) for encoder in (short, long))
        torch.testing.assert_close(one.pooled, other.pooled)
        assert one.pooled.isfinite().all()
        assert (one.pooled[0] != one.pooled[1]).any()
        if one.tokens is not None:
            assert one.mask.sum(1).tolist() == [4, 2, 4]
            torch.testing.assert_close(one.tokens[one.mask], other.tokens[other.mask])


def test_only_the_transformer_knows_the_order():
    bag, learned = encoders()
    for encoder, differs in ((bag, False), (learned, True)):
        one, other = encoder(encoder.prepare(["a bright seven", "seven a bright"])).pooled
        assert (one - other).abs().max().item() > 1e-4 if differs else torch.allclose(one, other)


def test_a_block_equals_torchs():
    _, encoder = encoders(length=8)
    block = encoder.blocks[0]
    torchs = torch.nn.TransformerEncoderLayer(8, 2, 32, 0, torch.nn.functional.gelu, batch_first=True, norm_first=True)
    names = {
        "self_attn.in_proj_weight": "projection.weight",
        "self_attn.in_proj_bias": "projection.bias",
        "self_attn.out_proj": "output",
        "linear1": "mlp.0",
        "linear2": "mlp.2",
        "norm1": "norms.0",
        "norm2": "norms.1",
    }
    state = {}
    for name in torchs.state_dict():
        theirs = next(each for each in names if name.startswith(each))
        state[name] = block.state_dict()[name.replace(theirs, names[theirs])]
    torchs.load_state_dict(state)
    x, mask = torch.randn(3, 8, 8), torch.arange(8) < torch.tensor([[2], [5], [8]])
    ours = block(x, mask[:, None, None])
    torch.testing.assert_close(ours[mask], torchs(x, src_key_padding_mask=~mask)[mask])


def test_its_function_tells_vocabularies_and_lengths_apart():
    made = [BagTextEncoder(words, length) for words, length in ((VOCABULARY, 8), (VOCABULARY[:2], 8), (VOCABULARY, 9))]
    assert len({encoder.function for encoder in made}) == 3


def test_options_out_of_range_are_named():
    with pytest.raises(OptionError, match="length is 2; allowed: at least 3"):
        BagTextEncoder(VOCABULARY, length=2)
    with pytest.raises(OptionError, match="heads is 3; allowed: a divisor of the width, 8"):
        LearnedTextEncoder(VOCABULARY, width=8, heads=3)
