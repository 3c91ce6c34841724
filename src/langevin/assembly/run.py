"""Builds a whole run: data, training module, callbacks, loggers, trainer."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import nn

from langevin.assembly.auxiliaries import with_auxiliaries
from langevin.assembly.components import (
    adapt,
    loaders,
    make_codec,
    make_generator,
    make_model,
    make_objective,
    make_schedule,
    modality_of,
)
from langevin.assembly.conditioning import follows_images, is_text_conditional, reads_hints
from langevin.assembly.make import make, try_instantiate
from langevin.assembly.prompting import encoded_by, request_captions
from langevin.assembly.restoring import make_operator
from langevin.assembly.saved import record_of
from langevin.assembly.tasks import task_of
from langevin.codecs.codec import Codec
from langevin.config.types import plain
from langevin.config.validate import ConfigError, Mistake
from langevin.data.cache import resolve_cache_dir
from langevin.data.caption_writer import CaptionWriter
from langevin.data.module import DataModule
from langevin.data.read_images import read_images
from langevin.data.samples import OpenedSamples
from langevin.data.source import Source
from langevin.diffusion.auxiliary import Teacher
from langevin.evaluation.evaluation import Evaluation
from langevin.likelihood.base import Likelihood
from langevin.metrics.reference import Reference, read_statistics
from langevin.networks.compiled import compile_blocks
from langevin.samplers.derived import DerivedRequests
from langevin.samplers.given import Given
from langevin.samplers.reconstruct import ReconstructionPipeline
from langevin.spec import DataSpec
from langevin.training.callbacks.likelihood import MeasureLikelihoods
from langevin.training.callbacks.snapshots import SaveSnapshots
from langevin.training.loggers.csv import CSVFile
from langevin.training.module import DiffusionModule


def make_data(cfg: DictConfig) -> DataModule:
    """The config's data, not yet opened."""
    accumulate = cfg.trainer.accumulate_grad_batches
    offered = {"batch_size": cfg.batch_size, "accumulate": accumulate, "seed": cfg.seed, "first": cfg.overfit_samples}
    return make(cfg, "loader", source=make_source(cfg), captions=make_captions(cfg), **offered)


def make_source(cfg: DictConfig) -> Source:
    """The source of the config's data."""
    return make(cfg, "data", hints=reads_hints(cfg))


def make_captions(cfg: DictConfig) -> CaptionWriter | None:
    """What writes captions of the config's samples."""
    return None if cfg.get("captions") is None else make(cfg, "captions")


def make_module(cfg: DictConfig, spec: DataSpec, teachers: Mapping[str, Teacher] | None = None) -> DiffusionModule:
    """The training module for data of some spec, its weights fresh from the run's seed; see `with_auxiliaries`."""
    codec = make_codec(cfg, spec)
    diffused = codec.spec(spec)
    model = make_model(cfg, diffused)
    adapt(cfg, model.network)
    # One kernel over all weights; with 16-mixed it would use the scaled gradient, after the clipping.
    fused = cfg.trainer.precision != "16-mixed"
    module = DiffusionModule(
        model,
        with_auxiliaries(cfg, make_objective(cfg, diffused), model.network, diffused, teachers),
        ema=lambda network: make(cfg, "ema", network=network),
        optimizer=lambda parameters: make(cfg, "optimizer", params=parameters, fused=fused),
        lr_schedule=make(cfg, "lr_schedule"),
        batch_size=cfg.batch_size,
        seed=cfg.seed,
        codec=codec,
    )
    if cfg.compile:
        for network in (module.model.network, module.ema.network):
            compile_blocks(network)
    return module


def make_evaluation(cfg: DictConfig) -> Evaluation:
    """The config's metrics over its features."""
    offered = {"operator": make_operator(cfg)} if cfg.get("operators") else {}
    metrics = {name: make(cfg, f"metrics.{name}", **offered) for name in cfg.metrics}
    directory = resolve_cache_dir(cfg.loader.cache_dir) / "statistics"
    return Evaluation(make(cfg, "features", **loaders(cfg)), metrics, directory, plain(cfg.metrics))


def make_likelihoods(cfg: DictConfig, image_size: int | None) -> dict[str, Likelihood]:
    """The config's likelihoods by their names, prepared for models of its schedule."""
    likelihoods = {name: make(cfg, f"likelihoods.{name}") for name in cfg.get("likelihoods") or {}}
    if not likelihoods:
        return {}
    schedule = make_schedule(cfg, image_size)
    for likelihood in likelihoods.values():
        likelihood.begin(schedule)
    return likelihoods


def dry_build(cfg: DictConfig) -> list[Mistake]:
    """Build everything that needs Lightning, with placeholders for data and model, and return the mistakes found."""
    makers: dict[str, Any] = dict.fromkeys(("generator", "sampling", "evaluation"))
    anything = {**makers, "record": {}, "run_dir": Path(), "run_name": "", "batch_size": cfg.batch_size}
    source = SimpleNamespace(channels=1, image_size=8)
    stand_ins: dict[str, dict[str, Any]] = {
        # Not with the rest of the model: the first optimizer takes a second, since torch then imports its compiler.
        "optimizer": {"params": [nn.Parameter(torch.zeros(1))]},
        "loader": {"source": source, "batch_size": cfg.batch_size, "seed": cfg.seed},
        "trainer": {"run_dir": Path(), "callbacks": [], "loggers": []},
    }
    stand_ins |= {f"{group}.{name}": anything for group in ("callbacks", "loggers") for name in cfg.get(group) or {}}
    stand_ins |= {f"metrics.{name}": {} for name in cfg.get("metrics") or {}}
    if cfg.get("metrics"):
        stand_ins |= {"features": loaders(cfg), "evaluation": {**makers, "run_dir": Path()}}
    mistakes = []
    for path, offered in stand_ins.items():
        with warnings.catch_warnings(action="ignore"):
            mistakes += try_instantiate(cfg, path, **offered)[1]
    return mistakes


def make_trainer(
    cfg: DictConfig,
    run_dir: Path,
    spec: DataSpec,
    data: DataModule,
    codec: Codec,
    origin: Mapping[str, Any] | None = None,
) -> Trainer:
    """The trainer with its callbacks and loggers; the metrics are checked and prepared here, before any training.

    Args:
        cfg: the config.
        run_dir: the run's folder.
        spec: of the data.
        data: opened.
        codec: the training module's.
        origin: of the codec's weights, where these were not trained here; checkpoints record it.
    """
    task = task_of(cfg)
    sampling = make_generator(cfg, spec, codec) if task.makes_samples else None
    if sampling is not None and is_text_conditional(cfg):
        request_captions(sampling, *held_out(data), encoded_by(data))
    if sampling is not None and follows_images(cfg):
        others = sampling.requests if is_text_conditional(cfg) else None
        sampling.requests = DerivedRequests(given_of(data), sampling.modality, others)
    given = given_of(data) if task.reconstructs else None
    generator = sampling if given is None else ReconstructionPipeline(given, modality_of(spec), codec)
    offered = {
        "run_dir": run_dir,
        "run_name": run_dir.name,
        "batch_size": cfg.batch_size,
        "generator": generator,
        "sampling": sampling,
        "record": record_of(cfg, spec, origin),
    }
    callbacks: list[Callback] = [make(cfg, f"callbacks.{name}", **offered) for name in cfg.get("callbacks") or {}]
    if cfg.get("metrics"):
        evaluation, number = make_evaluation(cfg), cfg.evaluation.num_samples
        requests = None if generator is None else generator.requests
        cond = {} if requests is None else requests.cond(range(number))
        if sampling is not None and follows_images(cfg) and evaluation.reads_targets:
            given = given_of(data)
        reference, target = references(data, given, number)
        if not task.reconstructs and not evaluation.reads_targets_alone:
            reference = training_set(data)
        evaluation.prepare(number, reference, cond, target, None if requests is None else requests.prompts)
        callbacks.append(make(cfg, "evaluation", evaluation=evaluation, generator=generator, run_dir=run_dir))
    if likelihoods := make_likelihoods(cfg, spec.image_size):
        callbacks.append(MeasureLikelihoods(likelihoods))
    callbacks.append(SaveSnapshots(run_dir))
    loggers: list[Logger] = [CSVFile(run_dir / "metrics.csv")]
    loggers += [make(cfg, f"loggers.{name}", **offered) for name in cfg.get("loggers") or {}]
    return make(cfg, "trainer", run_dir=run_dir, callbacks=callbacks, loggers=loggers)


def given_of(data: DataModule) -> Given:
    """The held-out samples that are reconstructed, or that conditions are computed of, to be looked at and measured."""
    samples, split = held_out(data)
    labels = None if data.num_classes is None else samples.labels
    hints = None if samples.hints is None else samples.hints.samples
    return Given(samples.samples, labels, split, samples.digest, hints)


def held_out(data: DataModule) -> tuple[OpenedSamples, str]:
    """The test samples, or the training samples where there are none; and which of the two."""
    return (data.train_set, "train") if data.test_set is None else (data.test_set, "test")


def references(
    data: DataModule, given: Given | None, number: int, option: str = "evaluation.num_samples"
) -> tuple[Reference, Reference | None]:
    """What the samples of an evaluation are compared with, and what each should be.

    Args:
        data: opened.
        given: what is reconstructed, or enlarged: then both are the first of these; None: the reference is the
            training set.
        number: how many samples are measured.
        option: that says so.

    Raises:
        UserError: when fewer are given.
    """
    if given is None:
        return training_set(data), None
    if number > len(given.samples):
        text = f"is {number}; allowed: at most {len(given.samples)}, the {given.split} samples"
        raise ConfigError([Mistake(option, text)])
    originals = Reference(given.samples[:number], None if given.labels is None else given.labels[:number])
    return originals, originals


def open_data(cfg: DictConfig, captioned: bool = False) -> DataModule:
    """The config's data, decoded.

    Args:
        cfg: the config. Where it is a stored one and captions are written, its group "captions" must be trusted.
        captioned: whether captions are written of samples that have none, where the config says so.
    """
    captions = make_captions(cfg) if captioned else None
    data: DataModule = make(cfg, "loader", source=make_source(cfg), captions=captions, batch_size=1)
    data.prepare_data()
    return data


def open_reference(cfg: DictConfig) -> Reference:
    """The reference of an evaluation: a file's, or the training set of `data`.

    Raises:
        UserError: when it is missing or damaged.
    """
    if cfg.reference is not None:
        if cfg.reference.endswith(".npz") and (statistics := read_statistics(cfg.reference)) is not None:
            return statistics
        return Reference(*read_images(cfg.reference, "reference", cfg.loader.cache_dir))
    return training_set(open_data(cfg))


def training_set(data: DataModule) -> Reference:
    """The training set of opened data as a reference."""
    return Reference(data.train_set.samples, None if data.num_classes is None else data.train_set.labels)
