"""Finds contradictions in a config, before data or a GPU is touched; imports no Lightning."""

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from langevin.adapters.adapter import Adapter
from langevin.assembly.captions import known_words
from langevin.assembly.components import LOSS, MODEL, codec_uses, loaders, of_spec
from langevin.assembly.conditioning import (
    hint_mistakes,
    is_conditional,
    mistakes_of_data,
    needs_images,
    reads_text,
    unread_groups,
)
from langevin.assembly.logged_values import unlogged
from langevin.assembly.make import mistakes_of, target_of, try_instantiate
from langevin.assembly.meta import without_values
from langevin.assembly.tasks import Task
from langevin.codecs.codec import CachedCodec, Codec
from langevin.config.options import INIT, RUN_OPTIONS, TRUST
from langevin.config.signature import signature
from langevin.config.stored import targets
from langevin.config.types import TARGET
from langevin.config.validate import CHOOSERS, PLURAL, ConfigError, Mistake, groups_of, structure, unresolved
from langevin.data.source import Source
from langevin.diffusion.auxiliary import Teacher
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import OptionError, UserError
from langevin.guidance.guidance import Guidance
from langevin.networks.network import Network
from langevin.samplers.sampler import Sampler
from langevin.spec import DataSpec
from langevin.text.encoder import TextEncoder

if TYPE_CHECKING:
    from langevin.assembly.saved import Model

OPTIONAL = ("adapter", "captions", "text", "thresholding", "guidance", "perceptual", "discriminator", *PLURAL)
"""The optional groups of a run."""
FROZEN = "must be given: the run whose network is frozen beside the adapter"
"""What is wrong with an adapter that has no such run."""


def mistakes_in(cfg: DictConfig, teachers: dict[str, Teacher] | None = None) -> list[Mistake]:
    """The mistakes in a training config that show without Lightning; `dry_build` finds the others.

    The config is completed, see `completion`; the models that its auxiliaries compare with are added to `teachers`.
    """
    from langevin.assembly.completion import complete  # not at the top: to load a run is to check its config

    groups = [group for group in groups_of("train") if group not in CHOOSERS]
    if unresolved(cfg):  # by which anything may be decided: nothing is built
        return structure(cfg, RUN_OPTIONS, (), groups)
    task, mistakes = tasked(cfg)
    if task is None:
        return mistakes
    initial, mistakes = complete(cfg, teachers := {} if teachers is None else teachers)
    if mistakes:
        return mistakes
    unused = unused_in(cfg, task)
    required = [group for group in groups if group not in (*OPTIONAL, *unused)]
    mistakes = structure(cfg, RUN_OPTIONS, required, (*OPTIONAL, *unused))
    if any(path.startswith("codec.") for path, _ in mistakes):  # whose run gives the autoencoder
        mistakes = [each for each in mistakes if each.path != "autoencoder"]
    for group in filter(cfg.get, unused):
        instead = task.instead.get(group, "leave it out")
        mistakes.append(Mistake(group, f"is not used by {task.noun}; {instead}"))
    broken = {path.partition(".")[0] for path, _ in mistakes}
    if task.reconstructs and OmegaConf.select(cfg, "trainer.strategy") == "fsdp":
        mistakes.append(Mistake("trainer.strategy", f"is fsdp; allowed with {task.noun}: auto, ddp"))
    if not task.makes_samples and "callbacks" not in broken:
        lacking = {"sampling"} if task.reconstructs else {"sampling", "generator"}
        callbacks = cfg.get("callbacks") or {}
        makers = [name for name, node in callbacks.items() if lacking.intersection(signature(node[TARGET]) or {})]
        text = f"makes samples, which {task.noun} cannot; leave it out"
        mistakes += [Mistake(f"callbacks.{name}", text) for name in makers]
    if not broken.intersection(("objective", "callbacks", "metrics", "likelihoods", "evaluation", "trainer")):
        mistakes += unlogged(cfg, task)
    if "init" in broken:  # decides what may be built
        return mistakes
    if "codec" not in broken and codec_uses(cfg) == task.network:
        return [*mistakes, Mistake("codec", f"is made of {task.noun}, which is what is trained; take codec=identity")]
    return mistakes + contradictions(cfg, task, broken, initial=initial, teachers=teachers)


def tasked(cfg: DictConfig) -> tuple[Task | None, list[Mistake]]:
    """The config's task, on which the other groups depend; None with the mistakes where it cannot be built."""
    if mistakes := structure(OmegaConf.create({"task": cfg.get("task")}), {}, ["task"]):
        return None, mistakes
    return try_instantiate(cfg, "task")


def check_model(cfg: DictConfig, also: Collection[str] = (), spec: DataSpec | None = None) -> None:
    """Find every mistake in the groups that a trained model is rebuilt from, and in the groups `also`.

    Args:
        cfg: its config.
        also: further groups.
        spec: what the model knows of its data, where that is known.

    Raises:
        ConfigError: with all of them.
    """
    part, task, mistakes = structure_of_model(cfg, also)
    if task is not None:
        mistakes += contradictions(part, task, {path.partition(".")[0] for path, _ in mistakes}, spec)
    if mistakes:
        raise ConfigError(mistakes)


def structure_of_model(cfg: DictConfig, also: Collection[str] = ()) -> tuple[DictConfig, Task | None, list[Mistake]]:
    """The part of a config that a trained model is rebuilt from, with the groups `also`; its task and its errors."""
    part = OmegaConf.masked_copy(cfg, [group for group in (*MODEL, *also, TRUST) if group in cfg])
    task, mistakes = tasked(cfg)
    if task is None:
        return part, None, mistakes
    unused = unused_in(cfg, task)
    required = [group for group in (*MODEL, *also) if group not in (*OPTIONAL, *unused)]
    return part, task, structure(part, {TRUST: RUN_OPTIONS[TRUST]}, required, (*OPTIONAL, *unused))


def unused_in(cfg: DictConfig, task: Task) -> list[str]:
    """The groups that neither the task nor the config's codec has a use for."""
    try:
        used = codec_uses(cfg)
    except ConfigError:  # is reported where the codec is built
        used = None
    return [group for group in task.unused if group != used]


def contradictions(
    cfg: DictConfig,
    task: Task,
    broken: Collection[str],
    spec: DataSpec | None = None,
    initial: "Model | None" = None,
    teachers: Mapping[str, Teacher] | None = None,
) -> list[Mistake]:
    """The mistakes found by building the parts and combining them, without data.

    Args:
        cfg: the composed config, or a part of it.
        task: its task.
        broken: the groups whose structure is already known to be wrong; nothing is built of them.
        spec: what the model knows of its data, where that is known.
        initial: the model that it starts from, if any.
        teachers: the models that its auxiliaries compare with, if any.
    """
    mistakes: list[Mistake] = []

    def build(group: str, **offered: Any) -> Any:
        missing = group.partition(".")[0] in broken or OmegaConf.select(cfg, group) is None
        if missing or any(part is None for part in offered.values()):
            return None
        component, found = try_instantiate(cfg, group, **offered)
        mistakes.extend(found)
        return component

    def check_compatible(group: str, part: Any, *others: Any, method: str = "check") -> None:
        """Check by a part's method that it is compatible with the others, if all of them could be built."""
        if any(each is None for each in (part, *others)):
            return
        try:
            getattr(part, method)(*others)
        except OptionError as error:
            mistakes.extend(mistakes_of(cfg, group, error))
        except UserError as error:
            # A part's message does not include its name: "keeps a history for each discrete time, but ...".
            mistakes.append(Mistake(group, f"{type(part).__name__} {error}"))

    data: Source | None = build("data")
    check_compatible("captions", build("captions"), data)
    are_classes_known = spec is not None
    spec = data.spec() if spec is None and data is not None else spec
    codec = None
    if spec is not None and "codec" not in broken:
        with without_values():  # only its shapes are looked at
            codec = build("codec", spec=spec, **network_of_codec(cfg, spec, mistakes))
    diffused = diffused_by(codec, spec, mistakes)
    size = None if diffused is None else diffused.image_size
    schedule, parameterization, variance = build("schedule"), build("parameterization"), build("variance")
    # Any size will do where the data is unknown: the effect on the schedule's range is the same.
    offered = {"image_size": 64} if diffused is None else {} if size is None else {"image_size": size}
    for name in cfg.get("rescalings") or {}:
        schedule = build(f"rescalings.{name}", schedule=schedule, **offered)
    if cfg.get("thresholding") is not None and "thresholding" not in broken:
        thresholding, found = try_instantiate(cfg, "thresholding", spec=diffused)
        mistakes += found
        check_compatible("thresholding", thresholding, diffused)
    sampler = build("sampler", timestep_spacing=build("timestep_spacing"))
    of_loss = {} if diffused is None else of_spec(diffused)
    parts = {name: build(name, **of_loss, **loaders(cfg)) for name in LOSS if cfg.get(name) is not None}
    objective, time_sampler = None, parts.get("time_sampler")
    if cfg.get("objective") is not None and "objective" not in broken:
        if getattr(target_of(cfg, "objective"), "trains", task.model) is not task.model:
            instead = task.instead.get("objective", "take another")
            mistakes.append(Mistake("objective", f"does not train {task.noun}; {instead}"))
        else:
            objective = build("objective", **parts, **of_loss, **loaders(cfg))
    build("lr_schedule")
    build("ema", network=nn.Identity())
    with without_values():
        text = build("text", vocabulary=known_words(spec, initial))
    if "text" not in task.unused and "conditions" not in broken:
        unread = "is read by no condition; add conditions=[text], or leave it out"
        wrong = {mistake.path for mistake in mistakes}
        mistakes += [Mistake(group, unread) for group in unread_groups(cfg) if group not in wrong]
    conditions, found = check_conditions(cfg, broken, data, codec, diffused, text)
    mistakes += found
    if sampler is not None and schedule is not None:
        try:
            sampler.times(schedule)
        except UserError as error:
            mistakes += mistakes_of(cfg, "timestep_spacing", error)
    check_compatible("time_sampler", time_sampler, schedule)
    check_compatible("perceptual", parts.get("perceptual"), diffused)
    check_compatible("objective", objective, schedule, variance)
    check_compatible("parameterization", parameterization, schedule)
    build("process", schedule=schedule, parameterization=parameterization)
    for name in cfg.get("likelihoods") or {}:
        likelihood = build(f"likelihoods.{name}")
        check_compatible(f"likelihoods.{name}", likelihood, schedule)
        check_compatible(f"likelihoods.{name}", likelihood, diffused, method="check_data")
    adapter: Adapter | None = build("adapter")
    if adapter is not None and "init" in cfg and cfg.init.checkpoint is None:
        mistakes.append(Mistake(INIT, FROZEN))
    sides = None if spec is None or diffused is None else (spec.image_size, diffused.image_size)
    mistakes += check_network(cfg, task, broken, diffused, conditions.values(), initial, adapter, sides, teachers or {})
    guidance: Guidance | None = build("guidance", **loaders(cfg))
    if guidance is not None:
        # A rescaled schedule depends on the size of the images.
        known = schedule if diffused is not None or not cfg.get("rescalings") else None
        of_model = diffused if are_classes_known else None
        mistakes += check_guidance(cfg, guidance, known, of_model, conditions.values(), sampler)
    if not {"trainer", "batch_size"}.intersection(broken) and "trainer" in cfg:
        mistakes += shares(cfg)
    return mistakes


def check_conditions(
    cfg: DictConfig,
    broken: Collection[str],
    data: Source | None,
    codec: Codec | None,
    diffused: DataSpec | None,
    text: TextEncoder | None,
) -> tuple[dict[str, Any], list[Mistake]]:
    """The conditions by their names, None where one cannot be built, and their mistakes.

    Args:
        cfg: the config.
        broken: see `contradictions`.
        data: its source; None where it is not known.
        codec: between the data and what is diffused; None likewise.
        diffused: the spec of that; None likewise. Then a condition that must know of it is built with the network.
        text: the encoder of captions; None where there is none.
    """
    of_text = {} if text is None else {"text": text}
    conditions: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for name, node in {} if "conditions" in broken else (cfg.get("conditions") or {}).items():
        path, needs = f"conditions.{name}", signature(node[TARGET]) or {}
        condition = conditions[name] = None
        if isinstance(codec, CachedCodec) and "trainer" in cfg and (why := needs_images(cfg, name)):
            mistakes.append(Mistake(path, why))
        elif reads_text(cfg, name) and text is None and cfg.get("text") is not None:
            continue  # what is wrong with it is reported already
        elif diffused is not None or not {"in_channels", "image_size"}.intersection(needs):
            offered = {} if diffused is None else of_spec(diffused)
            condition, found = try_instantiate(cfg, path, num_classes=2, dim=2, **of_text, **offered)
            conditions[name] = condition
            mistakes += found
            if condition is not None and condition.tells_all and not isinstance(codec, CachedCodec):
                mistakes.append(Mistake(path, "gives the whole image, of which nothing is left to make; allowed: less"))
        if data is not None and condition is not None:
            mistakes += mistakes_of_data(cfg, name, condition, data)
    return conditions, mistakes


def network_of_codec(cfg: DictConfig, spec: DataSpec, mistakes: list[Mistake]) -> dict[str, Any]:
    """What a codec is handed as its network, if it has one; what is wrong with it is the codec's mistake."""
    if (group := codec_uses(cfg)) is None:
        return {}
    if cfg.get(group) is None:  # is reported as missing
        return {"network": None}
    network, found = try_instantiate(cfg, group, **of_spec(spec))
    mistakes += [
        Mistake("codec", f"does not go with this data: {group}{path.removeprefix(group)} {text}")
        for path, text in found
    ]
    return {"network": network}


def diffused_by(codec: Codec | None, spec: DataSpec | None, mistakes: list[Mistake]) -> DataSpec | None:
    """The spec of what is diffused, where it is known; what is wrong is added to `mistakes`."""
    if codec is None or spec is None:
        return None
    try:
        return codec.spec(spec)
    except UserError as error:
        mistakes.append(Mistake("codec", f"{type(codec).__name__} {error}"))
        return None


def check_guidance(
    cfg: DictConfig,
    guidance: Guidance,
    schedule: Schedule | None,
    spec: DataSpec | None,
    conditions: Collection[Any],
    sampler: Sampler | None,
) -> list[Mistake]:
    """The mistakes of a guidance with the model to guide and the sampler; None stands for what is not known."""
    mistakes = []
    try:
        guidance.check(schedule, spec, is_conditional(cfg))
    except UserError as error:
        mistakes += mistakes_of(cfg, "guidance", error)
    known = [each for each in conditions if each is not None]
    kept = bool(known) and not any(each.has_null for each in known)
    if guidance.needs_unconditional and (kept or not all(each.has_dropout for each in known if each.has_null)):
        needs = "also needs the model without labels, for which it was not trained"
        mistakes.append(Mistake("guidance", f"{needs}; train with dropout above 0 in each of conditions"))
    if guidance.moves_mean and sampler is not None and not sampler.supports_mean_guidance:
        mistakes.append(Mistake("guidance.form", "is mean; allowed: score with this sampler, or sampler=ancestral"))
    return mistakes


def check_network(
    cfg: DictConfig,
    task: Task,
    broken: Collection[str],
    spec: DataSpec | None,
    conditions: Collection[Any],
    initial: "Model | None",
    adapter: Adapter | None,
    sides: tuple[int | None, int | None] | None,
    teachers: Mapping[str, Teacher],
) -> list[Mistake]:
    """The mistakes of the network's own parameters, its condition, the shape of what is diffused and what it starts as.

    It is built without memory for its weights; the number of classes does not matter to it, and is that of the model
    that it starts from, if any. A network of a user's own need not bear that, so it is only imported here.
    """
    from langevin.assembly.auxiliaries import mistakes_of_auxiliaries  # not at the top, see `mistakes_in`
    from langevin.assembly.init_run import mistakes_of_initial
    from langevin.assembly.sized import training_mistakes

    group = task.network
    if spec is None or {"data", "conditions", group}.intersection(broken) or any(each is None for each in conditions):
        return []
    try:
        axes = getattr(target_of(cfg, group), "axes", len(spec.shape) - 1)
    except ConfigError as error:
        return error.mistakes
    if axes != len(spec.shape) - 1:
        kinds = {0: "vectors (D,)", 2: "images (C, H, W)"}
        text = f"is for {kinds.get(axes, f'samples of {axes + 1} axes')}, and these are of shape {spec.shape}"
        return [Mistake(group, f"{text}; allowed: such as {group}={'mlp' if axes else 'unet_small'}")]
    if cfg[group][TARGET] not in targets(group):
        return []
    with without_values():
        classes = spec.num_classes or (None if initial is None else initial.spec.num_classes) or 2
        known = {**of_spec(spec), "vocabulary": known_words(spec, initial)}
        network, mistakes = try_instantiate(cfg, group, **known, **task.offered(cfg, classes, None, known))
    if isinstance(network, Network):
        mistakes += [Mistake("conditions", text) for text in network.unsuited()]
        network.leave_out_tokens()
    mistakes += hint_mistakes(network, sides) + ([] if "loader" in broken else training_mistakes(cfg, network))
    if getattr(network, "adapter", None) is not None and "init" in cfg and cfg.init.checkpoint is None:
        mistakes.append(Mistake(INIT, FROZEN))
    if adapter is not None and network is not None and "init" in cfg:
        try:
            adapter.check(network)
        except UserError as error:
            return [*mistakes, *mistakes_of(cfg, "adapter", error)]
    if network is not None and not {"auxiliaries", "objective"}.intersection(broken):
        mistakes += mistakes_of_auxiliaries(cfg, network, spec, teachers)
    if network is not None and initial is not None:
        mistakes += mistakes_of_initial(cfg, task, initial, network, spec)
    return mistakes


def shares(cfg: DictConfig) -> list[Mistake]:
    """Check that a batch divides evenly into processes and micro-batches, where their number is known."""
    names = ("devices", "num_nodes", "accumulate_grad_batches")
    counts = [cfg.trainer.get(name) for name in names]
    counts = [int(count) if isinstance(count, str) and count.isdigit() else count for count in counts]
    if not all(isinstance(count, int) and count > 0 for count in counts):
        return []
    if cfg.batch_size % math.prod(counts) == 0:
        return []
    of = " * ".join(f"{count} (trainer.{name})" for name, count in zip(names, counts, strict=True) if count > 1)
    return [Mistake("batch_size", f"is {cfg.batch_size}; allowed: a multiple of {of}")]
