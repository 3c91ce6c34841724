"""What `langevin evaluate` measures, by its config: images, a model by its samples, or a model by likelihoods."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

import langevin
from langevin.assembly.check import check_model
from langevin.assembly.components import SAMPLING, modality_of
from langevin.assembly.conditioning import follows_images, is_class_conditional
from langevin.assembly.low_res import low_res_of
from langevin.assembly.prompting import open_texts, request_captions, request_prompts
from langevin.assembly.restoring import RESTORING, prepare_restoration
from langevin.assembly.run import (
    given_of,
    held_out,
    make_evaluation,
    make_likelihoods,
    open_data,
    open_reference,
    references,
)
from langevin.assembly.saved import Model, load_evaluated, load_model, override, require_trusted
from langevin.assembly.tasks import task_of
from langevin.assembly.text_files import encoder_of, move_encoder
from langevin.batches import Batches
from langevin.checkpoint import find_checkpoint, folder_of
from langevin.conditions.low_res import LowRes
from langevin.config.identity import digest
from langevin.config.types import TARGET, path_of, plain
from langevin.config.validate import ConfigError, Mistake
from langevin.data.captions import FirstCaptions
from langevin.data.module import preprocess
from langevin.data.read_images import left_out, read_images, read_prompts_of, read_record
from langevin.data.samples import OpenedSamples
from langevin.diffusion.denoiser import Condition
from langevin.diffusion.draws import SampleDraws, conditioning_draws
from langevin.errors import UserError
from langevin.evaluation.model import measure_model
from langevin.evaluation.result import EvaluationResult
from langevin.evaluation.values import FILE
from langevin.files import write_json
from langevin.metrics.reference import PUBLISHED, Reference, write_statistics
from langevin.processes import Processes, launch
from langevin.restoration.operators.average import Average
from langevin.samplers.derived import DerivedRequests
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.given import OfGiven
from langevin.samplers.pipeline import Pipeline, SampleBatch
from langevin.samplers.prompts import COLUMN
from langevin.samplers.reconstruct import ReconstructionPipeline
from langevin.spec import DataSpec
from langevin.text.encoder import TextEncoder

SOURCE = ("data", "captions")
"""The groups that samples to compare with, and what is said of them, come from."""


def evaluate_samples(cfg: DictConfig) -> None:
    """Compute the metrics of existing images, whatever their origin, print them, and write metrics.json.

    Raises:
        UserError: when the images, the reference and the metrics are incompatible.
    """
    evaluation = make_evaluation(cfg)
    images, labels = read_images(cfg.samples, "samples", cfg.loader.cache_dir)
    asked = open_texts(cfg, "prompt")
    prompts = read_prompts_of(cfg.samples, len(images)) if asked is None else asked.texts
    cond: Condition = {
        **({} if labels is None else {"label": torch.from_numpy(labels)}),
        **({} if prompts is None else {COLUMN: torch.arange(len(images)) % len(prompts)}),
    }
    targets = None if cfg.target is None else read_images(cfg.target, "target", cfg.loader.cache_dir)[0]
    if targets is not None and targets.shape != images.shape:
        raise UserError(
            f"target={cfg.target}: {len(targets)} samples of shape {targets.shape[1:]}, but those to be measured are "
            f"{len(images)} of {images.shape[1:]}; give one such for each of them, in their order"
        )
    target = None if targets is None else Reference(targets)
    is_given = cfg.reference is not None or cfg.get("data") is not None
    reference = open_reference(cfg) if is_given or target is None else target
    evaluation.prepare(len(images), reference, cond, target, prompts)
    *size, channels = images.shape[1:]
    evaluation.require_shape((channels, *size), f"samples={cfg.samples}")

    processes = launch(cfg.accelerator, cfg.devices)
    evaluation.to(processes.device).gather()

    def batches() -> Iterator[SampleBatch]:
        for indices in batches_of(cfg, processes, len(images), "evaluate"):
            index = torch.tensor(indices)
            of_batch = {name: column[index] for name, column in cond.items()}
            target = None if targets is None else at(targets, indices)
            yield SampleBatch(index, at(images, indices), of_batch, target=target)

    made = read_record(cfg.samples)
    result = evaluation.measure(batches(), None if made is None else made["samples"])
    if processes.global_rank == 0:
        if unread := left_out(cfg.samples):
            print(f"samples={cfg.samples}: left out {unread}")
        out = folder_of_values(cfg)
        about = {"samples": {"path": cfg.samples, "number": len(images)}, "reference": described(cfg, reference)}
        result.write(out, **about, **({} if made is None else {"model": made["model"]}))
        print(f"{out / FILE}: {len(images)} samples against {reference.number or 'published'} of the reference")
    processes.barrier()


def evaluate_model(cfg: DictConfig) -> None:
    """Compute the metrics of a model's samples, print them, and write metrics.json into a folder of the run.

    Raises:
        UserError: when the model, the reference and the metrics are incompatible.
    """
    path = find_checkpoint(Path(cfg.checkpoint))
    model = load_evaluated(path, cfg.trust, cfg.ema_width)

    def write(result: EvaluationResult, about: dict[str, Any]) -> None:
        name = f"step_{model.step:08d}-{digest(result.protocol)}"
        out = Path(cfg.out) if cfg.out else folder_of(path) / "evaluations" / name
        result.write(out, **about)
        what = "reconstructions" if task_of(model.cfg).reconstructs else "samples"
        print(f"{out / FILE}: {cfg.num_samples} {what} of step {model.step}")

    measure(cfg, path, model, write)


def measure(
    cfg: DictConfig, path: Path, model: Model, write: Callable[[EvaluationResult, dict[str, Any]], object]
) -> EvaluationResult:
    """Compute the metrics of a model's samples.

    Args:
        cfg: of the evaluation.
        path: the checkpoint that the model was loaded from.
        model: whose samples are made.
        write: is called on the first process with what was found, and what of and against what: plain values. Only
            then the samples, which a killed evaluation reuses, are removed.

    Raises:
        UserError: when the model, the reference and the metrics are incompatible.
    """
    reconstructs, restores = task_of(model.cfg).reconstructs, cfg.get("restoration") is not None
    sampling = () if reconstructs else SAMPLING
    if reconstructs:
        refuse_choices(cfg)
    chosen = override(model.cfg, cfg, (*sampling, *SOURCE, "loader"))
    for name in ("features", "metrics", "reference", *RESTORING):
        chosen[name] = cfg.get(name)
    if chosen.get("data") is None and (restores or chosen.reference is None):
        wanted = "data=NAME" if reconstructs or restores else "reference=PLACE or data=NAME"
        raise UserError(f"reference: it is not known what the model was trained on; give {wanted}")
    derives = follows_images(model.cfg)
    encoder = None if reconstructs else encoder_of(model.denoiser.network)
    move_encoder(model.model.network, cfg.text.path)
    captioned = encoder is not None and cfg.prompt is None
    if captioned and cfg.negative is not None:
        raise ConfigError([Mistake("negative", "goes with prompt=TEXT; leave it out")])
    if captioned and chosen.get("data") is None:
        text = "must be given, or data=NAME: the model is conditioned on texts, and its own data is not known"
        raise ConfigError([Mistake("prompt", text)])
    if chosen.get("data") is None and derives:
        wanted = "data=NAME in place of reference"
        raise UserError(f"data: conditions of the model come from images, and its own are not known; give {wanted}")
    of_data = ("data",) if encoder is None else SOURCE
    source = of_data if restores or derives or captioned or not chosen.reference else ()
    require_trusted(path, model.cfg, cfg, (*source, "loader"))
    check_model(chosen, (*sampling, *source, "loader", "features", "metrics"), model.spec)
    restore = prepare_restoration(cfg, chosen, model) if restores else None
    if derives and not chosen.operators and (condition := low_res_of(model)) is not None:
        chosen.operators = shrinking(condition, model.spec.shape[-1])
    evaluation = make_evaluation(chosen)
    data = open_data(chosen, captioned) if reconstructs or restores or derives or captioned else None
    generator: Pipeline
    if data is None:
        generator = model.generator(chosen, cfg.labels)
    elif reconstructs:
        settings = {} if cfg.ema_width is None else {"ema": plain(model.cfg.ema)}
        generator = ReconstructionPipeline(given_of(data), modality_of(model.spec), model.codec, settings)
    else:
        require_like(data.spec, model)
        restored = None if restore is None else restore(given_of(data), False)
        generator = model.generator(chosen, cfg.labels, restored)
        if captioned and encoder is not None:
            request_captions(generator, *held_out(data), encoder.prepare, cfg.labels is None)
    if isinstance(generator, SamplePipeline) and not captioned:
        if data is not None and derives and cfg.labels is None and is_class_conditional(model.cfg):
            generator.requests = OfGiven(held_out(data)[0].labels)  # of the images that columns are computed of
        request_prompts(cfg, chosen, model, generator)
    if data is not None and derives:
        asked = None if cfg.labels is None and encoder is None else generator.requests
        generator.requests = DerivedRequests(given_of(data), generator.modality, asked)
    target, compares = None, reconstructs or restores
    if data is not None and (compares or evaluation.reads_targets):
        reference, target = references(data, given_of(data), cfg.num_samples, "num_samples")
    if chosen.reference or target is None or not (compares or evaluation.reads_targets_alone):
        reference = open_reference(chosen)
    requests = generator.requests
    evaluation.prepare(cfg.num_samples, reference, requests.cond(range(cfg.num_samples)), target, requests.prompts)
    evaluation.require_shape(model.spec.shape)

    processes = launch(cfg.accelerator, cfg.devices)
    evaluation.to(processes.device)
    network = model.model.to(processes.device)
    directory = folder_of(path) / "evaluations"
    batches = batches_of(cfg, processes, cfg.num_samples, "evaluate")
    result, weights, store = measure_model(evaluation, generator, network, batches, cfg.seed, directory, "model")
    if processes.global_rank == 0:
        about = {"checkpoint": str(path), "step": model.step, "weights": weights, "data": model.spec.content}
        write(result, {"model": about, "reference": described(chosen, reference)})
        store.remove()
    processes.barrier()
    return result


def shrinking(condition: LowRes, side: int) -> dict[str, Any]:
    """The operators that make samples of a side as small as a model is given them: for `consistency`."""
    return {"average": {TARGET: path_of(Average), "factor": side // condition.size}}


def refuse_choices(cfg: DictConfig) -> None:
    """Check that an evaluation of an autoencoder chooses nothing that only sampling has.

    Raises:
        ConfigError: when it does.
    """
    chosen = [group for group in (*SAMPLING, *RESTORING) if cfg.get(group)]
    chosen += [name for name in ("reference", "labels", "prompt", "negative") if cfg.get(name) is not None]
    if chosen:
        text = "is not used for an autoencoder, whose reconstructions are compared with their originals; leave it out"
        raise ConfigError([Mistake(name, text) for name in chosen])


def evaluate_likelihoods(cfg: DictConfig) -> None:
    """Compute the likelihoods of images under a model, print them, and write likelihood.json.

    Raises:
        UserError: when the model and the images are incompatible.
    """
    path = find_checkpoint(Path(cfg.checkpoint))
    model = load_model(path, cfg.trust, cfg.ema_width)
    encoder = encoder_of(model.denoiser.network)
    source = ("data",) if encoder is None else SOURCE
    require_trusted(path, model.cfg, cfg, (*source, "loader"))
    chosen = override(model.cfg, cfg, (*SOURCE, "loader"))
    chosen.likelihoods = cfg.likelihoods
    check_model(chosen, (*source, "loader", "likelihoods"), model.spec)
    images = open_images(chosen, model, cfg.split)
    number = len(images) if cfg.num_images is None else cfg.num_images
    if number > len(images):
        raise UserError(f"num_images is {number}; allowed: at most {len(images)}, all of split={cfg.split}, or null")
    likelihoods, modality = make_likelihoods(chosen, model.diffused.image_size), modality_of(model.spec)

    processes = launch(cfg.accelerator, cfg.devices)
    device, denoiser = processes.device, model.denoiser.to(processes.device)
    for likelihood in likelihoods.values():
        likelihood.to(device)
    captions = captions_for(images, encoder)
    batches = batches_of(cfg, processes, number, "likelihood")
    for indices in batches:
        batch = {name: values.to(device) for name, values in images.batch(indices).items()}
        batch = preprocess(batch, modality)
        if encoder is not None:
            batch |= encoder.prepare([captions[index] for index in indices], device)
        x = batch["x"]
        derived = denoiser.derive(x, conditioning_draws(cfg.seed, indices, x.shape[1:], device), sampling=True)
        cond = denoiser.condition({**batch, **derived})
        for done, likelihood in enumerate(likelihoods.values(), start=1):
            likelihood.update(denoiser, x, cond, SampleDraws(cfg.seed, indices, x.shape[1:], device))
            batches.progress(done / len(likelihoods))
    values = {name: likelihood.compute() for name, likelihood in likelihoods.items()}
    if processes.global_rank == 0:
        report = {
            "likelihoods": {
                name: {part: known(value.tolist()) for part, value in parts.items()} for name, parts in values.items()
            },
            "settings": plain(cfg.likelihoods),
            "images": {"data": plain(chosen.data), "split": cfg.split, "number": number, "sha256": images.digest},
            "seed": cfg.seed,
            "checkpoint": str(path),
            "trained_on": model.spec.content,
            "step": model.step,
            "ema": plain(model.cfg).get("ema"),
            "version": langevin.__version__,
        }
        out = Path(cfg.out) if cfg.out else folder_of(path)
        write_json(out / "likelihood.json", report)
        width = max(map(len, values))
        for name, value in values.items():
            parts = ", ".join(f"{part} {float(value[part]):.4f}" for part in likelihoods[name].parts)
            print(f"{name:{width}}  {float(value['bits_per_dim']):.4f} bits/dim: {parts}")
        print(f"{out / 'likelihood.json'}: {number} images of split={cfg.split} at step {model.step}")
    processes.barrier()


def export(cfg: DictConfig) -> None:
    """Write the reference moments that the config's metrics need: mu and sigma, and ADM's mu_s and sigma_s.

    Raises:
        UserError: when no metric needs any, or the reference cannot provide them.
    """
    if not cfg.export.endswith(".npz"):
        raise UserError(f"export={cfg.export}: must end in .npz")
    evaluation = make_evaluation(cfg)
    if not evaluation.moments_of:
        raise UserError("metrics: none of these has statistics to export; allowed: fid and sfid")
    reference = open_reference(cfg)
    evaluation.prepare_reference(reference)
    processes = launch(cfg.accelerator, cfg.devices)
    evaluation.to(processes.device)
    outputs = evaluation.moments_of
    reference.gather(evaluation.features, outputs, (), processes.device, evaluation.directory)
    if processes.global_rank == 0:
        write_statistics(Path(cfg.export), reference, evaluation.features, outputs)
        names = ", ".join(name for output in outputs for name in PUBLISHED[output])
        print(f"{cfg.export}: {names} of {reference.moments(outputs[0]).number} images, {evaluation.features.name}")
    processes.barrier()


def at(samples: NDArray[Any], indices: range) -> Tensor:
    """Some of the samples (N, *size, C), which may be a read-only memory map: (B, C, *size)."""
    return torch.from_numpy(samples[indices]).movedim(-1, 1)


def batches_of(cfg: DictConfig, processes: Processes, number: int, doing: str) -> Batches:
    """This process's part of a command's images."""
    return Batches(number, cfg.batch_size, processes.global_rank, processes.world_size, doing)


def described(cfg: DictConfig, reference: Reference) -> dict[str, Any]:
    """Where the reference of a config comes from, and how many images it has."""
    data = cfg.get("data") or {}
    place = str(cfg.reference or data.get("path") or data.get(TARGET) or cfg.target)
    return {"path": place, "number": reference.number}


def folder_of_values(cfg: DictConfig) -> Path:
    """The folder for the values: the config's `out`, else beside the images."""
    place = Path(cfg.samples)
    return Path(cfg.out) if cfg.out else place if place.is_dir() else place.parent


def open_images(cfg: DictConfig, model: Model, split: str) -> OpenedSamples:
    """A split of a config's data, which must have the model's image shape and, where it is conditional, its classes.

    Raises:
        UserError: when there is no such split, or it does not fit the model.
    """
    data = open_data(cfg, encoder_of(model.denoiser.network) is not None)
    images = data.train_set if split == "train" else data.test_set
    if images is None:
        raise UserError(
            f"split={split}: the data has no test images; allowed: split=train, or data=NAME with a test split"
        )
    require_like(data.spec, model)
    return images


def captions_for(images: OpenedSamples, encoder: TextEncoder | None) -> Sequence[str]:
    """The first caption of each of some images, for a model that is conditioned on texts; none for another.

    Raises:
        UserError: when they have none, and the model needs them.
    """
    if encoder is None:
        return ()
    if images.captions is None:
        raise UserError("data: has no captions, on which the model is conditioned; take captioned data")
    return FirstCaptions(images.captions)


def require_like(spec: DataSpec, model: Model) -> None:
    """Check that data has the shape of a model's own and, where the model is class-conditional, its classes.

    Raises:
        UserError: when it has not.
    """
    if spec.shape != model.spec.shape:
        raise UserError(
            f"data: images of (channels, height, width) {spec.shape}, but the model was trained on "
            f"{model.spec.shape}; take data of that size"
        )
    if is_class_conditional(model.cfg) and spec.num_classes != model.spec.num_classes:
        has = "none" if spec.num_classes is None else spec.num_classes
        raise UserError(
            f"data: the model is conditioned on {model.spec.num_classes} classes, but the images have {has}; "
            "take data with the same classes"
        )


def known(values: Any) -> Any:
    """Numbers, or lists of them, with None in place of nan, which JSON does not know."""
    if isinstance(values, list):
        return [known(value) for value in values]
    return None if math.isnan(values) else values
