"""Cascades in the Python API: one model makes small images, each of the next enlarges what the one before has made."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from langevin.api import Run, load
from langevin.checkpoint import folder_of
from langevin.cli import composed
from langevin.parameters import allowed, by_parameters, common, of_sampler

if TYPE_CHECKING:
    from langevin.samples import Samples


def cascade(stages: Sequence[Run | str | os.PathLike[str]], trust: Sequence[str] = ()) -> "Cascade":
    """Load a cascade of trained models (Ho et al. 2022, arXiv 2106.15282), see `Cascade.sample`.

    Args:
        stages: at least two runs, or what `load` takes: first a model of small images, then those that enlarge, which
            are trained with ``conditions=[low_res]``.
        trust: see `load`.

    Raises:
        UserError: as `load`.
    """
    return Cascade([stage if isinstance(stage, Run) else load(stage, trust) for stage in stages])


class Cascade:
    """A chain of trained models; made by `cascade`.

    Attributes:
        stages: the models, the first makes the smallest images.
    """

    def __init__(self, stages: Sequence[Run]) -> None:
        self.stages = tuple(stages)

    def __repr__(self) -> str:
        return f"<Cascade of {', '.join(str(folder_of(run.checkpoint)) for run in self.stages)}>"

    def sample(
        self,
        n: int = 64,
        *,
        noise_level: float = 0.0,
        truncated: bool = False,
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
    ) -> "Samples":
        """Make samples: the same, to the bit, as those of ``langevin sample cascade=[...]`` with the same choices.

        Args:
            n: how many, at least 1.
            noise_level: of the noise in the small images of each stage, its share of the standard deviation, where the
                stage was trained with ``augmentation=noise``.
            truncated: stages stop at that level, in place of having noise of it added when they are finished.
            labels: see `Run.sample`, as of all that follows; for those stages that are conditioned on them.
            prompt: likewise.
            negative: likewise.
            sampler: of all stages.
            steps: of each stage.
            guidance: of all stages.
            seed: of the first stage, from which those of the others follow.
            batch_size: see `Run.sample`.
            device: see `Run.sample`.
            overrides: further ones of sampler, timestep_spacing, thresholding and guidance, for all stages.

        Returns:
            what the last stage has made; ``.before`` has what each before it has.

        Raises:
            UserError: when the stages do not fit each other, or one of these is not possible with one of them.
        """
        from langevin.assembly.components import SAMPLING
        from langevin.commands.sample import OPTIONS, check

        names = [str(folder_of(run.checkpoint)) for run in self.stages]
        chosen, given = of_sampler(sampler, steps, guidance)
        chosen += allowed(overrides, SAMPLING)
        given |= {"cascade": ("stages", names), "num_samples": ("n", n), "labels": ("labels", labels)}
        given |= {"prompt": ("prompt", prompt), "negative": ("negative", negative)}
        given |= {"low_res.noise_level": ("noise_level", noise_level), "low_res.truncated": ("truncated", truncated)}
        given |= common(seed, batch_size, device)
        before: list[Samples] = []
        with composed("sample", chosen, OPTIONS) as cfg, by_parameters(cfg, given):
            check(cfg)

            from langevin.assembly.cascade import check_cascade, small_of, stage_config
            from langevin.assembly.in_memory import sampled
            from langevin.assembly.low_res import Link
            from langevin.assembly.sampling import plan

            models, small = [run._loaded for run in self.stages], None
            stops = check_cascade(cfg, names, models)
            for stage, (run, stop) in enumerate(zip(self.stages, stops, strict=True)):
                own = stage_config(cfg, stage, run._loaded, is_last=stage == len(stops) - 1)
                planned = plan(own, run.checkpoint, run._loaded, Link(small, stop))
                made, noisy = sampled(own, planned, run.model, folder_of(run.checkpoint))
                small = small_of(made.samples, made.labels, noisy, noise_level, stop)
                before.append(made)
        *before, last = before
        return replace(last, before=tuple(before))
