"""Encoders of other libraries, on tiny random weights in their layouts."""

import copy
import json
import pickle
import warnings

import pytest
import torch
from helpers.text_encoders import POSITIONS, WIDTH, save_clip, save_open_clip, save_t5
from safetensors.torch import load_file, save_file

from langevin.errors import OptionError, UserError
from langevin.text.clip import CLIPTextEncoder
from langevin.text.open_clip import OpenCLIPTextEncoder
from langevin.text.t5 import T5TextEncoder

pytestmark = pytest.mark.slow  # importing transformers takes seconds
CAPTIONS = ["a red car", "", "日本 семь 🚗", "x" * 10_000, "two \ud800 <|endoftext|> cars"]
HALF = {"rtol": 2e-3, "atol": 2e-3}
"""Of values that were rounded to float16."""
KINDS = {
    "clip": (CLIPTextEncoder, save_clip),
    "t5": (T5TextEncoder, save_t5),
    "open_clip": (OpenCLIPTextEncoder, save_open_clip),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Gives the folder of an encoder, made when it is first asked for."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = KINDS[kind][1](tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


def prepared(kind, folder, captions=CAPTIONS, **options):
    with warnings.catch_warnings(action="ignore"):  # some are cut
        return KINDS[kind][0](str(folder), **{"length": POSITIONS, **options}).prepare(captions)


def test_clip_equals_the_library(folders):
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folders("clip"))
    ids = tokenizer(["a red car", ""], padding="max_length", max_length=POSITIONS, return_tensors="pt").input_ids
    model = CLIPTextModel.from_pretrained(folders("clip")).eval()
    model.eos_token_id = tokenizer.eos_token_id  # the config has 2, as OpenAI's
    with torch.no_grad():
        theirs = model(ids)
    ours = prepared("clip", folders("clip"), ["a red car", ""])
    torch.testing.assert_close(ours["text"].float(), theirs.last_hidden_state, **HALF)
    torch.testing.assert_close(ours["text_pooled"].float(), theirs.pooler_output, **HALF)
    assert "text_mask" not in ours


def test_t5_equals_the_library(folders):
    from transformers import T5EncoderModel, T5Tokenizer

    tokenizer = T5Tokenizer.from_pretrained(folders("t5"))
    rows = tokenizer(["a red car", ""], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = T5EncoderModel.from_pretrained(folders("t5")).eval()(**rows).last_hidden_state
    ours, mask = prepared("t5", folders("t5"), ["a red car", ""]), rows.attention_mask.bool()
    assert ours["text_mask"].sum(1).tolist() == mask.sum(1).tolist() == [11, 1]
    torch.testing.assert_close(ours["text"][ours["text_mask"]].float(), theirs[mask], **HALF)
    assert ours["text"][~ours["text_mask"]].count_nonzero() == 0


def test_open_clip_equals_the_library(folders):
    import open_clip

    model = open_clip.create_model(f"local-dir:{folders('open_clip')}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folders('open_clip')}")
    with torch.no_grad():
        theirs = model.encode_text(tokenizer(["a red car", ""]))
    for length in (POSITIONS, 10):  # causal: what follows does not count
        ours = prepared("open_clip", folders("open_clip"), ["a red car", ""], length=length)
        torch.testing.assert_close(ours["text_pooled"].float(), theirs, **HALF)
        pooled = ours["text"][torch.arange(2), [4, 1]].float() @ model.text_projection
        torch.testing.assert_close(pooled, theirs, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_open_clip_loads_the_file_that_the_digest_is_of(folders, name, tmp_path):
    """Others beside it do not count: many folders hold the weights for transformers too."""
    encoders = []
    for seed in (1, 2):
        folder = save_open_clip(tmp_path / str(seed), seed)
        weights = torch.load(folder / "open_clip_pytorch_model.bin")
        (save_file if name.endswith(".safetensors") else torch.save)(weights, folder / name)
        other = torch.load(folders("open_clip") / "open_clip_pytorch_model.bin")
        save_file(other, folder / "model.safetensors")
        encoders.append(OpenCLIPTextEncoder(str(folder), length=8))
    first, second = encoders
    assert first.weights != second.weights
    assert first.function != second.function
    rows = [encoder.prepare(["a red car"])["text_pooled"] for encoder in encoders]
    assert (rows[0] - rows[1]).abs().max() > 0.01
    (tmp_path / "1" / "model.safetensors").unlink()
    assert OpenCLIPTextEncoder(str(tmp_path / "1"), length=8).weights == first.weights


def test_a_config_that_names_another_file_of_weights_is_refused(folders, tmp_path):
    for file in folders("clip").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"transformers_weights": "other.safetensors"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(OptionError, match=r"config.json with transformers_weights=other.safetensors; allowed: without"):
        CLIPTextEncoder(str(tmp_path), length=8)


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_is_encoded_whatever_its_batch_and_its_padding(folders, kind):
    short, long = (prepared(kind, folders(kind), length=length, mask=True) for length in (16, POSITIONS))
    mask = short["text_mask"]
    cut = mask.all(1)
    assert cut[3]
    assert not cut[:2].any()
    for columns in (short, long):
        assert all(values.isfinite().all() for values in columns.values() if values.is_floating_point())
    kept = mask & ~cut[:, None]  # what is cut elsewhere is another text
    torch.testing.assert_close(short["text"][kept], long["text"][:, :16][kept], **HALF)
    fresh = [prepared(kind, folders(kind), [caption], length=16, mask=True) for caption in CAPTIONS]
    for name, values in short.items():
        torch.testing.assert_close(torch.cat([row[name] for row in fresh]), values, **HALF)


def test_the_vector_is_that_of_the_end_though_the_text_is_cut_or_spells_one(folders):
    rows = prepared("clip", folders("clip"), mask=True)
    ends = rows["text_mask"].sum(1) - 1
    assert ends[3] == POSITIONS - 1
    torch.testing.assert_close(rows["text"][torch.arange(len(ends)), ends], rows["text_pooled"])
    short = prepared("clip", folders("clip"), ["x " * 10_000, "x " * (POSITIONS - 2)])["text_pooled"]
    torch.testing.assert_close(short[0], short[1])  # as many words, then the end


def test_without_a_mask_t5_sees_padding(folders):
    short, long = (prepared("t5", folders("t5"), length=length, mask=False) for length in (16, POSITIONS))
    assert (short["text"][0, :8] - long["text"][0, :8]).abs().max() > 0.01


def test_it_says_once_that_a_text_is_cut(folders):
    encoder = T5TextEncoder(str(folders("t5")), length=8)
    with warnings.catch_warnings(record=True) as seen:
        encoder.prepare(["a cat", "a red car and a dog"])
        encoder.prepare(["a red car and a dog"])
    [warning] = seen
    assert str(warning.message).startswith("text.length=8: captions with more tokens are cut")
    assert '"a red car and a dog..." of 19 letters' in str(warning.message)
    with warnings.catch_warnings(action="error"):
        T5TextEncoder(str(folders("t5")), length=8).prepare(["abcdef"])  # just as long


def test_no_caption_has_no_rows(folders):
    assert {name: tuple(rows.shape) for name, rows in prepared("clip", folders("clip"), []).items()} == {
        "text": (0, POSITIONS, WIDTH),
        "text_pooled": (0, WIDTH),
    }


def test_its_weights_are_neither_stored_nor_copied(folders):
    encoder = CLIPTextEncoder(str(folders("clip")), length=16)
    rows = encoder.prepare(["a car"])
    assert encoder.state_dict() == {}
    assert copy.deepcopy(encoder)._held is encoder._held
    again = pickle.loads(pickle.dumps(encoder))
    assert again._held.opened is None
    torch.testing.assert_close(again.prepare(["a car"]), rows)


def test_what_is_recorded_suffices_to_build_one(folders):
    options = {"path": str(folders("clip")), "length": 16, "mask": False}
    built = CLIPTextEncoder(**{**options, "path": "gone"}, **CLIPTextEncoder.found(options))
    assert built.columns == CLIPTextEncoder(**options).columns
    with pytest.raises(UserError, match=r"^text\.path is gone, which is no folder"):
        built.prepare(["a car"])


def test_the_digest_is_of_the_weights_not_of_their_file(folders, tmp_path):
    tensors = load_file(folders("clip") / "model.safetensors")
    before = CLIPTextEncoder(str(folders("clip")), length=16).weights
    for file in folders("clip").iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    encoder = CLIPTextEncoder(str(tmp_path), length=16)
    assert encoder.weights == before
    tensors[
        "text_model.final_layer_norm.bias" if "text_model.final_layer_norm.bias" in tensors else "final_layer_norm.bias"
    ] += 1
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=rf"^text\.path is .*; allowed: the encoder of {before[:8]}"):
        encoder.prepare(["a car"])
    merges = tmp_path / "merges.txt"
    torch.save(load_file(folders("clip") / "model.safetensors"), tmp_path / "pytorch_model.bin")
    merges.write_text(f"{merges.read_text()}a b</w>\n")
    assert CLIPTextEncoder(str(tmp_path), length=16).weights != before


def test_a_pipeline_holds_its_encoder_beside_its_tokenizer(folders, tmp_path):
    for file in folders("clip").iterdir():
        part = tmp_path / ("text_encoder" if file.name in ("config.json", "model.safetensors") else "tokenizer")
        part.mkdir(exist_ok=True)
        (part / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "text_encoder_2").mkdir()
    (tmp_path / "text_encoder_2" / "config.json").write_text(json.dumps({"model_type": "t5"}))
    expected = CLIPTextEncoder(str(folders("clip")), length=16).weights
    for path in (tmp_path, tmp_path / "text_encoder"):
        assert CLIPTextEncoder(str(path), length=16).weights == expected
    with pytest.raises(OptionError, match="has no tokenizer"):
        T5TextEncoder(str(tmp_path), length=16)


@pytest.mark.parametrize(
    ("encoder", "kind", "message"),
    [
        (CLIPTextEncoder, "t5", "a model of the kind t5; allowed with text=t5"),
        (T5TextEncoder, "clip", "a model of the kind clip_text_model; allowed with text=clip"),
        (CLIPTextEncoder, "open_clip", "an encoder of open_clip; allowed with text=open_clip"),
        (OpenCLIPTextEncoder, "clip", r"has no open_clip_config.json; .*text=clip and text=t5"),
    ],
)
def test_another_librarys_folder_is_refused(folders, encoder, kind, message):
    with pytest.raises(OptionError, match=message):
        encoder(str(folders(kind)))


def test_a_folder_that_is_incomplete_or_damaged_is_refused(folders, tmp_path):
    def refused(message):
        with pytest.raises(UserError, match=message) as error:
            CLIPTextEncoder(str(tmp_path), length=16).prepare(["a car"])
        assert "\n" not in str(error.value)

    refused("has no config.json")
    for file in folders("clip").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file(dict(list(weights.items())[3:]), tmp_path / "model.safetensors")
    refused("whose weights lack .*; allowed: the weights of a CLIPTextModel")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    refused("cannot be read")
    (tmp_path / "model.safetensors").unlink()
    refused("has no weights")
    (tmp_path / "config.json").write_text("{")
    refused("a config.json that cannot be read")


def test_a_caption_has_no_more_tokens_than_the_encoder_positions(folders):
    with pytest.raises(OptionError, match=f"length is 77; allowed: 3 to {POSITIONS}"):
        CLIPTextEncoder(str(folders("clip")))


def test_weights_may_be_those_of_a_whole_model_and_lie_in_several_files(folders, tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    torch.manual_seed(1)
    config = T5Config(vocab_size=30, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    model = T5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    tokenizer = T5Tokenizer.from_pretrained(folders("t5"))
    tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    with torch.no_grad():
        theirs = model.encoder(**tokenizer(["a car"], return_tensors="pt")).last_hidden_state
    ours = prepared("t5", tmp_path, ["a car"])
    torch.testing.assert_close(ours["text"][ours["text_mask"]].float(), theirs[0], **HALF)
