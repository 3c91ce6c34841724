"""The Python API: a trained run as an object. It composes the commands' configs and runs the commands' code."""

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from langevin.checkpoint import find_checkpoint, folder_of
from langevin.cli import composed, isolated_job
from langevin.config.options import RUN_OPTIONS
from langevin.config.types import TARGET, plain
from langevin.config.validate import options
from langevin.errors import UserError
from langevin.interrupt import Interrupted, listening
from langevin.parameters import allowed, by_parameters, choice, common, listed, of_sampler
from langevin.samples import Samples

if TYPE_CHECKING:
    from langevin.assembly.saved import Model
    from langevin.diffusion.denoiser import Denoiser
    from langevin.evaluation.result import EvaluationResult
    from langevin.modalities.modality import Modality
    from langevin.spec import DataSpec


def load(path: str | os.PathLike[str], trust: Sequence[str] = (), ema_width: float | None = None) -> "Run":
    """Load a trained model, with its EMA weights, on the CPU.

    Args:
        path: a run's folder, or a .ckpt file.
        trust: packages, modules or classes by their full names that the run's config may use besides Langevin's own.
            Their code is run.
        ema_width: of a run with ``ema=power``: the relative width of its EMA, in (0, 0.28]; None: that of the run's own
            EMA weights.

    Raises:
        UserError: when there is no such run, or it is damaged, a classifier's, names code that is not trusted, or has
            no EMA of that width.
    """
    place = os.fspath(path)
    if place.startswith("hf://"):
        raise UserError(f"path is {place}; allowed: a run's folder or a .ckpt file, since a hub cannot be read yet")
    checkpoint = find_checkpoint(Path(place).expanduser(), "path")

    from langevin.assembly.saved import load_model

    return Run(checkpoint, load_model(checkpoint, trust, ema_width))


def train(overrides: Sequence[str] = ()) -> "Run":
    """Train a model in this process, or resume its training, as ``langevin train OVERRIDES`` does; and load it.

    It seeds torch's global random numbers. Ctrl-C, and the signals of a scheduler, save the run and stop it.

    Args:
        overrides: as on the command line, such as ``["experiment=digits", "trainer.max_steps=100"]``.

    Raises:
        UserError: for whatever the command reports as an error.
        KeyboardInterrupt: after a signal; call it again to resume.
    """
    with composed("train", listed("overrides", overrides), RUN_OPTIONS) as cfg, warnings.catch_warnings():
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
        size: Sequence[int] | None = None,
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
            size: height and width of each, for a network that takes any; None: as usual.
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

        chosen, given = of_sampler(sampler, steps, guidance)
        sections = ("edit", "invert", "measurement", "low_res", "inpaint", "hint")
        chosen += allowed(overrides, (*SAMPLING, *RESTORING, *sections))
        given |= {
            "checkpoint": ("path", str(self.checkpoint)),
            "num_samples": ("n", n),
            "labels": ("labels", labels),
            "prompt": ("prompt", prompt),
            "negative": ("negative", negative),
            "size": ("size", None if size is None else list(size)),
            "trajectory": ("trajectory", trajectory),
        }
        given |= common(seed, batch_size, device)
        with composed("sample", chosen, OPTIONS) as cfg, by_parameters(cfg, given):
            check(cfg)

            from langevin.assembly.in_memory import sampled
            from langevin.assembly.sampling import plan

            asked = plan(cfg, self.checkpoint, self._loaded)
        return sampled(cfg, asked, self.model, folder_of(self.checkpoint))[0]

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
        from langevin.assembly.text_files import encoder_of

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
            choice("metrics", name)
        parts = {"data": data, "features": features}
        chosen, given = of_sampler(sampler, steps, guidance)
        chosen += [f"metrics=[{','.join(names)}]"]
        chosen += [choice(group, name) for group, name in parts.items() if name is not None]
        groups = ("metrics", "features", "data", "captions", "loader", "measurement")
        chosen += allowed(overrides, (*groups, *SAMPLING, *RESTORING))
        place = None if reference is None else os.fspath(reference)
        given |= {"checkpoint": ("path", str(self.checkpoint)), "num_samples": ("num_samples", num_samples)}
        given |= {"labels": ("labels", labels), "prompt": ("prompt", prompt), "negative": ("negative", negative)}
        given |= {"reference": ("reference", place)} | common(seed, batch_size, device)
        with composed("evaluate", chosen, OPTIONS) as cfg, by_parameters(cfg, given):
            check(cfg)

            from langevin.assembly.evaluation import measure

            return measure(cfg, self.checkpoint, self._loaded, lambda result, about: None)
