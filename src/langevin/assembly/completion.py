"""What a training config is completed by; imports no Lightning."""

from omegaconf import DictConfig

from langevin.assembly.auxiliaries import complete as complete_auxiliaries
from langevin.assembly.check import tasked
from langevin.assembly.codec_run import complete as complete_codec
from langevin.assembly.init_run import find_initial
from langevin.assembly.saved import Model
from langevin.assembly.text_files import complete as complete_text
from langevin.config.validate import Mistake, unresolved
from langevin.diffusion.auxiliary import Teacher


def complete(cfg: DictConfig, teachers: dict[str, Teacher]) -> tuple[Model | None, list[Mistake]]:
    """Write into a config what the runs and files are that it names: digests of their weights, sizes, and the like.

    These are the run of its codec, the files of its text encoder, the models that its auxiliaries compare with, and the
    run that it starts from. A config is left as it is where a value of it cannot be resolved, or its task cannot be
    built: that is reported with its structure.

    Args:
        cfg: the config.
        teachers: to which the models of its auxiliaries are added, by the names of these.

    Returns:
        the model that it starts from, if any; and the mistakes found.
    """
    if unresolved(cfg) or tasked(cfg)[0] is None:
        return None, []
    initial, mistakes = find_initial(cfg)
    return initial, [*complete_codec(cfg), *complete_text(cfg), *complete_auxiliaries(cfg, teachers), *mistakes]
