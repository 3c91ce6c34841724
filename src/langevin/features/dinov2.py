"""DINOv2."""

import textwrap
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from langevin.digest import digest_of
from langevin.errors import OptionError
from langevin.features.torch_fidelity import RESIZED, TorchFidelity
from langevin.features.weights import short_wait

REPOSITORY = "facebookresearch/dinov2"


class DINOv2(TorchFidelity):
    """DINOv2's embedding of images (Oquab et al. 2023, arXiv 2304.07193), by torch-fidelity.

    Outputs ``features`` alone: the class token, 384 to 1536 numbers by the model. The distance of Gaussians fitted to
    them goes better with people's judgement than FID does (Stein et al. 2023, arXiv 2306.04675).

    Network and weights come by torch hub, from its cache or the internet. The repository's code is run: it is
    Python, as are the pickles that it loads.

    Args:
        model: which one: small, base, large or giant.
    """

    name = "dinov2"
    preprocessing = f"{RESIZED.format(side=224)}, normalized as ImageNet's images"
    outputs: ClassVar[Mapping[str, str]] = {"features": "dinov2"}

    def __init__(
        self,
        model: Literal["dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14", "dinov2-vit-g-14"] = "dinov2-vit-l-14",
    ) -> None:
        super().__init__()
        self.model = model

    def load(self) -> nn.Module:
        """See `TorchFidelity`."""
        network = load_network("features.model", self.model)
        probe = network(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
        self.sizes = {key: output.shape[1] for key, output in zip(self.outputs, probe, strict=True)}
        self.sha256 = digest_of(network.model)
        self.name = f"{self.model}-{self.sha256[:8]}"
        return network


def load_network(option: str, model: str) -> Any:
    """torch-fidelity's network of uint8 images around DINOv2, which is its `model`, by torch hub.

    Args:
        option: what names the model, for messages.
        model: which one, see `DINOv2`.

    Raises:
        OptionError: when there is no such model, or torch hub does not give it.
    """
    from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA, FeatureExtractorDinoV2

    if model not in MODEL_METADATA:
        raise OptionError(option, f"is {model}; allowed: one of {', '.join(MODEL_METADATA)}")
    try:
        with short_wait():
            return FeatureExtractorDinoV2(model, list(DINOv2.outputs.values()))
    except Exception as error:  # a network that fails, or any code of the repository
        name = MODEL_METADATA[model]
        raise OptionError(
            option,
            f"is {model}, which torch hub does not give ({textwrap.shorten(str(error), 200)}); allowed without "
            f"internet: with {copy_of_code()}, and its weights, "
            f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth, in {torch.hub.get_dir()}/checkpoints",
        ) from error


def copy_of_code() -> str:
    """What torch hub runs, and where it looks for it, for messages."""
    return f"a copy of https://github.com/{REPOSITORY} at {torch.hub.get_dir()}/{REPOSITORY.replace('/', '_')}_main"
