"""The mean of the words of a caption."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from langevin.text.encoder import TEXT, Encoded
from langevin.text.words import PADDING, WordEncoder


class BagTextEncoder(WordEncoder):
    """A learned vector for each word, and their mean for a caption: what it says, and not in which order.

    It gives one vector, no tokens. The beginning and the end count as words, so that the empty caption has one too.

    Args:
        vocabulary: the words of the training captions; all others are spelled by their bytes.
        length: of a caption, in ids: a word, or a byte of an unknown one; longer ones are cut.
        width: of the vector.
    """

    def __init__(self, vocabulary: Sequence[str], length: int = 32, width: Annotated[int, Ge(1)] = 128) -> None:
        super().__init__(vocabulary, length, width)
        self.pooled_channels = width

    def forward(self, columns: Mapping[str, Tensor]) -> Encoded:
        """See `TextEncoder`."""
        ids = columns[TEXT]
        words = self.embedding(ids)
        counted = (ids != PADDING)[..., None].to(words)
        return Encoded(pooled=(counted * words).sum(1) / counted.sum(1))
