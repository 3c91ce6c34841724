"""The images that `langevin sample` gives a model whose conditions are computed of images."""

from collections.abc import Sequence

from omegaconf import DictConfig
from torch import Tensor

from langevin.assembly.conditioning import computes_columns
from langevin.assembly.inpainting import InpaintImages, open_inpaint, show_inpainted
from langevin.assembly.low_res import LowResImages, open_low_res, show_low_res
from langevin.assembly.saved import Model
from langevin.errors import UserError
from langevin.images import Figure
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.inpaint import InpaintRequests
from langevin.samplers.low_res import LowResRequests


def open_given_images(cfg: DictConfig, model: Model) -> list[LowResImages | InpaintImages]:
    """The images of a sampling config for each condition of the model that is computed of images.

    Raises:
        UserError: when some are missing, do not suit the model, or cannot be given.
    """
    found = [each for each in (open_low_res(cfg, model), open_inpaint(cfg, model)) if each is not None]
    names = [str(name) for name in model.cfg.get("conditions") or {} if computes_columns(model.cfg, str(name))]
    if len(names) > len(found):
        raise UserError(f"conditions=[{', '.join(names)}]: computed of images, which langevin sample cannot give them")
    return found


def show_given(generator: SamplePipeline, made: Tensor, classes: Sequence[str] | None) -> Figure | None:
    """The first samples beside the images that they were made of; None where they were made of none.

    Args:
        generator: made them.
        made: as stored, (N, C, *size).
        classes: what each is labelled with; None: with nothing.
    """
    requests = generator.requests
    if isinstance(requests, InpaintRequests):
        return show_inpainted(generator, made, classes, requests)
    return show_low_res(generator, made, classes, requests) if isinstance(requests, LowResRequests) else None
