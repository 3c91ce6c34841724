"""Captions."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from langevin.conditions.condition import Condition, Context
from langevin.errors import OptionError
from langevin.text.encoder import COLUMNS, TextEncoder

NEGATIVE = "negative_"
"""What the names of a negative prompt's columns begin with: what guidance leads away from."""


class Text(Condition):
    """A caption of each sample, by an encoder of text: its tokens, and one vector of the whole.

    In training, captions are replaced by the empty one at random (`drop`), as labels are by `ClassLabel`. The columns
    of the empty caption are kept with the weights, so that a model can be sampled without its encoder.

    Args:
        text: the encoder. One that is trained with the model has its weights here.
        dropout: probability that a caption is dropped in training; 0 where guidance is not wanted.
        pooled: whether the vector of the whole caption is given beside its tokens; Stable Diffusion gives none.
        project: whether tokens go through a linear layer to the size that the network takes; false hands them on as the
            encoder gives them, to a network that projects them itself, as Stable Diffusion's.
        dim: that size; handed in by the network.

    Attributes:
        token_channels: the size of the tokens that it gives; None: it gives none.
        tokens_only: whether it gives nothing but tokens.

    Raises:
        OptionError: when nothing would be given.
    """

    inputs = frozenset(COLUMNS)

    def __init__(
        self,
        text: TextEncoder,
        dropout: Annotated[float, Ge(0), Le(1)],
        dim: Annotated[int, Ge(1)],
        pooled: bool = True,
        project: bool = True,
    ) -> None:
        super().__init__()
        channels, size = text.token_channels, text.pooled_channels if pooled else None
        if channels is None and size is None:
            raise OptionError("pooled", "is false; allowed: true, since this encoder gives no tokens")
        self.encoder = text
        self.encoding = text.function
        self.dropout = dropout
        self.inputs = frozenset(text.columns)
        self.tokens = None if channels is None else nn.Linear(channels, dim) if project else nn.Identity()
        self.token_channels = None if channels is None else dim if project else channels
        self.tokens_only = size is None
        self.pooled = None if size is None else nn.Linear(size, dim)
        for name, (shape, dtype) in text.columns.items():
            self.register_buffer(_null(name), torch.zeros(shape, dtype=dtype))
        if not text.cached:
            self.set_null(text.prepare([""]))

    def leave_out_tokens(self) -> None:
        """See `Condition`."""
        if not self.tokens_only:
            self.tokens = self.token_channels = None

    def set_null(self, columns: Mapping[str, Tensor]) -> None:
        """Set the null value: the columns of the empty caption, of one row each.

        Those of an encoder whose `prepare` is expensive are set where a model is trained, and come from the checkpoint
        where one is loaded.
        """
        for name in self.inputs:
            self.get_buffer(_null(name)).copy_(columns[name][0])

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """Embed the encoder's columns, each (B, *row); None: the empty caption for all.

        Returns:
            the tokens with their mask, and the vector, as far as the encoder gives them.
        """
        nulls = {name: self.get_buffer(_null(name)) for name in self.inputs}
        columns = {
            name: null.expand(batch, *null.shape) if cond is None else cond[name].to(null.device)
            for name, null in nulls.items()
        }
        tokens, mask, pooled = self.encoder(columns)
        return Context(
            vector=_through(self.pooled, pooled),
            tokens=_through(self.tokens, tokens),
            mask=None if self.tokens is None else mask,
        )

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: every caption becomes the empty one, or the negative prompt where there is one."""
        nulls = {}
        for name in self.inputs:
            null, values = self.get_buffer(_null(name)), cond[name]
            empty = null.to(values).expand_as(values)
            nulls[name] = cond.get(NEGATIVE + name, empty)
        return {**cond, **nulls}


def _through(layer: nn.Module | None, values: Tensor | None) -> Tensor | None:
    """Values through a layer, in its type; None where there is no layer."""
    if layer is None or values is None:
        return None
    embedded: Tensor = layer(values.to(layer.weight.dtype) if isinstance(layer, nn.Linear) else values)
    return embedded


def _null(column: str) -> str:
    return f"null_{column}"
