"""What a checkpoint holds of a model, and the model rebuilt from it; imports no Lightning."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

import langevin
from langevin.assembly.check import check_model, structure_of_model
from langevin.assembly.components import MODEL, SAMPLING, is_class_conditional, make_generator, make_model
from langevin.assembly.make import make
from langevin.assembly.sizes import MisfitError, require_sizes
from langevin.checkpoint import RECORD, find_checkpoint, read_checkpoint
from langevin.config.stored import StoredError, forget_places, read_stored, refuse_untrusted
from langevin.config.types import TARGET
from langevin.config.validate import ConfigError
from langevin.diffusion.classifier import CleanClassifier, NoisyClassifier
from langevin.diffusion.denoiser import Denoiser
from langevin.errors import OptionError, UserError
from langevin.facts import DataFacts
from langevin.samplers.generate import SamplePipeline

AVERAGED = "ema.network."
"""The prefix of the names of the EMA weights."""


class Model(NamedTuple):
    """A trained model, rebuilt from the config stored with its weights.

    Attributes:
        denoiser: the model with the EMA weights.
        cfg: the config it was trained with.
        facts: what it knows of its data.
        step: the optimizer step it stands at.
    """

    denoiser: Denoiser
    cfg: DictConfig
    facts: DataFacts
    step: int

    def generator(self, cfg: DictConfig, labels: int | Sequence[int] | None) -> SamplePipeline:
        """Its sampling pipeline; `cfg` is its config with other choices of sampler, timestep spacing and guidance."""
        labels = [labels] if isinstance(labels, int) else None if labels is None else list(labels)
        return make_generator(cfg, self.facts, labels)


def record_of(cfg: DictConfig, facts: DataFacts) -> dict[str, Any]:
    """What a checkpoint stores beside the weights, so that the model can be rebuilt: plain values."""
    return {"version": langevin.__version__, "config": OmegaConf.to_yaml(cfg, resolve=True), "facts": facts.plain()}


def checkpoint_of(network: nn.Module, record: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of a network that has not been trained here: its weights, and the record, as of step 0."""
    weights = {AVERAGED + name: tensor for name, tensor in network.state_dict().items()}
    return {RECORD: record, "state_dict": weights, "global_step": 0}


def load_model(path: Path, trust: Sequence[str] = ()) -> Model:
    """Rebuild a model of images from a checkpoint, which need not be trusted.

    Args:
        path: the checkpoint.
        trust: packages, modules or classes by their full names that its config, and the configs of the runs that it
            names, may use besides those of our `conf`.

    Raises:
        UserError: when the file is missing, damaged, not Langevin's, a classifier's, does not fit its own config, or
            names code that is not trusted.
    """
    model, cfg, facts, step = _rebuilt(path, trust)
    if not isinstance(model, Denoiser):
        raise UserError(f"checkpoint {path} holds a classifier (task=classifier); give one of a model of images")
    return Model(model, cfg, facts, step)


def require_trusted(path: Path, cfg: DictConfig, choices: DictConfig, groups: Iterable[str]) -> None:
    """Check that further groups of a model's own config may be built, unless `choices` replace them.

    Raises:
        UserError: when they name code that is not trusted.
    """
    own = [group for group in groups if TARGET not in (choices.get(group) or {})]
    try:
        refuse_untrusted(cfg, own, cfg.trust)
    except StoredError as error:
        raise UserError(f"checkpoint {path}: its config {error}") from error


def override(cfg: DictConfig, choices: DictConfig, groups: Iterable[str]) -> DictConfig:
    """A model's own config with other choices: a whole component in place of its own, or single fields of its own."""
    result = copy.deepcopy(cfg)
    for group in groups:
        if group not in choices:
            continue
        choice, own = choices[group], result.get(group)
        result[group] = choice if own is None or choice is None or TARGET in choice else OmegaConf.merge(own, choice)
    return result


def classifier_for_guidance(option: str, value: str, trust: Sequence[str] = ()) -> tuple[NoisyClassifier, DataFacts]:
    """The classifier that an option's value, a run's folder or a checkpoint, names; and its data facts.

    Raises:
        UserError: as `load_model`, or when it is not a classifier; the message names the option.
    """
    classifier, _, facts = _classifier_for(option, value, trust)
    return classifier, facts


def classifier_for_features(
    option: str, value: str, trust: Sequence[str] = ()
) -> tuple[CleanClassifier, DataFacts, str]:
    """The same for images without noise; and the name of the data that it was trained on.

    Raises:
        UserError: as `classifier_for_guidance`.
    """
    classifier, cfg, facts = _classifier_for(option, value, trust)
    require_trusted(Path(value), cfg, OmegaConf.create(), ["data"])
    # What another library's weights were trained on is not known.
    name = "imported" if cfg.get("data") is None else make(cfg, "data").name
    return CleanClassifier(classifier).eval(), facts, name


def denoiser_for_guidance(option: str, value: str, trust: Sequence[str] = ()) -> tuple[Denoiser, DataFacts, bool]:
    """The model that an option's value names, its data facts, and whether it is class-conditional.

    Raises:
        UserError: as `load_model`; the message names the option.
    """
    model, cfg, facts, _ = _rebuilt_for(option, value, trust)
    if not isinstance(model, Denoiser):
        raise OptionError(option, f"is {value}; allowed: the run of a model of images, and this is a classifier's")
    return model, facts, is_class_conditional(cfg)


def _classifier_for(option: str, value: str, trust: Sequence[str]) -> tuple[NoisyClassifier, DictConfig, DataFacts]:
    model, cfg, facts, _ = _rebuilt_for(option, value, trust)
    if not isinstance(model, NoisyClassifier):
        raise OptionError(option, f"is {value}; allowed: a classifier's run (task=classifier); this is a denoiser's")
    return model, cfg, facts


def _rebuilt_for(
    option: str, value: str, trust: Sequence[str]
) -> tuple[Denoiser | NoisyClassifier, DictConfig, DataFacts, int]:
    try:
        return _rebuilt(find_checkpoint(Path(value)), trust)
    except UserError as error:
        raise OptionError(option, f"is {value}; {error}") from error


def _rebuilt(path: Path, trust: Sequence[str]) -> tuple[Denoiser | NoisyClassifier, DictConfig, DataFacts, int]:
    checkpoint = read_checkpoint(path)
    cfg, facts = _described(checkpoint[RECORD], path, trust)
    state, step = checkpoint.get("state_dict"), checkpoint.get("global_step")
    if not isinstance(state, Mapping) or not isinstance(step, int):
        raise UserError(
            f"checkpoint {path} holds no weights (state_dict) and step (global_step) as Langevin writes them"
        )
    weights = {
        name.removeprefix(AVERAGED): value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(AVERAGED) and isinstance(value, Tensor)
    }
    misfit = f"checkpoint {path} does not fit the config stored in it"
    try:
        if mistakes := structure_of_model(cfg)[1]:
            raise ConfigError(mistakes)
        require_sizes(cfg, facts, weights, path.stat().st_size)
        check_model(cfg)
        model = make_model(cfg, facts)
    except MisfitError as error:
        raise UserError(f"{misfit}: {error}") from error
    except UserError as error:
        raise UserError(f"checkpoint {path} cannot be rebuilt: {error}") from error
    except (RuntimeError, MemoryError, TypeError, ValueError, OverflowError) as error:  # from absurd sizes
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"checkpoint {path} cannot be rebuilt ({type(error).__name__}: {reason})") from error
    try:
        model.network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{misfit}: {error}") from error
    return model.eval().requires_grad_(False), cfg, facts, step


def _described(record: Any, path: Path, trust: Sequence[str]) -> tuple[DictConfig, DataFacts]:
    """The config and the data facts of a checkpoint's record; the record is not trusted."""
    if not isinstance(record, Mapping):
        raise UserError(f"checkpoint {path} was not written by Langevin: its '{RECORD}' record is no mapping")
    try:
        cfg = read_stored(record.get("config"))
        refuse_untrusted(cfg, (*MODEL, *SAMPLING), trust)
    except StoredError as error:
        raise UserError(f"checkpoint {path}: its config {error}") from error
    cfg["trust"] = list(trust)  # never its own
    forget_places(cfg)
    try:
        return cfg, DataFacts.read(record.get("facts"))
    except ValueError as error:
        raise UserError(f"checkpoint {path}: its record of the data {error}") from error
