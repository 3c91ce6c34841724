"""What a training config is completed by; imports no Lightning."""

from collections.abc import Callable

from omegaconf import DictConfig

from langevin.assembly.auxiliaries import complete as complete_auxiliaries
from langevin.assembly.codec_run import complete as complete_codec
from langevin.assembly.init_run import find_initial
from langevin.assembly.saved import Model
from langevin.assembly.text_files import complete as complete_text
from langevin.config.options import TRUST
from langevin.config.validate import Mistake, unresolved
from langevin.diffusion.auxiliary import Teacher

FOLDER = ("output_dir", "name")
"""What names the run's folder, in which it may be recorded what it started from."""


def complete(cfg: DictConfig, teachers: dict[str, Teacher]) -> tuple[Model | None, list[Mistake]]:
    """Write into a config what the runs and files are that it names: digests of their weights, sizes, and the like.

    These are the run of its codec, the files of its text encoder, the models that its auxiliaries compare with, and the
    run that it starts from. A group of which a value cannot be resolved is left as it is: that is reported with its
    structure.

    Args:
        cfg: the config.
        teachers: to which the models of its auxiliaries are added, by the names of these.

    Returns:
        the model that it starts from, if any; and the mistakes found.
    """
    lost = {path.partition(".")[0] for path, _ in unresolved(cfg)}
    if TRUST in lost:  # with which everything is read
        return None, unresolved(cfg)
    initial, mistakes = (None, []) if lost.intersection(("init", *FOLDER)) else find_initial(cfg)
    parts: dict[str, Callable[[], list[Mistake]]] = {
        "codec": lambda: complete_codec(cfg),
        "text": lambda: complete_text(cfg),
        "auxiliaries": lambda: complete_auxiliaries(cfg, teachers),
    }
    found = [mistake for group, part in parts.items() if group not in lost for mistake in part()]
    return initial, [*found, *mistakes]
