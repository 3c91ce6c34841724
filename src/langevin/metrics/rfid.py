"""The Frechet Inception Distance of reconstructions."""

import numpy as np

from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.fid import FrechetDistance


class ReconstructionFrechetDistance(FrechetDistance):
    """FID of reconstructions against the very images that they reconstruct; lower is better.

    All else is `FrechetDistance`'s. Reported as ``rfid@N`` on the official Inception weights, else as
    ``rfd_<extractor>@N``, so that it is never taken for the FID of a generative model. The reference must be the
    targets: the convention of latent diffusion (Rombach et al. 2022, arXiv 2112.10752, table 8), which reconstructs the
    validation images of ImageNet and compares with these.

    Args:
        min_samples: refuse to work with fewer images than this, at least 2. None means the number of feature dimensions
            (2048 for Inception), below which a covariance is singular.
    """

    reports = ("rfid@N", "rfd_*@N")
    needs = ("target",)
    names = ("rfid", "rfd")

    def check(self, plan: Plan) -> None:
        """Refuse another reference than the targets, see the base class."""
        assert plan.target is not None, "needs"
        reference, targets = plan.reference.samples, plan.target.samples
        assert targets is not None
        if reference is not targets and (reference is None or not np.array_equal(reference, targets)):
            raise UserError(
                "metrics.rfid compares reconstructions with their targets, but the reference is another: leave out "
                "reference=... and data=..., or take metrics=[fid]"
            )
        super().check(plan)
