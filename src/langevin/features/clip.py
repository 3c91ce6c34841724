"""The image half of CLIP."""

import io
import warnings
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import nn

from langevin.errors import UserError
from langevin.features.torch_fidelity import RESIZED, FromFile
from langevin.features.weights import Published


class CLIP(FromFile):
    """CLIP's embedding of images (Radford et al. 2021, arXiv 2103.00020), by torch-fidelity.

    Outputs ``features`` alone: the embedding, 512 to 1024 numbers by the model, not normalized. It is for distances
    that, unlike FID, do not rest on the classes of ImageNet (Kynkäänniemi et al. 2023, arXiv 2203.06026).

    Args:
        model: which one is taken from torch hub's cache, or downloaded there, where `weights` is None.
        weights: path of one of OpenAI's files, or of another TorchScript archive that holds a CLIP. Only its tensors
            are used; still, opening such an archive may run code, so take it only from a source you trust.
    """

    name = "clip"
    outputs: ClassVar[Mapping[str, str]] = {"features": "clip"}
    kind = "a TorchScript archive of CLIP"
    otherwise = "or take other features"

    def __init__(
        self,
        model: Literal[
            "clip-rn50",
            "clip-rn101",
            "clip-rn50x4",
            "clip-rn50x16",
            "clip-rn50x64",
            "clip-vit-b-32",
            "clip-vit-b-16",
            "clip-vit-l-14",
            "clip-vit-l-14-336px",
        ] = "clip-vit-b-32",
        weights: str | None = None,
    ) -> None:
        super().__init__(weights)
        self.model = model

    @property
    def published(self) -> Published:
        """OpenAI's."""
        from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS

        sha256 = MODEL_METADATA[self.model]["hash"]
        return Published(MODEL_URLS[self.model], f"{self.model}-{sha256}.pt", sha256)

    def build(self, data: bytes) -> nn.Module:
        """See `FromFile`."""
        from torch_fidelity.feature_extractor_clip import MODEL_METADATA, FeatureExtractorCLIP

        of_openai = {metadata["hash"]: model for model, metadata in MODEL_METADATA.items()}
        model = of_openai.get(self.sha256)
        if model not in (None, self.model):
            raise UserError(f"features.model={self.model}: these weights are those of {model}; name that")
        with warnings.catch_warnings(action="ignore"):  # torch reports that TorchScript is deprecated
            network = FeatureExtractorCLIP(
                self.model, list(self.outputs.values()), feature_extractor_weights_path=io.BytesIO(data)
            )
        self.sizes = {"features": network.model.visual.output_dim}
        self.preprocessing = f"{RESIZED.format(side=network.resolution)}, normalized as CLIP's images"
        self.name = f"{model or 'clip'}-{self.sha256[:8]}"
        return network
