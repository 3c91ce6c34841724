"""What an encoder computes of a run's captions, once."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from langevin.conditions.text import Text
from langevin.data.captions import Texts
from langevin.data.module import DataModule
from langevin.data.tokens import CaptionEncoder, encode_texts
from langevin.text.encoder import TextEncoder


def conditions_on_text(network: nn.Module) -> list[Text]:
    """The conditions of a network that read captions."""
    return [part for part in network.modules() if isinstance(part, Text)]


def encode_captions(networks: Iterable[nn.Module], data: DataModule, device: torch.device) -> None:
    """Have batches hold what networks read of captions, and set the networks' null values, the empty caption.

    What a frozen encoder computes is computed once, by one process, and kept beside the decoded images.

    Args:
        networks: alike: the one to be trained, and the one that holds its EMA weights.
        data: opened.
        device: where a frozen encoder runs.

    Raises:
        UserError: when the data has no captions, the encoder cannot be read, or its results cannot be written.
        Interrupted: once a signal has come.
    """
    conditions = [part for network in networks for part in conditions_on_text(network)]
    if not conditions:
        return
    encoder = conditions[0].encoder
    of_captions = caption_encoder(encoder, device)
    data.tokenize(of_captions)
    if encoder.cached:
        empty = encode_texts(data.cache_dir, "empty-caption", Texts.of([""]), of_captions)
        for part in conditions:
            part.set_null(empty.batch(np.zeros(1, np.int64)))
    encoder.release()


def caption_encoder(encoder: TextEncoder, device: torch.device | str) -> CaptionEncoder:
    """An encoder as the data takes it: of captions to rows of numbers."""

    def encode(captions: Sequence[str]) -> Mapping[str, NDArray]:
        return {name: rows.numpy() for name, rows in encoder.prepare(captions, device).items()}

    # A type of torch's and of NumPy's has the same name.
    columns = {
        name: (shape, np.dtype(str(dtype).removeprefix("torch."))) for name, (shape, dtype) in encoder.columns.items()
    }
    return CaptionEncoder(encoder.function, columns, encoder.cached, encode)
