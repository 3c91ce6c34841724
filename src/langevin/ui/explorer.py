"""What the page's controls offer and what they do, without the page."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langevin.api import Run
from langevin.checkpoint import folder_of
from langevin.config.validate import ConfigError
from langevin.errors import UserError
from langevin.samples import Samples

OWN = ""
"""Of the samplers: each run's own."""
TIMES = 8
"""How many times a trajectory shows."""
ROW = 8
"""How many images are in a row; up to `WIDEST` where these are the classes."""
WIDEST = 12


@dataclass(frozen=True)
class Asked:
    """What the controls say; None where the run or the sampler decides.

    Attributes:
        n: how many samples.
        label: their class; None: every class in turn.
        seed: of the samples.
        sampler: an option of conf/sampler, or `OWN`.
        steps: of the sampler.
        guidance: the scale of classifier-free guidance.
        prompt: what they are to show, in words; empty: nothing in particular.
    """

    n: int | None
    label: int | None = None
    seed: int | None = 0
    sampler: str = OWN
    steps: int | None = None
    guidance: float | None = None
    prompt: str = ""


@dataclass(frozen=True)
class Made:
    """What a run has made.

    Attributes:
        run: the run.
        samples: with their trajectory.
        columns: how many images are in a row.
        call: the Python that makes the same.
        seconds: how long it took.
    """

    run: Run
    samples: Samples
    columns: int
    call: str
    seconds: float


class Explorer:
    """One or two runs, and what may be asked of all of them.

    Args:
        runs: the runs.

    Attributes:
        class_names: of the classes that all of the class-conditional ones have; None where none of them is.
        samplers: the options of conf/sampler that suit all of them, each with its number of steps; None: all there are.
        steps: the same of their own samplers, where they agree.
        guidance: the scale to begin at; None where not all of them can be guided.
        prompted: whether one of them can be asked for samples by a text.
        most: how many samples can be shown.
        number: how many are asked for at first.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        named = [run.class_names for run in runs]
        classes = [names for names in named if names is not None]
        fewest = min(map(len, classes), default=0)
        alike = all(names == classes[0] for names in classes)
        self.class_names = None if not classes else classes[0] if alike else tuple(map(str, range(fewest)))
        suiting = [run.choices("sampler") for run in runs]
        common = [name for name in suiting[0] if all(name in each for each in suiting)]
        self.samplers: dict[str, int | None] = {name: suiting[0][name].get("steps") for name in common}
        own = [run.config["sampler"].get("steps") for run in runs]
        self.steps: int | None = own[0] if len(set(own)) == 1 else None
        can_be_guided = all("classifier_free" in run.choices("guidance") for run in runs)
        self.guidance = self.own_scale(runs[0]) if can_be_guided else None
        self.prompted = any(run.takes_prompts for run in runs)
        modalities = [run.modality for run in runs]
        self.most = min(modality.previewed for modality in modalities)
        rows = 2 * len(self.class_names) if self.class_names and len(self.class_names) <= WIDEST else 2 * ROW
        self.number = min(self.most, rows if modalities[0].suffix is not None else 2000)

    @staticmethod
    def own_scale(run: Run) -> float:
        """The scale of a run's own guidance; 1, which is none, where that has none."""
        return float((run.config.get("guidance") or {}).get("scale", 1.0))

    def default_steps(self, sampler: str) -> int | None:
        """The steps that a sampler takes unless others are asked for; None: it depends on the run."""
        return self.steps if sampler == OWN else self.samplers[sampler]

    def sample(self, asked: Asked) -> list[Made]:
        """Have every run make samples.

        Raises:
            UserError: when a run cannot do what is asked.
        """
        for name, value in (("number of samples", asked.n), ("seed", asked.seed)):
            if value is None:
                raise UserError(f"{name}: is not given; give a whole number")
        return [self._made(run, asked) for run in self.runs]

    def _made(self, run: Run, asked: Asked) -> Made:
        arguments = self.arguments(run, asked)
        start = time.monotonic()
        try:
            samples = run.sample(**arguments, trajectory=TIMES)
        except UserError as error:
            mistakes = error.mistakes if isinstance(error, ConfigError) else None
            text = str(error) if mistakes is None else "\n".join(f"{path}: {what}" for path, what in mistakes)
            raise UserError(text if len(self.runs) == 1 else f"{name_of(run)}: {text}") from error
        seconds = time.monotonic() - start
        names = run.class_names
        by_class = names is not None and asked.label is None and samples.prompts is None and len(names) <= WIDEST
        columns = len(names) if names is not None and by_class else ROW
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        call = f"langevin.load({str(folder_of(run.checkpoint))!r}).sample({given})"
        return Made(run, samples, min(columns, len(samples)), call, seconds)

    def arguments(self, run: Run, asked: Asked) -> dict[str, Any]:
        """What `Run.sample` is called with; what the run decides is left out."""
        conditional = run.class_names is not None
        # At its own scale a run keeps its own guidance, with all its other fields.
        guided = self.guidance is not None and asked.guidance != self.own_scale(run)
        found = {
            "n": asked.n,
            "labels": asked.label if conditional else None,
            # In a list it is no file, whatever its ending: the page shows nobody the files of this machine.
            "prompt": [asked.prompt.strip()] if run.takes_prompts and asked.prompt.strip() else None,
            "sampler": None if asked.sampler == OWN else asked.sampler,
            "steps": asked.steps,
            "guidance": asked.guidance if guided else None,
            "seed": asked.seed,
        }
        return {name: value for name, value in found.items() if value is not None}


def name_of(run: Run) -> str:
    """What a run is called: its folder's name."""
    return folder_of(run.checkpoint).resolve().name
