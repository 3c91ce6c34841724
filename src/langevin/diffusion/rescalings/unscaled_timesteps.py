"""The number of the step as the network's time."""

from torch import Tensor

from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.schedules.wrapped import Wrapped
from langevin.errors import UserError


class UnscaledTimesteps(Wrapped):
    """The network receives the number of the step, 0 to T - 1, whatever T is, instead of a time on the scale 0..1000.

    All of diffusers' networks were trained so, and guided-diffusion's by default (`rescale_timesteps` False there). At
    T = 1000 it changes nothing. A parameterization that does not show the network the time, `edm`, is not affected.

    Args:
        schedule: the schedule without it.

    Raises:
        UserError: when the schedule has no steps.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        if schedule.num_steps is None:
            raise UserError("needs a schedule with discrete steps, whose number the network receives")

    def clock(self, t: Tensor) -> Tensor:
        """See `Schedule`: ``t - 1``."""
        return t - 1
