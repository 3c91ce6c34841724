"""The Inception network of FID and Inception Score."""

import hashlib
import io
import socket
import textwrap
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from langevin.errors import UserError
from langevin.metrics.features import FeatureExtractor

OFFICIAL_SHA256_PREFIX = "6726825d"
"""Of torch-fidelity's conversion of the TensorFlow weights of 2015-12-05; torch hub verifies by the same prefix."""

CONNECTION_SECONDS = 5.0
"""How long a download waits for an answer: short, so that a machine without internet says so at once."""


class Inception(FeatureExtractor):
    """Inception-v3 as FID defines it, by torch-fidelity: TensorFlow 1's resize to 299, then ``(x - 128) / 128``.

    Outputs ``features``, the 2048 pooled activations (FID: Heusel et al. 2017, arXiv 1706.08500), and ``logits``, the
    1008 class logits without bias (Inception Score: Salimans et al. 2016, arXiv 1606.03498).

    Args:
        weights: path of a state dict of torch-fidelity's ``FeatureExtractorInceptionV3``. None takes the official file
            from torch hub's cache, downloading it there first when it is absent.
    """

    sizes: ClassVar[Mapping[str, int]] = {"features": 2048, "logits": 1008}

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.name = "inception"
        self.network: nn.Module | None = None

    def prepare(self) -> None:
        """Load the network, see the base class.

        Raises:
            UserError: when the file is absent and cannot be downloaded, or does not hold this network.
        """
        if self.network is not None:
            return
        path = self._cached() if self.weights is None else Path(self.weights).expanduser()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"features.weights={self.weights}: cannot be read ({error.strerror}): give the path of an Inception "
                "state dict, or null for the official weights"
            ) from error
        try:
            self.network = _load(data)
        except Exception as error:  # a foreign file can raise anything
            mend = "delete it, so that it is downloaded again" if self.weights is None else "give the path of one"
            raise UserError(
                f"features.weights={self.weights}: the file {path} is not a state dict of torch-fidelity's FID "
                f"Inception ({textwrap.shorten(str(error), 120)}): {mend}"
            ) from error
        sha256 = hashlib.sha256(data).hexdigest()
        self.official = sha256.startswith(OFFICIAL_SHA256_PREFIX)
        self.name = f"inception-{sha256[:8]}"

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Compute ``features`` (B, 2048) and ``logits`` (B, 1008) of uint8 images (B, 3, H, W)."""
        assert self.network is not None, "prepare() comes first"
        features, logits = self.network(images)
        return {"features": features, "logits": logits}

    @staticmethod
    def _cached() -> Path:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]
        if path.exists():
            return path
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(CONNECTION_SECONDS)  # torch hub offers no timeout of its own
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=OFFICIAL_SHA256_PREFIX)
        except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another sha256
            raise UserError(
                f"features.weights=null: Inception's weights are not cached at {path} and could not be downloaded "
                f"({error}): give features.weights=PATH (a copy of {URL_INCEPTION_V3}) or drop the metrics that use "
                "them (all but class_accuracy)"
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)
        return path


def _load(data: bytes) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # torch-fidelity unpickles without restriction: the same bytes must first pass as plain tensors.
    torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):  # its initial weights must not move the run's random numbers
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=io.BytesIO(data)
        )
