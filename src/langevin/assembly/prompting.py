"""The prompts of a model that is conditioned on text."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from langevin.assembly.make import target_of
from langevin.assembly.saved import Model
from langevin.assembly.text_files import encoder_of
from langevin.config.validate import ConfigError, Mistake
from langevin.data.captions import FirstCaptions
from langevin.data.prompt_file import is_prompt_file, read_prompts
from langevin.data.tokens import Encodings
from langevin.errors import UserError
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.given import OfGiven
from langevin.samplers.prompts import KEPT, Encode, Prompts, Texts
from langevin.text.encoder import TextEncoder

if TYPE_CHECKING:
    from langevin.data.module import DataModule  # imports Lightning, which sampling does without
    from langevin.data.samples import OpenedSamples

PROMPT, NEGATIVE = "prompt", "negative"
"""The options."""


def encoding(encoder: TextEncoder, asked: Texts, negative: Texts | None = None) -> Encode:
    """What encodes texts; where these are few, a frozen encoder leaves the memory once it has."""
    is_once = len(asked.texts) + (0 if negative is None else len(negative.texts)) <= KEPT

    def encode(texts: Sequence[str], device: torch.device | str) -> Mapping[str, Tensor]:
        found = encoder.prepare(texts, device)
        if is_once:
            encoder.release()
        return found

    return encode


def encoded_by(data: "DataModule") -> Encode:
    """What looks up the columns of captions of opened data, once these are encoded."""

    @functools.cache
    def found() -> tuple[Encodings, dict[str, int]]:
        split, samples = ("train", data.train_set) if data.test_set is None else ("test", data.test_set)
        texts = () if samples.captions is None else samples.captions.texts
        return data.encodings[split], {text: place for place, text in enumerate(texts)}

    def encode(texts: Sequence[str], device: torch.device | str) -> Mapping[str, Tensor]:
        encodings, places = found()
        return encodings.batch(np.array([places[text] for text in texts], np.int64))

    return encode


def open_texts(cfg: DictConfig, option: str) -> Texts | None:
    """The texts that an option names: itself, a list of texts, or a file of such; None where it is null.

    Raises:
        UserError: when the file is missing, or holds no such texts.
    """
    value = cfg.get(option)
    if value is None:
        return None
    if isinstance(value, str) and is_prompt_file(value):
        found = read_prompts(value, option)
        return Texts(found, {"number": len(found), "sha256": digest_of_texts(found)})
    found = [value] if isinstance(value, str) else list(value)
    if not found:
        raise ConfigError([Mistake(option, "is an empty list; allowed: a text, a list of texts, or a file of such")])
    return Texts(found, found)


def digest_of_texts(texts: Sequence[str]) -> str:
    """A sha256 that is equal where the texts are, in their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def compares(chosen: DictConfig) -> bool:
    """Whether the guidance of a config compares with a null condition."""
    return chosen.get("guidance") is not None and getattr(target_of(chosen, "guidance"), "needs_unconditional", False)


def request_prompts(cfg: DictConfig, chosen: DictConfig, model: Model, generator: SamplePipeline) -> None:
    """Let a pipeline make samples of the prompts of a config, where it has some; beside what is requested already.

    Args:
        cfg: of the command: "prompt", "negative" and "labels".
        chosen: the model's own config, with what the command chooses of it.
        model: the model.
        generator: its pipeline; changed in place.

    Raises:
        UserError: when there are prompts for a model without text, none where they are needed, or they do not fit.
    """
    encoder, asked, negative = encoder_of(model.denoiser.network), open_texts(cfg, PROMPT), open_texts(cfg, NEGATIVE)
    if encoder is None:
        given = [name for name, texts in ((PROMPT, asked), (NEGATIVE, negative)) if texts is not None]
        if given:
            text = "is given, and the model is not trained with conditions=[text]; leave it out"
            raise ConfigError([Mistake(name, text) for name in given])
        return
    if asked is None:
        if compares(chosen) and len(model.cfg.conditions) == 1:
            text = "must be given, since guidance leads towards it; guidance=none makes samples without"
            raise ConfigError([Mistake(PROMPT, text)])
        if negative is not None:
            raise ConfigError([Mistake(NEGATIVE, "goes with prompt=TEXT")])
        return
    if negative is not None and not compares(chosen):
        text = "is what guidance leads away from; allowed with guidance=classifier_free guidance.scale=5"
        raise ConfigError([Mistake(NEGATIVE, text)])
    number = len(asked.texts)
    labels = [] if cfg.labels is None or isinstance(cfg.labels, int) else list(cfg.labels)
    for name, count in ((NEGATIVE, 0 if negative is None else len(negative.texts)), ("labels", len(labels))):
        if count > 1 and number > 1 and count != number:
            raise ConfigError([Mistake(name, f"has {count}, and prompt has {number}; allowed: as many, or one")])
    generator.requests = Prompts(generator.requests, asked, encoding(encoder, asked, negative), negative)


def request_captions(
    generator: SamplePipeline,
    samples: "OpenedSamples",
    split: str,
    encode: Encode,
    of_their_classes: bool = True,
) -> None:
    """Let a pipeline make samples of the captions of held-out ones: sample i of the first caption of the i-th.

    Args:
        generator: the pipeline; changed in place.
        samples: the captioned samples.
        split: which of the data's they are.
        encode: see `Prompts`.
        of_their_classes: whether they are of the classes of these too, where they have some; else of those that are
            requested already.

    Raises:
        UserError: when they have no captions.
    """
    if samples.captions is None:
        raise UserError("data: has no captions, on which the model is conditioned; take captioned data, or give prompt")
    labelled = of_their_classes and samples.class_names is not None
    others = OfGiven(samples.labels) if labelled else generator.requests
    record = {"split": split, "sha256": samples.digest}
    generator.requests = Prompts(others, Texts(FirstCaptions(samples.captions), record), encode)
