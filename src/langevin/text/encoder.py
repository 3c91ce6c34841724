"""The interface of every encoder of text."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

TEXT, MASK, POOLED = COLUMNS = "text", "text_mask", "text_pooled"
"""The columns that an encoder may give: token ids or token embeddings, which of these hold text, and one vector."""

Rows = tuple[tuple[int, ...], torch.dtype]
"""The shape of a column's row, and its type."""


class Encoded(NamedTuple):
    """Captions as a network is given them; each entry may be absent.

    Attributes:
        tokens: an embedding of each token, (B, L, token_channels).
        mask: (B, L) bool: the tokens to attend to; None: all of them, padding too.
        pooled: one embedding of the whole caption, (B, pooled_channels).
    """

    tokens: Tensor | None = None
    mask: Tensor | None = None
    pooled: Tensor | None = None


class TextEncoder(nn.Module, ABC):
    """Encodes captions in two steps: columns, which need no gradient and are computed once, and what a network sees.

    A frozen encoder's `prepare` is the whole encoder, and `forward` hands its result on. One that is trained with the
    model gives token ids, and its weights stand in `forward`.

    A constructor may take the data's `vocabulary`, beside its own parameters. Building one reads no weights.

    Attributes:
        columns: what `prepare` gives, among `COLUMNS`, with the shape and type of a row.
        token_channels: the size of `Encoded.tokens`; None: it gives none.
        pooled_channels: the size of `Encoded.pooled`; None: it gives none.
        cached: whether `prepare` is expensive, so that its results are worth a file.
        function: tells what `prepare` computes from what others do: its kind, its options, and the digests of its
            weights and of its tokenizer or vocabulary.
    """

    columns: Mapping[str, Rows]
    token_channels: int | None = None
    pooled_channels: int | None = None
    cached: bool = False
    function: str

    @classmethod
    def found(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """What a config is to record of the files that its options name, such as a digest, by further options.

        Args:
            options: those of the config.

        Raises:
            UserError: when the files are missing, or another encoder's.
        """
        return {}

    @abstractmethod
    def prepare(self, captions: Sequence[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The columns of some captions, each with a row a caption, on the CPU.

        Any text has one: what is longer than the encoder's length is cut, and its end is marked all the same.

        Args:
            captions: N of them, of which N may be 0.
            device: where it is computed.

        Raises:
            UserError: when the encoder's files or package are missing, or the files are other ones than recorded.
        """

    @abstractmethod
    def forward(self, columns: Mapping[str, Tensor]) -> Encoded:
        """What a network is given of the captions with these columns, each (B, *row), on the encoder's device."""

    def release(self) -> None:
        """Free what `prepare` has loaded, until it is called again."""
        return
