"""Both halves of CLIP: how well images and texts go together."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from langevin.digest import digest_of
from langevin.errors import OptionError
from langevin.features.extractor import BATCH, filled, full_precision
from langevin.text.files import CONFIG, folder_of, listed, read_json, require_package, vocabulary_files
from langevin.text.frozen import of_transformers, pretrained, reading
from langevin.visible import visible

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training images, by channel, in [0, 1]. Source: Radford et al. 2021, their code."""
PREPROCESSING = "preprocessor_config.json"
"""The file of a folder that holds these of its own model."""
SHOWN = 60
"""Letters of a value in a message."""


class CLIPPairs(nn.Module):
    """The cosines of CLIP's embeddings of images and texts (Radford et al. 2021, arXiv 2103.00020), by transformers.

    An image is resized by Pillow's bicubic filter until its shorter side is the model's, cropped to its middle and
    normalized, as CLIP's own code does. A text that is too long is cut, and keeps its end token, at which it is pooled.

    Args:
        path: a folder with a CLIP model and its tokenizer as transformers saves them, or its name on the Hugging Face
            hub, such as openai/clip-vit-base-patch16.

    Raises:
        OptionError: when there is no such folder, or no such model in it.
        UserError: when transformers is not installed.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        require_package("metrics=[clip_score]", "transformers", "transformers")
        folder = folder_of(path)
        kind = read_json(folder / CONFIG).get("model_type") if (folder / CONFIG).is_file() else None
        if kind != "clip":
            holds = "holds none" if kind is None else f"holds one of another kind, {visible(str(kind))}"
            raise OptionError("path", f"is {path}; allowed: a folder with CLIP and its tokenizer; it {holds}")
        with torch.random.fork_rng(devices=[]):  # its initial weights must not move the run's random numbers
            self.model, tokenizer = _opened(path, folder)
        self.model.requires_grad_(False).eval()
        self.length: int = self.model.config.text_config.max_position_embeddings
        self.tokenize = of_transformers(tokenizer, self.length)
        self.side: int = self.model.config.vision_config.image_size
        mean, deviation = _normalization(folder / PREPROCESSING)
        self.normalization = {"mean": mean, "deviation": deviation}
        self.vocabulary = hashlib.sha256(listed(vocabulary_files(folder))).hexdigest()
        # Constants, which are no weights.
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)
        self._texts: dict[str, Tensor] = {}

    mean: Tensor
    deviation: Tensor

    def record(self) -> dict[str, Any]:
        """What must be known to compute the same again, as plain values."""
        kind = f"Pillow's bicubic filter to {self.side}, cropped to the middle, normalized"
        images = {"images": kind, **self.normalization}
        texts = {"tokens": self.length, "tokenizer": self.vocabulary}
        return {"clip": {"weights": digest_of(self.model), **images, **texts}}

    def digest(self) -> str:
        """The sha256 of the record, in hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()

    @torch.no_grad()
    def forward(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """The cosines of images uint8 (B, 1 or 3, H, W) and as many texts: float64 (B,).

        One pair's does not depend on the others, bit for bit: batches are filled up to `BATCH`.
        """
        with full_precision(images.device):
            of_images = torch.cat([self._of_images(part) for part in images.split(BATCH)]).double()
            of_texts = self._of_texts(texts).to(of_images)
        return nn.functional.cosine_similarity(of_images, of_texts)

    def _of_images(self, images: Tensor) -> Tensor:
        pixels = torch.stack([self._resized(image) for image in images.cpu()]).to(images.device)
        x = (filled(pixels) / 255 - self.mean) / self.deviation
        pooled = self.model.vision_model(pixel_values=x).pooler_output
        embedded: Tensor = self.model.visual_projection(pooled)
        return embedded[: len(images)]

    def _resized(self, image: Tensor) -> Tensor:
        """An image uint8 (1 or 3, H, W) at the size of the model: (3, side, side), uint8."""
        _, height, width = image.shape
        pixels = Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy())
        short = min(height, width)
        size = self.side * width // short, self.side * height // short
        left, top = (round((length - self.side) / 2) for length in size)
        resized = pixels.resize(size, Image.Resampling.BICUBIC)
        cropped = resized.crop((left, top, left + self.side, top + self.side))
        return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)

    def _of_texts(self, texts: Sequence[str]) -> Tensor:
        """The embeddings (B, D), of each text computed once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            embedded = self._embedded([*part, *[""] * (BATCH - len(part))]).cpu()
            self._texts |= dict(zip(part, embedded[: len(part)], strict=True))
        return torch.stack([self._texts[text] for text in texts])

    def _embedded(self, texts: Sequence[str]) -> Tensor:
        ids, mask, _ = self.tokenize(texts)
        hidden = self.model.text_model(input_ids=ids.to(self.mean.device)).last_hidden_state
        # By the mask, and not by the model's own pooling: many of its configs name another end token.
        embedded: Tensor = self.model.text_projection(hidden[torch.arange(len(ids)), mask.sum(1) - 1])
        return embedded


def _opened(path: str, folder: Path) -> tuple[Any, Any]:
    """The model of a folder, and its tokenizer."""
    from transformers import CLIPModel, CLIPTokenizer

    with reading(path, "CLIP's tokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    return pretrained(CLIPModel, folder, path), tokenizer


def _normalization(file: Path) -> tuple[list[float], list[float]]:
    """The mean and the standard deviation of a model's images, by channel; CLIP's own where a file does not say.

    Raises:
        OptionError: when the file is damaged, or they are no such numbers.
    """
    found = read_json(file) if file.is_file() else {}
    values = []
    for name, default, positive in (("image_mean", MEAN, False), ("image_std", DEVIATION, True)):
        given = found.get(name, [*default])
        if not _are_numbers(given, positive):
            wanted = f"a list of 3 {'positive ' * positive}finite numbers"
            raise OptionError(
                "path", f"has a {file.name} whose {name} is {visible(json.dumps(given)[:SHOWN])}; allowed: {wanted}"
            )
        values.append(given)
    mean, deviation = values
    return mean, deviation


def _are_numbers(given: Any, positive: bool) -> bool:
    """Whether something is one number per channel, in the range of float32."""
    limits = torch.finfo(torch.float32)
    low = limits.tiny if positive else limits.min
    return (
        isinstance(given, list)
        and len(given) == len(MEAN)
        and all(type(value) in (int, float) and low <= value <= limits.max for value in given)
    )
