"""Requests by texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from langevin.conditions.text import NEGATIVE
from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.samplers.requests import Requests

COLUMN = "prompt"
"""The column of `Requests.cond` that says which of the prompts a sample has."""
Encode = Callable[[Sequence[str], torch.device | str], Mapping[str, Tensor]]
"""Gives the columns of n texts that a model's condition reads, (n, ...) each, computed on some device."""
KEPT = 1024
"""Encoded texts that are kept. Of more, a batch's are encoded when it is made."""


class Texts(NamedTuple):
    """Prompts, and what they are.

    Attributes:
        texts: at least one.
        record: as plain values for a protocol: the texts themselves, or their digest.
    """

    texts: Sequence[str]
    record: Any


class Prompts(Requests):
    """Other requests, and with sample i the prompt ``prompts[i % len(prompts)]``.

    Few texts are encoded together, once. Of many, those of a batch are, so that no process encodes those of the others.

    Args:
        requests: the others, such as labels.
        asked: the prompts.
        encode: encodes them.
        negative: what the samples are to be guided away from, by guidance that compares with a null condition; sample
            i has the negative prompt i, likewise in turn. None: the model's own null condition.
    """

    def __init__(
        self,
        requests: Requests,
        asked: Texts,
        encode: Encode,
        negative: Texts | None = None,
    ) -> None:
        self.requests = requests
        self.asked = asked
        self.encode = encode
        self.negative = negative
        self._kept: dict[str, dict[str, Tensor]] = {}
        texts = dict.fromkeys((*asked.texts, *(() if negative is None else negative.texts)))
        self._few = tuple(texts) if len(texts) <= KEPT else ()

    @property
    def prompts(self) -> Sequence[str]:
        """See `Requests`."""
        return self.asked.texts

    def cond(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Condition:
        """See `Requests`."""
        numbers = torch.tensor([index % len(self.asked.texts) for index in indices], device=device)
        return {**self.requests.cond(indices, device), COLUMN: numbers}

    def model_cond(
        self, denoiser: Denoiser, indices: Sequence[int], seed: int, device: torch.device | str
    ) -> Condition:
        """See `Requests`."""
        columns = dict(self.requests.model_cond(denoiser, indices, seed, device))
        columns |= self._columns(self.asked.texts, indices, device)
        if self.negative is not None:
            negative = self._columns(self.negative.texts, indices, device)
            columns |= {NEGATIVE + name: column for name, column in negative.items()}
        return columns

    def record(self) -> dict[str, Any]:
        """See `Requests`: with the prompts, or their digest."""
        negative = {} if self.negative is None else {"negative": self.negative.record}
        return {**self.requests.record(), "prompts": self.asked.record, **negative}

    def _columns(self, texts: Sequence[str], indices: Sequence[int], device: torch.device | str) -> dict[str, Tensor]:
        wanted = [texts[index % len(texts)] for index in indices]
        if new := [text for text in dict.fromkeys((*wanted, *self._few)) if text not in self._kept]:
            encoded = self.encode(new, device)
            self._kept |= {text: {name: encoded[name][row] for name in encoded} for row, text in enumerate(new)}
        rows = [self._kept[text] for text in wanted]
        for text in list(self._kept)[:-KEPT]:
            del self._kept[text]
        return {name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]}


def captions_of(requests: Requests, cond: Condition) -> list[str] | None:
    """The prompts of some samples, of which `Requests.cond` gave the columns; None where there are none."""
    if requests.prompts is None or COLUMN not in cond:
        return None
    return [requests.prompts[number] for number in cond[COLUMN].tolist()]
