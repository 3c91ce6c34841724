"""What an encoder computes of a run's captions, once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langevin.conditions.condition import Several
from langevin.conditions.hint import Hint
from langevin.conditions.text import Text
from langevin.data.captions import StoredTexts
from langevin.data.tokens import CaptionEncoder, encode_texts
from langevin.errors import UserError
from langevin.spec import DataSpec
from langevin.text.clip import CLIPTextEncoder
from langevin.text.encoder import TextEncoder
from langevin.text.frozen import FrozenTextEncoder

if TYPE_CHECKING:
    from langevin.assembly.saved import Model
    from langevin.data.module import DataModule  # imports Lightning, which conversion does without


def known_words(spec: DataSpec | None, initial: "Model | None") -> tuple[str, ...]:
    """The words of the captions, as far as they are known: of the data, else of the model that a run starts from."""
    known = [each.vocabulary for each in (spec, None if initial is None else initial.spec) if each is not None]
    return next((words for words in known if words is not None), ())


def conditions_on_text(network: nn.Module) -> list[Text]:
    """The conditions of a network that read captions."""
    return [part for part in network.modules() if isinstance(part, Text)]


def exported_encoder(network: nn.Module) -> FrozenTextEncoder | None:
    """The encoder that goes with a network to Stable Diffusion's layout; None where it sees no text.

    Raises:
        UserError: when its text is seen in another way than there.
    """
    if not conditions_on_text(network):
        return None
    whole = getattr(network, "condition", None)
    parts = [whole] if whole is None or not isinstance(whole, Several) else list(whole.parts)
    texts = [part for part in parts if isinstance(part, Text)]
    others = [part for part in parts if not isinstance(part, Text)]
    adapts = getattr(network, "adapter", None) is not None
    if len(texts) != 1 or len(others) > adapts or not all(isinstance(part, Hint) for part in others):
        allowed = "[text] alone, or [text,hint] with model.control=true, in diffusers' pipelines of text"
        raise UserError(f"conditions: are text beside others; allowed: {allowed}")
    [condition] = texts
    encoder = condition.encoder
    if not isinstance(encoder, CLIPTextEncoder) or encoder.mask:
        raise UserError("text: allowed: clip, with text.mask=false, in diffusers' pipelines of text")
    if not isinstance(condition.tokens, nn.Identity) or condition.pooled is not None:
        allowed = "conditions.text.project=false and conditions.text.pooled=false, in diffusers' pipelines of text"
        raise UserError(f"conditions.text: has layers of its own; allowed: {allowed}")
    return encoder


def empty_caption(network: nn.Module) -> dict[str, Tensor]:
    """Encode the empty caption, a network's null value.

    Returns:
        the entries of its state dict that hold it.

    Raises:
        UserError: when the encoder cannot be read.
    """
    found: dict[str, Tensor] = {}
    for place, part in network.named_modules():
        if isinstance(part, Text):
            part.set_null(part.encoder.prepare([""]))
            found |= {f"{place}.{name}": values for name, values in part.named_buffers(recurse=False)}
    return found


def encode_captions(networks: Iterable[nn.Module], data: "DataModule", device: torch.device) -> None:
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
        empty = encode_texts(data.cache_dir, "empty-caption", StoredTexts.of([""]), of_captions)
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
