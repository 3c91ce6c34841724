"""The Inception network of FID and Inception Score."""

import io
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from langevin.features.torch_fidelity import RESIZED, FromFile
from langevin.features.weights import Published

OFFICIAL_SHA256_PREFIX = "6726825d"
"""Of torch-fidelity's conversion of the TensorFlow weights of 2015-12-05; torch hub verifies by the same prefix."""

SPATIAL_CHANNELS = 7
"""So few that 17 x 17 of each are about as many numbers, 2023, as FID's features."""


class Inception(FromFile):
    """Inception-v3 as FID defines it, by torch-fidelity: TensorFlow 1's resize to 299, then ``(x - 128) / 128``.

    Outputs:

    - ``features``, the 2048 pooled activations (FID: Heusel et al. 2017, arXiv 1706.08500);
    - ``logits``, the 1008 class logits without bias (Inception Score: Salimans et al. 2016, arXiv 1606.03498);
    - ``spatial``, the first 7 channels of TensorFlow's tensor ``mixed_6/conv:0``, at each of 17 x 17 places: 2023
      numbers in the order row, column, channel, which is that of ADM's published statistics (sFID: Nash et al. 2021,
      arXiv 2103.03841, with the layer that ADM's evaluator takes).

    Args:
        weights: path of a state dict of torch-fidelity's ``FeatureExtractorInceptionV3``. None takes the official file
            from torch hub's cache, downloading it there first when it is absent.
    """

    name = "inception"
    sizes: Mapping[str, int] = {"features": 2048, "logits": 1008, "spatial": 17 * 17 * SPATIAL_CHANNELS}
    preprocessing = f"{RESIZED.format(side=299)}, (x - 128) / 128"
    outputs: ClassVar[Mapping[str, str]] = {"features": "2048", "logits": "logits_unbiased"}
    kind = "a state dict of torch-fidelity's FID Inception"
    otherwise = "take features=classifier, or drop the metrics that use them, such as fid"

    def __init__(self, weights: str | None = None) -> None:
        super().__init__(weights)

    @property
    def published(self) -> Published:
        """Torch-fidelity's release."""
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        return Published(URL_INCEPTION_V3, URL_INCEPTION_V3.rsplit("/", 1)[1], OFFICIAL_SHA256_PREFIX)

    def build(self, data: bytes) -> nn.Module:
        """See `FromFile`."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # torch-fidelity unpickles without restriction: the same bytes must first pass as plain tensors.
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", list(self.outputs.values()), feature_extractor_weights_path=io.BytesIO(data)
        )
        # By torch-fidelity's own conversion (util_convert_inception_weights.py) this is mixed_6/conv.
        network.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)
        self.official = self.sha256.startswith(OFFICIAL_SHA256_PREFIX)
        self.name = f"inception-{self.sha256[:8]}"
        return network

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Compute ``features`` (B, 2048), ``logits`` (B, 1008) and ``spatial`` (B, 2023), see the base class."""
        outputs = super().extract(images)
        outputs["spatial"] = self._spatial
        return outputs

    def _keep_spatial(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._spatial = output[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
