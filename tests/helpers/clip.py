"""A folder with a CLIP of random weights, as transformers saves it."""

import json
from pathlib import Path

import pytest
import torch


def save_tiny_clip(folder: Path) -> Path:
    """Save one of images of 16 x 16 pixels and 12 tokens, with a tokenizer of single bytes; it needs no seed."""
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    letters = [chr(code) for code in _bytes()]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[])
    text = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        # As in configs before 2023: no token of the vocabulary that ends a text.
        "eos_token_id": 2,
        "bos_token_id": len(words) - 2,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    }
    torch.manual_seed(7)
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preprocessing = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


def _bytes() -> list[int]:
    """The code points by which GPT-2's tokenizer, and so CLIP's, writes the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*shown, *range(256, 256 + 256 - len(shown))]
