"""Smaller images: by a whole number."""

import math

from langevin.errors import OptionError
from langevin.restoration.operators.operator import sides


def divided(shape: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """The shape (C, H / factor, W / factor) of images (C, H, W).

    Raises:
        OptionError: when the factor does not divide both sides.
        UserError: when the samples are no images.
    """
    height, width = sides(shape)
    if height % factor or width % factor:
        common = math.gcd(height, width)
        allowed = ", ".join(str(each) for each in range(2, common + 1) if common % each == 0)
        of = f"for images of {height} x {width} pixels"
        raise OptionError("factor", f"is {factor}; allowed {of}: {allowed or 'none, their sides share no divisor'}")
    return shape[0], height // factor, width // factor
