"""A small transformer over the words of a caption."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from langevin.errors import OptionError
from langevin.text.encoder import TEXT, Encoded
from langevin.text.words import PADDING, WordEncoder

STD = 0.02
"""Of the embeddings at the start, as GPT-2's and CLIP's."""


class LearnedTextEncoder(WordEncoder):
    """A transformer that is trained with the model, and needs nothing but the captions.

    Every word attends to all others of its caption (blocks with layer normalization first, Xiong et al. 2020), never to
    padding. It gives a token for each, and as the vector of the caption the token of its end.

    Args:
        vocabulary: the words of the training captions; all others are spelled by their bytes.
        length: of a caption, in ids: a word, or a byte of an unknown one; longer ones are cut, and their end is kept.
        width: of the tokens, and of the vector.
        depth: number of blocks.
        heads: of attention; divides the width.

    Raises:
        OptionError: when an option is out of range.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        length: int = 32,
        width: Annotated[int, Ge(1)] = 128,
        depth: Annotated[int, Ge(1)] = 2,
        heads: Annotated[int, Ge(1)] = 4,
    ) -> None:
        super().__init__(vocabulary, length, width)
        if width % heads:
            raise OptionError("heads", f"is {heads}; allowed: a divisor of the width, {width}")
        self.token_channels = self.pooled_channels = width
        self.positions = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=STD)
        nn.init.normal_(self.positions, std=STD)

    def forward(self, columns: Mapping[str, Tensor]) -> Encoded:
        """See `TextEncoder`."""
        ids = columns[TEXT]
        mask = ids != PADDING
        x = self.embedding(ids) + self.positions
        for block in self.blocks:
            x = block(x, mask[:, None, None])
        x = self.norm(x)
        ends = mask.sum(1) - 1
        return Encoded(x, mask, x[torch.arange(len(x), device=x.device), ends])


class _Block(nn.Module):
    """Self-attention, then two linear layers, each a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, L, width); mask (B, 1, 1, L) bool: which of them to attend to."""
        batch, length, width = x.shape
        parts = self.projection(self.norms[0](x)).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.output(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norms[1](x))
