"""The Frechet distance of spatial features."""

from langevin.metrics.fid import FrechetDistance


class SpatialFrechetDistance(FrechetDistance):
    """FID over spatial features, which keep their position in the image and so its layout; lower is better.

    Nash et al. 2021 (arXiv 2103.03841), by the extractor's output ``spatial``; all else is
    `FrechetDistance`'s. Reported as ``sfid@N`` on the official Inception weights, else as ``sfd_<extractor>@N``.

    Args:
        min_samples: refuse to work with fewer samples or fewer reference images than this, at least 2. None means the
            number of feature dimensions (2023 for Inception), below which a covariance is singular.
    """

    reports = ("sfid@N", "sfd_*@N")
    reads = ("spatial",)
    moments_of = ("spatial",)
    names = ("sfid", "sfd")
