"""What the kept weights draw: all by the same samplers, from the same noise, against the same images."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from experiments.time_to_quality import ours
from experiments.time_to_quality.peers import lucidrains_code
from experiments.time_to_quality.training import data_of, flops, our_network, unet_of_lucidrains
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn

from langevin.assembly.components import SAMPLING, make_codec, make_generator, make_process
from langevin.assembly.run import make_evaluation, make_module, training_set
from langevin.assembly.saved import override
from langevin.config.types import plain
from langevin.config.validate import CONF
from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.evaluation.evaluation import Evaluation
from langevin.interop.diffusers import from_diffusers
from langevin.samplers.pipeline import SampleBatch

SAMPLERS = {"dpm_solver_2m": 20, "ddim": 50}
"""And their steps, each an evaluation of the network."""
NUMBER = 500
BATCH = 250
Row = dict[str, Any]


class UNetOfLucidrains(nn.Module):
    """Lucidrains' network, called as ours are.

    Args:
        unet: its `Unet`.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        """Its output (B, C, H, W) for noisy images x of the same shape at its times `c_noise` (B,), from 0."""
        output: Tensor = self.unet(x, c_noise)
        return output


def config_of(name: str, overrides: tuple[str, ...] = ()) -> DictConfig:
    """The config of a denoiser: the noise that a contender was trained with.

    Args:
        name: "diffusers", "lucidrains", or one of our own.
        overrides: options of train.py: of all, the data and the network; of our own, also those of its recipe.
    """
    if name == "diffusers":
        overrides = (*overrides, "formulation=ddpm")
    if name == "lucidrains":
        betas = lucidrains_code().sigmoid_beta_schedule(1000).tolist()
        overrides = (*overrides, "schedule=explicit", f"schedule.betas={betas}")
    return ours.config(overrides)


def denoiser_of(name: str, cfg: DictConfig, weights: Mapping[str, Tensor]) -> Denoiser:
    """A contender with its EMA weights, under the noise that it was trained with."""
    data = data_of(cfg)
    denoiser = make_module(cfg, data.spec).model
    assert isinstance(denoiser, Denoiser)
    if name == "lucidrains":
        wanted = flops(our_network(cfg, data), data.spec.shape, None)
        unet = lucidrains_code().Unet(**unet_of_lucidrains(cfg, data.spec.shape, wanted))
        unet.load_state_dict(weights)
        return Denoiser(UNetOfLucidrains(unet), make_process(cfg, data.spec.image_size)).eval()
    if name == "diffusers":
        parameters = {field: value for field, value in plain(cfg.model).items() if field != "_target_"}
        weights = from_diffusers(weights, parameters)
    denoiser.network.load_state_dict(weights)
    return denoiser.eval()


def evaluation_of(classifier: Path, number: int = NUMBER, task: Sequence[str] = ()) -> Evaluation:
    """The distance, precision and recall against the training images, in the features of a classifier's run."""
    return evaluation_in(["features=classifier", f"features.checkpoint={classifier}"], number, task)


def evaluation_in(features: Sequence[str], number: int = NUMBER, task: Sequence[str] = ()) -> Evaluation:
    """The same in other features: options of evaluate.py."""
    options = ["metrics=[fid,precision_recall]", *features]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", options)
    evaluation = make_evaluation(cfg)
    evaluation.prepare(number, training_set(data_of(ours.config(task))), {})
    evaluation.gather()
    return evaluation


def measured(
    denoiser: Denoiser, cfg: DictConfig, evaluation: Evaluation, sampler: str, steps: int, number: int = NUMBER
) -> Row:
    """The Frechet distance, precision and recall of samples from the noise of seed 0."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = override(cfg, compose("sample", [f"sampler={sampler}", f"sampler.steps={steps}"]), SAMPLING)
    spec = data_of(cfg).spec
    generator = make_generator(cfg, spec, make_codec(cfg, spec))
    return values_of(evaluation, generator(denoiser, range(number), 0, BATCH, "cpu"))


def values_of(evaluation: Evaluation, batches: Iterable[SampleBatch]) -> Row:
    """The Frechet distance, precision and recall of samples, as many as the evaluation is prepared for."""
    found = evaluation.measure(batches, None).values
    short = {re.split("_|@", name)[0]: value for name, value in found.items()}
    return {name: round(short[name], 4) for name in ("fd", "precision", "recall")}


def measure(
    out: Path,
    classifier: Path,
    samplers: Mapping[str, int] = SAMPLERS,
    number: int = NUMBER,
    task: Sequence[str] = (),
) -> list[Row]:
    """Measure all kept weights of all seeds, each once: what is in out/results.jsonl already is not measured again.

    Args:
        out: folder of the weights.
        classifier: the run of a classifier of these images.
        samplers: and their steps.
        number: of samples.
        task: options of train.py that chose the data and the network.

    Returns:
        the rows, one for each weights and sampler.
    """
    path = out / "results.jsonl"
    rows: list[Row] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {(row["seed"], row["who"], row["kept"], row["sampler"], row["nfe"]) for row in rows}
    evaluation = evaluation_of(classifier, number, task)
    for sampler, steps in samplers.items():
        for file in sorted(out.glob("seed_*/*/*.pt"), key=lambda file: (file.parent, float(file.stem))):
            who, seed = file.parent.name, int(file.parents[1].name.removeprefix("seed_"))
            if (seed, who, file.stem, sampler, steps) in known:
                continue
            kept = torch.load(file, weights_only=True)
            cfg = config_of(who, tuple(task))
            values = measured(denoiser_of(who, cfg, kept["weights"]), cfg, evaluation, sampler, steps, number)
            cost = {"cpu_seconds": round(kept["cpu"], 2), "steps": kept["steps"], "images": kept["images"]}
            rows.append(
                {"seed": seed, "who": who, "kept": file.stem, **cost, "sampler": sampler, "nfe": steps, **values}
            )
            with path.open("a") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
    return rows
