"""The exponential moving average (EMA) of the network's weights, from which samples are drawn."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from langevin.errors import OptionError

WIDTH = "ema_width"
"""The option of the commands, and the parameter of `langevin.load`, that asks for another EMA of a trained run."""


class EMA(nn.Module, ABC):
    """Holds the EMA copy of a network: ``ema = decay * ema + (1 - decay) * weights`` after every step.

    Lightning's `EMAWeightAveraging` and torch's `AveragedModel` are not used: they copy the whole module, know only a
    fixed decay, swap weights in place around validation, and read a counter back from the device at every step.

    Args:
        network: the network to average; it is copied.

    Attributes:
        network: the copy with the EMA weights that are validated and sampled from.
        snapshot_every: the optimizer steps between two snapshots, see `snapshot`; None: it has none.
    """

    snapshot_every: int | None = None

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All copies that it keeps, the one to sample from first."""
        return (self.network,)

    @abstractmethod
    def decay(self, step: int, batch_size: int) -> float:
        """The decay at optimizer step `step` (1 is the first), each of `batch_size` images; in [0, 1]."""

    @torch.no_grad()
    def update(self, network: nn.Module, step: int, batch_size: int) -> None:
        """Update the EMA weights from `network` by one step.

        Its frozen weights are those of the EMA already; its buffers (batch norm's) are copied as they are.
        """
        average(self.network, network, self.decay(step, batch_size))

    def snapshot(self) -> dict[str, Tensor]:
        """What is stored every `snapshot_every` steps, by names; it may be sharded."""
        return {}

    def post_hoc(self, width: float, step: int, held: Mapping[str, Tensor], run_dir: Path) -> dict[str, Tensor]:
        """The weights of an EMA of another width than that of `network`, after training.

        Args:
            width: the standard deviation of the averaged steps, as a fraction of `step`.
            step: the optimizer step that a checkpoint stands at.
            held: this module's state in it.
            run_dir: the run's folder, which holds the snapshots.

        Returns:
            the weights that were trained, by their names in the network.

        Raises:
            UserError: when there is no such EMA.
        """
        raise OptionError(WIDTH, f"is {width}; allowed: null, since the run was not trained with ema=power")


def average(averages: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the trained weights of a copy, ``decay * copy + (1 - decay) * network``; its buffers are the network's."""
    pairs = zip(averages.parameters(), network.parameters(), strict=True)
    trained = [(kept, weight) for kept, weight in pairs if weight.requires_grad]
    torch._foreach_lerp_([kept for kept, _ in trained], [weight for _, weight in trained], 1 - decay)
    for kept, buffer in zip(averages.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)


class StepEMA(EMA):
    """An EMA over optimizer steps, as DDPM and most codes keep it.

    Args:
        network: the network to average.
        max_decay: the final decay, in [0, 1); 0 keeps no EMA at all.
        warm_up: start with a short memory, ``decay = min(max_decay, (1 + step) / (10 + step))``, so that the random
            initial weights are soon forgotten.

    Raises:
        UserError: when max_decay leaves [0, 1).
    """

    def __init__(self, network: nn.Module, max_decay: float = 0.9999, warm_up: bool = True) -> None:
        if not 0 <= max_decay < 1:
            raise OptionError("max_decay", f"is {max_decay}; allowed: 0 (no EMA) up to, not including, 1")
        super().__init__(network)
        self.max_decay = max_decay
        self.warm_up = warm_up

    def decay(self, step: int, batch_size: int) -> float:
        """See `EMA`."""
        return min(self.max_decay, (1 + step) / (10 + step)) if self.warm_up else self.max_decay


class ImageEMA(EMA):
    """An EMA over images, independent of the batch size. Source: EDM (Karras et al. 2022), appendix F.

    Args:
        network: the network to average.
        half_life: after how many images the contribution of old weights has halved; above 0.
        ramp_up: the half-life is at most this fraction of the images seen so far, so that the start is soon forgotten;
            0 for none.

    Raises:
        UserError: when an argument leaves its range.
    """

    def __init__(self, network: nn.Module, half_life: float = 500_000, ramp_up: float = 0.05) -> None:
        if half_life <= 0:
            raise OptionError("half_life", f"is {half_life}; allowed: above 0 images")
        if ramp_up < 0:
            raise OptionError("ramp_up", f"is {ramp_up}; allowed: at least 0 (0 is no ramp-up)")
        super().__init__(network)
        self.half_life = half_life
        self.ramp_up = ramp_up

    def decay(self, step: int, batch_size: int) -> float:
        """See `EMA`."""
        half_life = self.half_life
        if self.ramp_up > 0:
            half_life = min(half_life, self.ramp_up * step * batch_size)
        return float(0.5 ** (batch_size / half_life))
