"""CLIP's cosines on tiny random weights, against transformers' own processing and pooling."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.clip import save_tiny_clip
from helpers.images import example_images

from langevin.errors import OptionError
from langevin.features.clip_pairs import CLIPPairs

TEXTS = ["a red car", "abc", "", "a red car", "日本 🚗", "car " * 3000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize(("channels", "size"), [(3, (24, 24)), (1, (8, 8)), (3, (20, 33))])
def test_equals_transformers(folder, channels, size):
    """Texts of any length keep their end: each is alone here, uncut where it is short, without any padding."""
    from PIL import Image
    from torchvision.transforms import CenterCrop, Resize
    from torchvision.transforms.functional import to_tensor
    from transformers import AutoTokenizer, CLIPModel

    images = example_images(len(TEXTS), 40, channels)[..., : size[0], : size[1]]
    found = CLIPPairs(str(folder))(images, TEXTS)
    model, tokenizer = CLIPModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25)))
    for image, text, value in zip(images, TEXTS, found, strict=True):
        photo = Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy())
        cropped = CenterCrop(16)(Resize(16, interpolation=Image.Resampling.BICUBIC)(photo))
        of_image = model.visual_projection(
            model.vision_model(pixel_values=((to_tensor(cropped) - mean) / std)[None]).pooler_output
        )
        ids = tokenizer(text)["input_ids"]
        ids = torch.tensor([ids if len(ids) <= 12 else [*ids[:11], ids[-1]]])
        of_text = model.text_projection(model.text_model(input_ids=ids).last_hidden_state[:, -1])
        x, y = of_image[0].double().detach().numpy(), of_text[0].double().detach().numpy()
        assert float(value) == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), abs=1e-6)


def test_a_pair_does_not_depend_on_the_others(folder):
    pairs, images = CLIPPairs(str(folder)), example_images(21, 16)
    texts = [f"car {number}" for number in range(21)]
    whole = pairs(images, texts)
    fresh = CLIPPairs(str(folder))
    assert torch.equal(whole, torch.cat([fresh(images[n : n + 5], texts[n : n + 5]) for n in range(0, 21, 5)]))
    assert fresh.record() == pairs.record()


def test_the_record_tells_of_normalization_and_tokenizer(folder, tmp_path):
    first = CLIPPairs(str(folder))
    shutil.copytree(folder, tmp_path / "normalized")
    (tmp_path / "normalized" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.4, 0.2]}))
    shutil.copytree(folder, tmp_path / "words")
    tokenizer = tmp_path / "words" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    for name, differing in (("normalized", {"mean", "deviation"}), ("words", {"tokenizer"})):
        other = CLIPPairs(str(tmp_path / name))
        before, after = (pairs.record()["clip"] for pairs in (first, other))
        assert {key for key, value in before.items() if after[key] != value} == differing
        assert other.digest() != first.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "that is no JSON object"),
        ("{", "that cannot be read"),
        ('{"image_mean": null}', r"whose image_mean is null; allowed: a list of 3 finite numbers"),
        ('{"image_mean": [0.5, NaN, 0.5]}', r"whose image_mean is \[0.5, NaN, 0.5\]; allowed"),
        ('{"image_std": [0.5, 0.5]}', r"whose image_std is \[0.5, 0.5\]; allowed: a list of 3 positive finite numbers"),
        ('{"image_std": [1, 0, 1]}', r"whose image_std is \[1, 0, 1\]; allowed"),
        ('{"image_std": [1, true, "1"]}', r"whose image_std is \[1, true, .*; allowed"),
    ],
)
def test_a_damaged_normalization_is_refused(text, message, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text(text)
    with pytest.raises(OptionError, match=f"^path has a preprocessor_config.json {message}"):
        CLIPPairs(str(tmp_path / "clip"))


def test_other_folders_are_refused(folder, tmp_path):
    with pytest.raises(OptionError, match="path is nowhere, which is no folder; allowed: a folder of its weights"):
        CLIPPairs("nowhere")
    wanted = "allowed: a folder with CLIP and its tokenizer; it holds"
    with pytest.raises(OptionError, match=f"{wanted} none"):
        CLIPPairs(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(OptionError, match=f"{wanted} one of another kind, bert"):
        CLIPPairs(str(tmp_path))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(OptionError, match="cannot be read as CLIPModel"):
        CLIPPairs(str(tmp_path))
