"""What is done to samples between a sampler's steps."""

from torch import Tensor


class Walk:
    """A sampler's way from noise to data: the times it visits, and what is done between its steps."""

    def times(self, own: Tensor) -> Tensor:
        """The times that are visited in place of a sampler's own, float64 (steps + 1,), which may also rise."""
        return own

    def after(self, x_s: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """What takes the place of the samples x_s (B, ...) that a step from t to s < t has led to, both ()."""
        return x_s
