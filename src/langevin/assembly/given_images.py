"""The images that `langevin sample` gives a model whose conditions are computed of images."""

from omegaconf import DictConfig

from langevin.assembly.conditioning import computes_columns
from langevin.assembly.hints import HintImages, open_hints
from langevin.assembly.inpainting import InpaintImages, open_inpaint
from langevin.assembly.low_res import LowResImages, SmallImages, open_low_res
from langevin.assembly.saved import Model
from langevin.errors import UserError


def open_given_images(
    cfg: DictConfig, model: Model, small: SmallImages | None = None
) -> list[LowResImages | InpaintImages | HintImages]:
    """The images of a sampling config for each condition of the model that is computed of images.

    Args:
        cfg: of the command.
        model: which takes them.
        small: those of the stage before, see `open_low_res`.

    Raises:
        UserError: when some are missing, do not suit the model, or cannot be given.
    """
    opened = (open_low_res(cfg, model, small), open_inpaint(cfg, model), open_hints(cfg, model))
    found = [each for each in opened if each is not None]
    names = [str(name) for name in model.cfg.get("conditions") or {} if computes_columns(model.cfg, str(name))]
    if len(names) > len(found):
        raise UserError(f"conditions=[{', '.join(names)}]: computed of images, which langevin sample cannot give them")
    return found
