"""What a run trains: a task names the groups that it is made of, and what its network is handed."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from omegaconf import DictConfig

from langevin.assembly.conditioning import is_conditional, make_condition
from langevin.assembly.make import make
from langevin.autoencoding.model import AutoencoderModel
from langevin.diffusion.classifier import NoisyClassifier
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.process import Process
from langevin.errors import UserError

RECONSTRUCTION = ("autoencoder", "perceptual", "discriminator")
"""The groups of autoencoders alone."""


class Task(ABC):
    """What kind of model a run trains.

    Attributes:
        noun: what that is called.
        network: the group of its network.
        model: its class.
        makes_samples: whether it can be sampled from.
        reconstructs: whether it can reconstruct given samples.
        unused: the groups that it has no use for.
        use: the command that a trained run is for, with {run} for its folder.
        instead: by such a group, or by "objective", what to do where one was chosen that does not fit.
    """

    noun: ClassVar[str]
    network: ClassVar[str]
    model: ClassVar[type[Denoiser | NoisyClassifier | AutoencoderModel]]
    makes_samples: ClassVar[bool]
    reconstructs: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]]
    use: ClassVar[str]
    instead: ClassVar[dict[str, str]]

    @abstractmethod
    def offered(
        self, cfg: DictConfig, num_classes: int | None, process: Process | None, spec: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the constructor of its network is handed, beside what a spec offers.

        Args:
            cfg: the config.
            num_classes: of the data; None without labels.
            process: the config's; None where it is not known.
            spec: what the spec of what is diffused offers, see `components.of_spec`.

        Raises:
            UserError: when the data does not have what it needs.
        """

    def make_model(self, network: Any, process: Any) -> Denoiser | NoisyClassifier | AutoencoderModel:
        """The model of a network, and of a process where it has one."""
        return self.model(network, process)  # type: ignore[call-arg]


class DenoisingTask(Task):
    """A generative model."""

    noun = "a denoiser"
    network = "model"
    model = Denoiser
    makes_samples = True
    unused = ("classifier", *RECONSTRUCTION)
    use = "langevin sample checkpoint={run}"
    instead: ClassVar = {
        "classifier": "leave it out, or add task=classifier",
        "objective": "take another, or add task=classifier",
        **dict.fromkeys(RECONSTRUCTION, "leave it out, or add task=autoencoder"),
    }

    def offered(
        self, cfg: DictConfig, num_classes: int | None, process: Process | None, spec: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See `Task`: the channels of its output, and what builds the conditions."""
        embed = functools.partial(make_condition, cfg, num_classes=num_classes, **spec) if is_conditional(cfg) else None
        channels = spec["in_channels"]
        out_channels = channels if process is None else process.output_channels(channels)
        return {"out_channels": out_channels, "condition": embed}


class ClassificationTask(Task):
    """A classifier of noisy samples, for guidance, or of nearly clean ones, for features."""

    noun = "a classifier"
    network = "classifier"
    model = NoisyClassifier
    makes_samples = False
    unused = (
        *("captions", "model", "conditions", "text", "variance", "weighting", "sampler", "timestep_spacing"),
        *("thresholding", "guidance", "metrics", "features", "evaluation", "likelihoods", "auxiliaries"),
        *RECONSTRUCTION,
    )
    use = "langevin sample checkpoint=RUN guidance=classifier guidance.classifier={run}"
    instead: ClassVar = {"objective": "take cross_entropy"}

    def offered(
        self, cfg: DictConfig, num_classes: int | None, process: Process | None, spec: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See `Task`: the number of classes."""
        if num_classes is None:
            raise UserError("classifier: needs labels, but the data has none; use data with labels")
        return {"num_classes": num_classes}


class AutoencodingTask(Task):
    """An autoencoder, for codec=autoencoder: diffusion in its latents."""

    noun = "an autoencoder"
    network = "autoencoder"
    model = AutoencoderModel
    makes_samples = False
    reconstructs = True
    unused = (
        *("captions", "model", "classifier", "conditions", "text", "adapter", "process", "schedule", "rescalings"),
        *("parameterization", "variance", "weighting", "time_sampler", "sampler", "timestep_spacing", "thresholding"),
        *("guidance", "likelihoods", "auxiliaries"),
    )
    use = "langevin train codec=autoencoder codec.run={run}"
    instead: ClassVar = {"objective": "take reconstruction"}

    def offered(
        self, cfg: DictConfig, num_classes: int | None, process: Process | None, spec: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See `Task`: nothing more."""
        return {}

    def make_model(self, network: Any, process: Any) -> AutoencoderModel:
        """See `Task`; it has no process."""
        return AutoencoderModel(network)


def task_of(cfg: DictConfig) -> Task:
    """The config's task."""
    task: Task = make(cfg, "task")
    return task
