"""Folders of tiny pretrained encoders of text, in the layouts of the libraries that write them; the weights are random.

A tokenizer's vocabulary is the bytes, or the letters, alone: so that every text has tokens.
"""

import json
from pathlib import Path

import pytest
import torch

WIDTH, POSITIONS = 16, 24


def save_clip(folder: Path, seed: int = 0) -> Path:
    """The text half of a CLIP, as `transformers` writes it, whose config has the end token of OpenAI's."""
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: place for place, name in enumerate(names)}
    torch.manual_seed(seed)
    config = transformers.CLIPTextConfig(
        vocab_size=len(names),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        eos_token_id=2,
    )
    model = transformers.CLIPTextModel(config)
    for weight in model.parameters():  # fresh ones hardly depend on the text
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    # As Stable Diffusion's repositories have it; a new version would write a tokenizer.json.
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return folder


def save_t5(folder: Path, seed: int = 0) -> Path:
    """The encoder of a T5, as `transformers` writes it."""
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=len(pieces), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.5
    )
    transformers.T5EncoderModel(config).save_pretrained(folder)
    transformers.T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(folder)
    return folder


def save_open_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP as `open_clip` writes it, whose vocabulary that library brings along."""
    open_clip = pytest.importorskip("open_clip", reason="needs the package open_clip_torch")
    torch.manual_seed(seed)
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 8, "layers": 1, "width": WIDTH, "head_width": 8, "patch_size": 4},
        "text_cfg": {"context_length": POSITIONS, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2},
    }
    model = open_clip.CLIP(**config)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder
