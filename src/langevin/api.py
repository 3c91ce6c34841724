"""The Python API: a trained run as an object. It composes the commands' configs and runs the commands' code."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from langevin.checkpoint import find_checkpoint, folder_of
from langevin.cli import composed, isolated_job
from langevin.config.options import RUN_OPTIONS
from langevin.config.types import TARGET, plain
from langevin.config.validate import ConfigError, Mistake, options, unknown
from langevin.errors import UserError
from langevin.interrupt import Interrupted, listening
from langevin.samples import Samples, Strips

if TYPE_CHECKING:
    from langevin.assembly.saved import Model
    from langevin.diffusion.denoiser import Denoiser
    from langevin.evaluation.result import EvaluationResult
    from langevin.modalities.modality import Modality
    from langevin.spec import DataSpec

Given = Mapping[str, tuple[str, Any]]
"""Values of options by their paths, each with the name of the parameter that it was given by."""


def load(path: str | os.PathLike[str], trust: Sequence[str] = ()) -> "Run":
    """Load a trained model, with its EMA weights, on the CPU.

    Args:
        path: a run's folder, or a .ckpt file.
        trust: packages, modules or classes by their full names that the run's config may use besides Langevin's own.
            Their code is run.

    Raises:
        UserError: when there is no such run, or it is damaged, a classifier's, or names code that is not trusted.
    """
    place = os.fspath(path)
    if place.startswith("hf://"):
        raise UserError(f"path is {place}; allowed: a run's folder or a .ckpt file, since a hub cannot be read yet")
    checkpoint = find_checkpoint(Path(place).expanduser(), "path")

    from langevin.assembly.saved import load_model

    return Run(checkpoint, load_model(checkpoint, trust))


def train(overrides: Sequence[str] = ()) -> "Run":
    """Train a model in this process, or resume its training, as ``langevin train OVERRIDES`` does; and load it.

    It seeds torch's global random numbers. Ctrl-C, and the signals of a scheduler, save the run and stop it.

    Args:
        overrides: as on the command line, such as ``["experiment=digits", "trainer.max_steps=100"]``.

    Raises:
        UserError: for whatever the command reports as an error.
        KeyboardInterrupt: after a signal; call it again to resume.
    """
    with composed("train", _listed("overrides", overrides), RUN_OPTIONS) as cfg, warnings.catch_warnings():
        from langevin.assembly.check import tasked
        from langevin.commands.train import run

        task, _ = tasked(cfg)
        if task is not None and not task.makes_samples:
            raise UserError(f"task: trains {task.noun}; allowed here: models that make samples. Use langevin train")
        try:
            with listening(), isolated_job(HydraConfig.get().overrides.task, "langevin.commands.train"):
                folder = run(cfg)
        except Interrupted as stop:
            raise KeyboardInterrupt(f"{stop}; the same call resumes") from stop
        trust = list(cfg.trust)
    return load(folder, trust)


class Run:
    """A trained model and what is known of it; made by `load` and `train`.

    Attributes:
        checkpoint: the file that it was loaded from.
        model: the denoiser, with EMA weights; on the device where it was last used, at first the CPU.
        spec: what it knows of its data, such as its shape and the number of classes.
        config: the config that it was trained with, as plain values.
        step: the optimizer step it stands at.
    """

    def __init__(self, checkpoint: Path, loaded: "Model") -> None:
        self._loaded = loaded
        self.checkpoint = checkpoint
        self.model: Denoiser = loaded.denoiser
        self.spec: DataSpec = loaded.spec
        self.config = plain(loaded.cfg)
        self.step = loaded.step

    def __repr__(self) -> str:
        return f"<Run {self.checkpoint} at step {self.step}>"

    def sample(
        self,
        n: int = 64,
        *,
        labels: int | Sequence[int] | None = None,
        prompt: str | os.PathLike[str] | Sequence[str] | None = None,
        negative: str | os.PathLike[str] | Sequence[str] | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | str | None = None,
        seed: int = 0,
        batch_size: int = 64,
        device: str = "auto",
        trajectory: int | None = None,
        overrides: Sequence[str] = (),
    ) -> "Samples":
        """Make samples: the same, to the bit, as those of ``langevin sample`` with the same choices.

        Args:
            n: how many, at least 1.
            labels: classes, one or several, sample by sample in turn; None: every class in turn.
            prompt: of a model of texts: one, several, sample by sample in turn, or a file of them: .txt, one a line, or
                .jsonl; None: of no text.
            negative: likewise, what classifier-free guidance leads away from; None: the empty text.
            sampler: an option of conf/sampler, such as "ddim"; None: the run's own.
            steps: how many steps it takes; None: its default, or the run's own.
            guidance: a number is the scale of classifier-free guidance, where 1 is none; a text is an option of
                conf/guidance, such as "none"; None: the run's own.
            seed: sample i depends on (seed, i) alone.
            batch_size: samples at a time.
            device: "cpu", or "cuda", "cuda:1", "mps"; "auto": a GPU where there is one.
            trajectory: also keep the first samples at this many times from noise to sample, at least 2.
            overrides: further ones of sampler, timestep_spacing, thresholding, guidance, restoration, operators,
                measurement, edit, invert, low_res, inpaint and hint, as on the command line, such as
                ``["sampler.eta=0.5"]``.

        Raises:
            UserError: when one of these is not possible with this model.
        """
        from langevin.assembly.components import SAMPLING
        from langevin.assembly.restoring import RESTORING
        from langevin.commands.sample import OPTIONS, check

        chosen, given = _of_sampler(sampler, steps, guidance)
        sections = ("edit", "invert", "measurement", "low_res", "inpaint", "hint")
        chosen += _allowed(overrides, (*SAMPLING, *RESTORING, *sections))
        given |= {"num_samples": ("n", n), "labels": ("labels", labels), "trajectory": ("trajectory", trajectory)}
        given |= {"prompt": ("prompt", prompt), "negative": ("negative", negative)}
        given |= _common(self.checkpoint, seed, batch_size, device)
        with composed("sample", chosen, OPTIONS) as cfg, _by_parameters(cfg, given):
            check(cfg)

            import numpy as np

            from langevin.assembly.sampling import plan
            from langevin.batches import Batches
            from langevin.processes import launch
            from langevin.samplers.trajectory import Trajectory

            asked = plan(cfg, self.checkpoint, self._loaded)
        on = launch(cfg.accelerator, cfg.devices).device
        denoiser, batches = self.model.to(on), Batches(asked.number, batch_size, doing="sample")
        generator, modality, strips = asked.generator, asked.generator.modality, None
        seen = None if trajectory is None else Trajectory(denoiser.schedule, modality.traced, generator.show)
        parts, classes = [], asked.classes(folder_of(self.checkpoint))
        for batch in generator.stored(denoiser, batches, seed, on, None, seen, asked.originals):
            if trajectory is not None and seen is not None and not seen.is_complete:
                strips = Strips.of(seen, trajectory, batch.samples, modality, classes)
            parts.append(np.moveaxis(batch.samples.cpu().numpy(), 1, -1))
        samples = np.concatenate(parts)
        return Samples(samples, asked.labels, asked.record, modality, strips, classes, asked.prompts)

    def choices(self, group: str) -> dict[str, dict[str, Any]]:
        """The options of a group that suit this model as they are, such as those samplers that its schedule allows.

        Args:
            group: "sampler", "timestep_spacing", "thresholding" or "guidance".

        Returns:
            the fields of each, by its name. An option with a field that must be given is none of them.

        Raises:
            UserError: when there is no such group.
        """
        from langevin.assembly.check import check_model
        from langevin.assembly.components import SAMPLING
        from langevin.assembly.saved import override
        from langevin.config.validate import CONF

        if group not in SAMPLING:
            raise UserError(f"group is {group!r}; allowed: {', '.join(SAMPLING)}")
        found = {}
        for name in options(group):
            chosen = OmegaConf.load(CONF / group / f"{name}.yaml")
            if not isinstance(chosen, DictConfig) or TARGET not in chosen:
                continue  # it is the choice of none
            with suppress(UserError):
                check_model(override(self._loaded.cfg, OmegaConf.create({group: chosen}), [group]), SAMPLING, self.spec)
                found[name] = plain(chosen)
        return found

    @property
    def modality(self) -> "Modality":
        """What its samples are, and how they are looked at."""
        from langevin.assembly.components import modality_of

        return modality_of(self.spec)

    @property
    def takes_prompts(self) -> bool:
        """Whether samples can be asked for by texts."""
        from langevin.assembly.prompting import encoder_of

        return encoder_of(self.model.network) is not None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes that samples can be asked for, by name where the run's folder knows them; None: of none."""
        from langevin.assembly.conditioning import is_class_conditional
        from langevin.content import class_names

        number = self.spec.num_classes
        if number is None or not is_class_conditional(self._loaded.cfg):
            return None
        names = class_names(folder_of(self.checkpoint))
        return names if names is not None and len(names) == number else tuple(map(str, range(number)))

    def evaluate(
        self,
        metrics: str | Sequence[str],
        num_samples: int = 50_000,
        *,
        data: str | None = None,
        reference: str | os.PathLike[str] | None = None,
        features: str | None = None,
        labels: int | Sequence[int] | None = None,
        prompt: str | os.PathLike[str] | Sequence[str] | None = None,
        negative: str | os.PathLike[str] | Sequence[str] | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | str | None = None,
        seed: int = 0,
        batch_size: int = 64,
        device: str = "auto",
        overrides: Sequence[str] = (),
    ) -> "EvaluationResult":
        """Compute metrics of samples: the same values, by the same protocol, as ``langevin evaluate`` computes.

        Args:
            metrics: options of conf/metrics, such as ``["fid", "kid"]``.
            num_samples: how many samples it makes.
            data: the reference is the training images of this option of conf/data; None: of the run's own data.
            reference: the reference is this samples.npz, folder or zip of images, or .npz of statistics.
            features: an option of conf/features; None: Inception's.
            labels: see `sample`, as of all that follows.
            prompt: see `sample`; None: of a model of texts, the captions of its data's held-out images.
            negative: see `sample`.
            sampler: see `sample`.
            steps: see `sample`.
            guidance: see `sample`.
            seed: see `sample`.
            batch_size: see `sample`.
            device: see `sample`.
            overrides: further ones of metrics, features, data, captions, loader, restoration, operators and
                measurement, and as in `sample` of sampler, timestep_spacing, thresholding and guidance.

        Returns:
            ``.values`` by their names, and the ``.protocol`` by which they were computed.

        Raises:
            UserError: when one of these is not possible with this model.
        """
        from langevin.assembly.components import SAMPLING
        from langevin.assembly.restoring import RESTORING
        from langevin.commands.evaluate import OPTIONS, check

        names = [metrics] if isinstance(metrics, str) else list(metrics)
        for name in names:
            _choice("metrics", name)
        parts = {"data": data, "features": features}
        chosen, given = _of_sampler(sampler, steps, guidance)
        chosen += [f"metrics=[{','.join(names)}]"]
        chosen += [_choice(group, name) for group, name in parts.items() if name is not None]
        groups = ("metrics", "features", "data", "captions", "loader", "measurement")
        chosen += _allowed(overrides, (*groups, *SAMPLING, *RESTORING))
        place = None if reference is None else os.fspath(reference)
        given |= {"num_samples": ("num_samples", num_samples), "labels": ("labels", labels)}
        given |= {"prompt": ("prompt", prompt), "negative": ("negative", negative)}
        given |= {"reference": ("reference", place)} | _common(self.checkpoint, seed, batch_size, device)
        with composed("evaluate", chosen, OPTIONS) as cfg, _by_parameters(cfg, given):
            check(cfg)

            from langevin.assembly.evaluation import measure

            return measure(cfg, self.checkpoint, self._loaded, lambda result, about: None)


def _of_sampler(
    sampler: str | None, steps: int | None, guidance: float | str | None
) -> tuple[list[str], dict[str, tuple[str, Any]]]:
    """The choices of a sampler and its guidance, and the values of their fields."""
    chosen = [] if sampler is None else [_choice("sampler", sampler)]
    given: dict[str, tuple[str, Any]] = {"sampler.steps": ("steps", steps)}
    if isinstance(guidance, str):
        chosen.append(_choice("guidance", guidance))
    elif guidance is not None:
        chosen.append("guidance=classifier_free")
        given["guidance.scale"] = ("guidance", guidance)
    return chosen, given


def _common(checkpoint: Path, seed: int, batch_size: int, device: str) -> dict[str, tuple[str, Any]]:
    """The values of those options that commands on a checkpoint have in common.

    Raises:
        UserError: when there is no such device.
    """
    import torch

    kind, _, index = device.partition(":")
    try:
        if device != "auto":
            torch.zeros(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises all of these
        reason = str(error).partition("\n")[0]
        raise UserError(f"device is {device!r}; allowed: auto, cpu, or a GPU such as cuda:1 ({reason})") from error
    devices = f"{index}," if index and kind != "cpu" else 1
    return {
        "checkpoint": ("path", str(checkpoint)),
        "seed": ("seed", seed),
        "batch_size": ("batch_size", batch_size),
        "accelerator": ("device", kind),
        "devices": ("device", devices),
    }


def _choice(group: str, name: str) -> str:
    """The override that chooses an option of a group, whose parameter has the group's name.

    Raises:
        UserError: when there is no such option.
    """
    if name not in options(group):
        raise UserError(f"{group} is {name!r}; {unknown(str(name), options(group))}")
    return f"{group}={name}"


def _listed(name: str, overrides: Sequence[str]) -> list[str]:
    """Overrides as a list.

    Raises:
        UserError: when they are a text, whose letters would be taken for overrides.
    """
    if isinstance(overrides, str):
        raise UserError(f"{name} is {overrides!r}; allowed: a list of texts, such as [{overrides!r}]")
    return list(overrides)


def _allowed(overrides: Sequence[str], roots: Sequence[str]) -> list[str]:
    """The overrides, if they are all of some groups or options.

    Raises:
        UserError: when one is of another.
    """
    found = _listed("overrides", overrides)
    for override in found:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] not in roots:
            raise UserError(f"overrides: {override!r} cannot be set here; allowed: those of {', '.join(roots)}")
    return found


@contextmanager
def _by_parameters(cfg: DictConfig, given: Given) -> Iterator[None]:
    """Set what was given by parameters, and report mistakes in it under the parameters' names.

    Args:
        cfg: the config; changed in place.
        given: the values; what is None is left as it is.

    Raises:
        ConfigError: as the block, with the parameters' names.
    """
    given = {path: (name, value) for path, (name, value) in given.items() if value is not None}
    try:
        for path, (_, value) in given.items():
            OmegaConf.update(cfg, path, _plain(value), force_add=True)
        yield
    except ConfigError as error:
        named = [Mistake(given[path][0] if path in given else path, text) for path, text in error.mistakes]
        raise ConfigError(named) from error


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch, arrays of them, paths, and sequences as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple | range) else value
