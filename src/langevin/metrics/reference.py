"""What samples are compared with, and its features by an extractor: computed once, then kept on disk."""

import functools
import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from langevin.agreement import everywhere, is_distributed
from langevin.batches import Batches
from langevin.errors import UserError
from langevin.features.extractor import BATCH, FeatureExtractor
from langevin.files import write_atomically
from langevin.metrics.gathered import Gaussian, Moments, Rows
from langevin.metrics.neighbourhoods import Neighbourhoods

FORMAT = 1
"""Of what is kept on disk: a change of what the numbers mean must change it."""
CHUNK = 16 * BATCH
"""Images read at once."""
PUBLISHED = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""What files of statistics call the mean and the covariance of an output (pytorch-fid, clean-fid, EDM; ADM)."""


class Reference:
    """Samples, or statistics of samples that somebody else has gathered, or both.

    Args:
        samples: as stored, (N, *size, C), of images uint8; the same on every process; may be a memory map.
        labels: integers (N,), or None where they have no classes.
        published: the Gaussians of some outputs, as read from a file; they go before the images' own.
        extractor: the name of the extractor that `published` was gathered with; None where the file does not name it.
        sha256: of the file of `published`.

    Attributes:
        number: of reference samples; None where there are only statistics without their number.
        sha256: of the samples and their labels, or of the file.
    """

    def __init__(
        self,
        samples: NDArray[Any] | None,
        labels: NDArray[np.int64] | None = None,
        published: Mapping[str, Gaussian] | None = None,
        extractor: str | None = None,
        sha256: str | None = None,
    ) -> None:
        self.samples = samples
        self.labels = labels
        self.published = dict(published or {})
        self.extractor = extractor
        self._sha256 = sha256
        self._moments: dict[str, Gaussian] = {}
        self._rows: dict[str, Tensor] = {}
        self._neighbourhoods: dict[str, Neighbourhoods] = {}

    @property
    def number(self) -> int | None:
        """How many images there are, or were when the statistics were gathered."""
        if self.samples is not None:
            return len(self.samples)
        return next((gaussian.number for gaussian in self.published.values() if gaussian.number), None)

    @functools.cached_property
    def sha256(self) -> str:
        """Which images, or which file, by content."""
        if self._sha256 is not None:
            return self._sha256
        assert self.samples is not None
        digest = hashlib.sha256(repr(self.samples.shape).encode())
        for part in np.array_split(self.samples, -(-len(self.samples) // 1024)):
            digest.update(part.tobytes())
        if self.labels is not None:
            digest.update(self.labels.astype(np.int64).tobytes())
        return digest.hexdigest()

    def record(self) -> dict[str, Any]:
        """Its entry in a protocol."""
        return {"sha256": self.sha256, "number": self.number}

    def require_samples(self, metric: str) -> NDArray[Any]:
        """Its samples, for a metric that needs them.

        Raises:
            UserError: when there are statistics alone.
        """
        if self.samples is None:
            raise UserError(f"metrics.{metric} needs the reference's images, not statistics alone: drop it")
        return self.samples

    def require_labels(self, metric: str) -> NDArray[np.int64]:
        """The classes of its images, for a metric that needs them.

        Raises:
            UserError: when there are none.
        """
        if self.labels is None:
            raise UserError(f"metrics.{metric} needs class labels, the data has none: drop it or use labelled data")
        return self.labels

    def check(self, features: FeatureExtractor, moments_of: Collection[str], rows_of: Collection[str]) -> None:
        """Check that all this can be obtained from it.

        Raises:
            UserError: when there are no images for what was not published, or it was published of other features.
        """
        wanted = [output for output in moments_of if output in self.published]
        if wanted and self.extractor is None and not features.official:
            raise UserError(
                f"reference: holds statistics, of Inception's official weights as far as one can know, but the "
                f"features are {features.name}; give images, or statistics that were exported with these features"
            )
        if wanted and self.extractor is not None and self.extractor != features.name:
            raise UserError(
                f"reference: holds statistics of the features {self.extractor}, but these are {features.name}; give "
                "images, or choose those features"
            )
        for output in wanted:
            size = len(self.published[output].mean)
            if size != features.sizes[output]:
                raise UserError(
                    f"reference: holds statistics of {size} features, but {features.name} has {features.sizes[output]}"
                )
        lacking = {*moments_of, *rows_of} - set(wanted) | set(rows_of)
        if lacking and self.samples is None:
            raise UserError(
                f"reference: holds statistics alone ({', '.join(self.published)}), but the metrics ask for more of the "
                f"images ({', '.join(sorted(lacking))}); give images, or drop all but fid"
            )

    def gather(
        self,
        features: FeatureExtractor,
        moments_of: Collection[str],
        rows_of: Collection[str],
        device: torch.device,
        directory: Path,
    ) -> None:
        """Get the Gaussians of some outputs and every row of others: from `directory`, or by a pass over the images.

        Every process must call it, and passes its part of the images; afterwards every process has all results.

        Args:
            features: the extractor, its weights loaded, on `device`.
            moments_of: the outputs whose Gaussians are needed.
            rows_of: the outputs whose rows are needed.
            device: where.
            directory: where statistics are kept from run to run.

        Raises:
            UserError: when the features of some image are not finite.
        """
        self._moments |= {name: gaussian for name, gaussian in self.published.items() if name in moments_of}
        moments_of = [name for name in moments_of if name not in self._moments]
        rows_of = [name for name in rows_of if name not in self._rows]
        if not moments_of and not rows_of:
            return
        meaning = json.dumps([FORMAT, self.sha256, features.record()], sort_keys=True)
        folder = directory / hashlib.sha256(meaning.encode()).hexdigest()[:16]
        kept = {name: _read_moments(folder / f"{name}_moments.npz") for name in moments_of}
        kept_rows = {name: _read_rows(folder / f"{name}_rows.npy") for name in rows_of}
        if not everywhere(None not in [*kept.values(), *kept_rows.values()]):
            moments = {name: Moments(features.sizes[name]).to(device) for name in moments_of}
            rows = {name: Rows(features.sizes[name]).to(device) for name in rows_of}
            self._pass(features, moments, rows, device)
            kept = {name: metric.compute() for name, metric in moments.items()}
            kept_rows = {name: metric.compute().cpu() for name, metric in rows.items()}
            if int(os.environ.get("LOCAL_RANK", "0")) == 0:
                _keep(folder, kept, kept_rows)
        self._moments |= {name: gaussian for name, gaussian in kept.items() if gaussian is not None}
        self._rows |= {name: tensor for name, tensor in kept_rows.items() if tensor is not None}
        for name in [*kept_rows, *kept]:
            self._require_finite(name, features)

    def moments(self, output: str) -> Gaussian:
        """The Gaussian of an output, on any device; `gather` comes first."""
        return self._moments[output]

    def rows(self, output: str) -> Tensor:
        """An output of each image, in the images' order, on the CPU: float32 (N, D); `gather` comes first."""
        return self._rows[output]

    def neighbourhoods(self, output: str) -> Neighbourhoods:
        """The neighbourhoods of an output's rows, one for all metrics; `gather` comes first."""
        if output not in self._neighbourhoods:
            self._neighbourhoods[output] = Neighbourhoods(self.rows(output))
        return self._neighbourhoods[output]

    def _require_finite(self, output: str, features: FeatureExtractor) -> None:
        """Refuse an output that no distance can be measured of; of rows it is known whose it is."""
        which = f"some of its {self.number:,} images"
        if output in self._rows:
            finite = torch.cat([rows.isfinite().all(1) for rows in self._rows[output].split(CHUNK)])
            which = f"image {int(finite.int().argmin())} of its {self.number:,}, counted from 0,"
        else:
            finite = self._moments[output].mean.isfinite()
        if not finite.all():
            raise UserError(
                f"reference: the {output} of {which} by {features.name} are not finite; leave such images out, or "
                "choose other features"
            )

    def _pass(
        self,
        features: FeatureExtractor,
        moments: Mapping[str, Moments],
        rows: Mapping[str, Rows],
        device: torch.device,
    ) -> None:
        assert self.samples is not None
        rank, world = (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)
        for indices in Batches(len(self.samples), CHUNK, rank, world, "reference"):
            # Copied, because torch must not share memory with a read-only memory map.
            batch = torch.from_numpy(np.array(self.samples[indices.start : indices.stop])).movedim(-1, 1)
            outputs = features(batch.to(device))
            index = torch.tensor(indices)
            for name, gathered in moments.items():
                gathered.update(outputs[name])
            for name, ordered in rows.items():
                ordered.update(outputs[name], index)


def read_statistics(path: str) -> Reference | None:
    """The reference that an .npz file of statistics holds; None where the file holds none.

    Read are ``mu`` and ``sigma`` (pytorch-fid, clean-fid, EDM), ADM's ``mu_s`` and ``sigma_s`` of spatial features and
    its images ``arr_0``, and the name of the extractor and the number of images that `write_statistics` adds.

    Raises:
        UserError: when it cannot be read, or the shapes do not fit.
    """
    file = Path(path).expanduser()
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if "mu" not in arrays:
                return None
            content = file.read_bytes()
            number = int(arrays["number"]) if "number" in arrays else 0
            published = {}
            for output, (mean, covariance) in PUBLISHED.items():
                if mean in arrays:
                    mu, sigma = (torch.from_numpy(arrays[name].astype(np.float64)) for name in (mean, covariance))
                    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
                        raise ValueError(f"{mean} is of shape {tuple(mu.shape)}, {covariance} of {tuple(sigma.shape)}")
                    if not (mu.isfinite().all() and sigma.isfinite().all()):
                        raise ValueError(f"{mean} or {covariance} holds numbers that are not finite")
                    published[output] = Gaussian(number, mu, sigma)
            extractor = str(arrays["extractor"]) if "extractor" in arrays else None
            images = arrays.get("arr_0")
            labels = arrays["arr_1"].astype(np.int64) if "arr_1" in arrays else None
    except (OSError, ValueError, TypeError, OverflowError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"reference={path}: cannot be read as an .npz file of images or statistics ({error})"
        ) from error
    return Reference(images, labels, published, extractor, hashlib.sha256(content).hexdigest())


def write_statistics(path: Path, reference: Reference, features: FeatureExtractor, outputs: Collection[str]) -> None:
    """Write the Gaussians of some outputs as pytorch-fid, clean-fid, EDM and ADM read them, and whose they are.

    Raises:
        OSError: when it cannot be written; an old file is then as it was.
    """
    arrays: dict[str, Any] = {"extractor": features.name}
    for output in outputs:
        gaussian = reference.moments(output)
        mean, covariance = PUBLISHED[output]
        arrays |= {mean: gaussian.mean.cpu().numpy(), covariance: gaussian.covariance.cpu().numpy()}
        arrays["number"] = gaussian.number
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def _keep(folder: Path, moments: Mapping[str, Gaussian | None], rows: Mapping[str, Tensor | None]) -> None:
    try:
        for name, gaussian in moments.items():
            if gaussian is not None:
                write_atomically(
                    folder / f"{name}_moments.npz",
                    functools.partial(
                        np.savez,
                        number=gaussian.number,
                        mean=gaussian.mean.cpu().numpy(),
                        covariance=gaussian.covariance.cpu().numpy(),
                    ),
                )
        for name, tensor in rows.items():
            if tensor is not None:
                write_atomically(folder / f"{name}_rows.npy", functools.partial(np.save, arr=tensor.numpy()))
    except OSError as error:  # the values are right all the same
        warnings.warn(f"the reference's statistics cannot be kept for the next run: {error}", stacklevel=2)


def _read_moments(path: Path) -> Gaussian | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance = (torch.from_numpy(arrays[name]) for name in ("mean", "covariance"))
            return Gaussian(int(arrays["number"]), mean, covariance)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # absent, or damaged: made anew
        return None


def _read_rows(path: Path) -> Tensor | None:
    try:
        # Mapped, and copied where it is written to, which nobody does: torch wants no read-only memory.
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
