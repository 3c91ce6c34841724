"""The interface of every network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from langevin.conditions.condition import Condition, Context
from langevin.errors import UserError
from langevin.taps import Tap

NOTHING_TO_ATTEND_TO = (
    "cross_attention",
    "is true, but there is no condition to attend to; add conditions=[class_label]",
)
"""The mistake of a network that is to attend to the tokens of a condition and has none, see `OptionError`."""


class Network(nn.Module, ABC):
    """A function of a noisy sample, its noise level and a condition.

    A network never sees a schedule: `c_noise` is the number by which the parameterization encodes the noise level.

    A network's constructor takes, beside its own parameters, the spec of the data as keywords: `in_channels`,
    `out_channels`, `condition` and, for images, `image_size`. It raises an `OptionError` that names everything
    incompatible, and is also built on the device "meta", to find that.

    Attributes:
        axes: how many axes follow the channels of its samples: 2 for images, 0 for vectors.
        condition: embeds what the network is conditioned on; None for an unconditional network.
        own_channels: how many channels it adds to x itself, before those of its condition.
        attends: whether it attends to the tokens that its condition gives; else it sees its vector alone.
        size_step: what divides heights and widths where it takes any such; None: it takes its `image_size` alone.
        adapter: what stands in the names of the weights that are trained, where all others are frozen and another
            run's; None: all are trained.
        default_tap: which of its taps stands for it where none is asked for; None without any.
    """

    axes: ClassVar[int] = 2
    own_channels: ClassVar[int] = 0
    attends: bool = False
    size_step: int | None = None
    adapter: str | None = None
    default_tap: str | None = None
    condition: Condition | None

    @abstractmethod
    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, C, *size), scaled to about unit variance by the caller.
            c_noise: (B,) floating point, which encodes each sample's noise level.
            cond: the condition of each sample, for instance `{"label": (B,) int64}` where -1 means "no label"; None
                means no condition for the whole batch. A network that was built without a condition ignores it.

        Returns:
            (B, C_out, *size).
        """

    @property
    def taps(self) -> Mapping[str, Tap]:
        """The places whose hidden features losses may look at, by their names; none unless overridden."""
        return {}

    @property
    def concat_channels(self) -> int:
        """How many channels it takes beside those of x, as its condition gives them."""
        return 0 if self.condition is None else self.condition.concat_channels

    def token_channels(self, dim: int) -> int | None:
        """The size of the tokens that it attends to, `dim` unless its condition says otherwise; None: to none."""
        if not self.attends:
            return None
        own = None if self.condition is None else self.condition.token_channels
        return dim if own is None else own

    def leave_out_tokens(self) -> None:
        """Have its condition give no tokens where it attends to none, see `Condition.leave_out_tokens`."""
        if self.condition is not None and not self.attends:
            self.condition.leave_out_tokens()

    def leave_out_transforms(self) -> None:
        """Keep of its condition what sampling has, see `Condition.sampled`."""
        if self.condition is not None:
            self.condition = self.condition.sampled()

    def started(self, taken: Collection[str]) -> None:
        """Complete a start from another run's weights.

        Args:
            taken: the names of the weights that were taken.
        """
        return

    def conditioned(self, x: Tensor, cond: Mapping[str, Tensor] | None) -> tuple[Tensor, Context]:
        """The input (B, C + concat_channels, *size), and what else there is of the condition.

        Raises:
            UserError: when the condition gives nothing but tokens, and the network attends to none.
        """
        context = Context() if self.condition is None else self.condition(cond, x.shape[0])
        for text in self.unattended() if context.tokens is not None and context.vector is None else ():
            raise UserError(f"conditions: {text}")
        if context.concat is None or self.concat_channels == 0:
            return x, context
        return torch.cat([x, context.concat.to(x)], dim=1), context

    def unsuited(self) -> list[str]:
        """What is wrong with its condition, for this network."""
        return self.unattended() if self.condition is not None and self.condition.tokens_only else []

    def unattended(self) -> list[str]:
        """What is wrong with conditions that give tokens alone, if it attends to none."""
        if self.attends:
            return []
        allowed = "a network that does, such as model=unet or model=dit_s with model.cross_attention=true"
        return [f"give tokens alone, to which {type(self).__name__} does not attend; allowed: {allowed}"]

    def null_condition(self, cond: Mapping[str, Tensor] | None) -> Mapping[str, Tensor] | None:
        """Give the unconditional counterpart of `cond`, of the same structure and shapes, for guidance.

        Args:
            cond: as in `forward`.

        Returns:
            `cond` with all that the network's condition reads at its null value, see `Condition.null`; None stays None.
        """
        return cond if cond is None or self.condition is None else self.condition.null(cond)

    def drop(self, cond: Mapping[str, Tensor], draw: Callable[[], Tensor]) -> Mapping[str, Tensor]:
        """Give `cond` after condition dropout, for training, see `Condition.drop`."""
        return cond if self.condition is None else self.condition.drop(cond, draw)
