"""What a checkpoint holds of a model, and the model rebuilt from it; imports no Lightning."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

import langevin
from langevin.assembly.check import check_model, structure_of_model
from langevin.assembly.components import MODEL, SAMPLING, make_adapter, make_codec, make_generator, make_model
from langevin.assembly.conditioning import is_class_conditional
from langevin.assembly.make import make
from langevin.assembly.sizes import MisfitError, fitting, require_held, require_sizes
from langevin.assembly.tasks import task_of
from langevin.assembly.text_files import find_own
from langevin.autoencoding.model import AutoencoderModel
from langevin.checkpoint import RECORD, find_checkpoint, folder_of, read_checkpoint
from langevin.codecs.codec import Codec
from langevin.config.stored import StoredError, forget_places, read_stored, refuse_modality, refuse_untrusted
from langevin.config.types import TARGET, plain
from langevin.config.validate import ConfigError
from langevin.diffusion.classifier import CleanClassifier, NoisyClassifier
from langevin.diffusion.denoiser import Denoiser
from langevin.errors import OptionError, UserError
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.restored import Restored
from langevin.spec import DataSpec
from langevin.training.ema import EMA, WIDTH

EMAS, AVERAGED, CODEC = "ema.", "ema.network.", "codec."
"""The prefixes of the names of what the run's `EMA` holds, of the EMA weights in it, and of the codec's."""


class Model(NamedTuple):
    """A trained model, rebuilt from the config stored with its weights.

    Attributes:
        model: with the EMA weights; those of an adapter are merged into them.
        codec: between its data and what is diffused.
        cfg: the config it was trained with.
        spec: what it knows of its data.
        step: the optimizer step it stands at.
    """

    model: Denoiser | NoisyClassifier | AutoencoderModel
    codec: Codec
    cfg: DictConfig
    spec: DataSpec
    step: int

    @property
    def denoiser(self) -> Denoiser:
        """The model, where it is known to be no classifier."""
        assert isinstance(self.model, Denoiser)
        return self.model

    @property
    def diffused(self) -> DataSpec:
        """The spec of what is diffused."""
        return self.codec.spec(self.spec)

    def generator(
        self,
        cfg: DictConfig,
        labels: int | Sequence[int] | None,
        restored: Restored | None = None,
    ) -> SamplePipeline:
        """Its sampling pipeline, see `make_generator`; `cfg` is its config with other choices of `SAMPLING`."""
        labels = [labels] if isinstance(labels, int) else None if labels is None else list(labels)
        return make_generator(cfg, self.spec, self.codec, labels, restored)


def record_of(cfg: DictConfig, spec: DataSpec, origin: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a checkpoint stores beside the weights, so that the model can be rebuilt: plain values.

    Args:
        cfg: the config.
        spec: of the data.
        origin: what is known of weights that were not trained here, such as their licence.
    """
    record = {"version": langevin.__version__, "config": OmegaConf.to_yaml(cfg, resolve=True), "spec": spec.plain()}
    return record | ({"origin": dict(origin)} if origin else {})


def record_of_merged(record: Mapping[str, Any], ema_width: float | None = None) -> dict[str, Any]:
    """A checkpoint's record for the weights of its `Model`: its config without an adapter, which is merged there.

    If an EMA of another width is chosen, `ema_width`, the config is of that one.
    """
    cfg = read_stored(record["config"])
    if cfg.get("adapter") is None and ema_width is None:
        return dict(record)
    if "adapter" in cfg:
        cfg.adapter = None
    if ema_width is not None:
        cfg.ema.width, cfg.ema.widths = ema_width, [ema_width]
    return {**record, "config": OmegaConf.to_yaml(cfg)}


def checkpoint_of(
    network: nn.Module, record: Mapping[str, Any], codec: Codec | None = None, step: int = 0
) -> dict[str, Any]:
    """A checkpoint of weights alone, which cannot be resumed: a network's, its codec's, and the record."""
    weights = {AVERAGED + name: tensor for name, tensor in network.state_dict().items()}
    weights |= {} if codec is None else {CODEC + name: tensor for name, tensor in codec.state_dict().items()}
    return {"global_step": step, RECORD: dict(record), "state_dict": weights}  # the step first, see `runs.read_step`


def load_model(path: Path, trust: Sequence[str] = (), ema_width: float | None = None) -> Model:
    """Rebuild a generative model from a checkpoint, which need not be trusted.

    Args:
        path: the checkpoint.
        trust: packages, modules or classes by their full names that its config, and the configs of the runs that it
            names, may use besides those of our `conf`.
        ema_width: of a run with ema=power: the relative width of its EMA; None: that of the EMA weights it holds.

    Raises:
        UserError: when the file is missing, damaged, not Langevin's, a classifier's, does not fit its own config, or
            names code that is not trusted; or when there is no EMA of that width.
    """
    return generative(_rebuilt(path, trust, ema_width), path)


def load_trained(path: Path, trust: Sequence[str] = (), ema_width: float | None = None) -> Model:
    """Rebuild what a run of any task has trained.

    Raises:
        UserError: as `load_model`, but for a model of another task.
    """
    return _rebuilt(path, trust, ema_width)


def load_evaluated(path: Path, trust: Sequence[str] = (), ema_width: float | None = None) -> Model:
    """Rebuild what metrics are computed of: a generative model, or an autoencoder; see `load_model`.

    Raises:
        UserError: as `load_model`, but for an autoencoder.
    """
    rebuilt = _rebuilt(path, trust, ema_width)
    return rebuilt if isinstance(rebuilt.model, AutoencoderModel) else generative(rebuilt, path)


def generative(rebuilt: Model, path: Path) -> Model:
    """The model of a checkpoint, where it is a generative one.

    Raises:
        UserError: when it is not.
    """
    if not isinstance(rebuilt.model, Denoiser):
        kind = kind_of(rebuilt)
        task = f"task={kind.rpartition(' ')[2]}"
        raise UserError(f"checkpoint {path} holds {kind} ({task}); give one of a model of images")
    return rebuilt


def kind_of(rebuilt: Model) -> str:
    """What a model is, for a message."""
    return task_of(rebuilt.cfg).noun


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


def classifier_for_guidance(option: str, value: str, trust: Sequence[str] = ()) -> tuple[NoisyClassifier, DataSpec]:
    """The classifier that an option's value, a run's folder or a checkpoint, names; and the spec of what it is shown.

    Raises:
        UserError: as `load_model`, or when it is not a classifier; the message names the option.
    """
    classifier, rebuilt = _classifier_for(option, value, trust)
    return classifier, rebuilt.diffused


def classifier_for_features(
    option: str, value: str, trust: Sequence[str] = ()
) -> tuple[CleanClassifier, DataSpec, str]:
    """The same for images without noise; and the name of the data that it was trained on.

    Raises:
        UserError: as `classifier_for_guidance`.
    """
    classifier, (_, codec, cfg, spec, _) = _classifier_for(option, value, trust)
    if codec.record():
        raise OptionError(option, f"is {value}; allowed: a classifier of images, and this is one of latents")
    require_trusted(Path(value), cfg, OmegaConf.create(), ["data"])
    # What another library's weights were trained on is not known.
    name = "imported" if cfg.get("data") is None else make(cfg, "data").name
    return CleanClassifier(classifier).eval(), spec, name


def autoencoder_of(option: str, value: str, trust: Sequence[str] = ()) -> tuple[nn.Module, int, dict[str, Any]]:
    """The autoencoder that an option's value names, the channels of its images, and its node in a config.

    Raises:
        UserError: as `load_model`, or when it is not an autoencoder of images; the message names the option.
    """
    rebuilt = _rebuilt_for(option, value, trust)
    if not isinstance(rebuilt.model, AutoencoderModel):
        text = f"is {value}; allowed: an autoencoder's run (task=autoencoder); this is {kind_of(rebuilt)}'s"
        raise OptionError(option, text)
    return rebuilt.model.network, rebuilt.spec.channels, plain(rebuilt.cfg.autoencoder)


def autoencoder_for_codec(option: str, value: str, trust: Sequence[str] = ()) -> Mapping[str, Tensor]:
    """The EMA weights of the autoencoder that an option's value names.

    Raises:
        UserError: as `autoencoder_of`.
    """
    return autoencoder_of(option, value, trust)[0].state_dict()


def denoiser_for_guidance(option: str, value: str, trust: Sequence[str] = ()) -> tuple[Denoiser, DataSpec, bool]:
    """The model that an option's value names, the spec of what it diffuses, and whether it is class-conditional.

    Raises:
        UserError: as `load_model`; the message names the option.
    """
    rebuilt = _rebuilt_for(option, value, trust)
    if not isinstance(rebuilt.model, Denoiser):
        raise OptionError(option, f"is {value}; allowed: a denoiser's run; this is {kind_of(rebuilt)}'s")
    return rebuilt.model, rebuilt.diffused, is_class_conditional(rebuilt.cfg)


def _classifier_for(option: str, value: str, trust: Sequence[str]) -> tuple[NoisyClassifier, Model]:
    rebuilt = _rebuilt_for(option, value, trust)
    if not isinstance(rebuilt.model, NoisyClassifier):
        raise OptionError(
            option, f"is {value}; allowed: a classifier's run (task=classifier); this is {kind_of(rebuilt)}'s"
        )
    return rebuilt.model, rebuilt


def _rebuilt_for(option: str, value: str, trust: Sequence[str]) -> Model:
    if not Path(value).exists():
        raise OptionError(option, f"is {value}, which does not exist; allowed: a run's folder or a .ckpt file")
    try:
        return _rebuilt(find_checkpoint(Path(value)), trust)
    except UserError as error:
        raise OptionError(option, f"is {value}; {error}") from error


def _rebuilt(path: Path, trust: Sequence[str], ema_width: float | None = None) -> Model:
    checkpoint = read_checkpoint(path)
    cfg, spec = _described(checkpoint[RECORD], path, trust)
    state, step = checkpoint.get("state_dict"), checkpoint.get("global_step")
    if not isinstance(state, Mapping) or not isinstance(step, int):
        raise UserError(
            f"checkpoint {path} holds no weights (state_dict) and step (global_step) as Langevin writes them"
        )
    weights, of_codec = (
        {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if isinstance(name, str) and name.startswith(prefix) and isinstance(value, Tensor)
        }
        for prefix in (AVERAGED, CODEC)
    )
    if ema_width is not None:
        weights |= _of_width(ema_width, weights, cfg, path, state, step)
    misfit = f"checkpoint {path} does not fit the config stored in it"
    try:
        if mistakes := structure_of_model(cfg)[-1]:
            raise ConfigError(mistakes)
        require_held((*weights.values(), *of_codec.values()), path.stat().st_size)
        if (adapter := make_adapter(cfg)) is not None:
            weights = adapter.merged(weights)
        diffused = fitting("codec", lambda: make_codec(cfg, spec), of_codec).spec(spec)
        require_sizes(cfg, diffused, weights)
        check_model(cfg)
        codec, model = make_codec(cfg, spec), make_model(cfg, diffused)
    except MisfitError as error:
        raise UserError(f"{misfit}: {error}") from error
    except UserError as error:
        raise UserError(f"checkpoint {path} cannot be rebuilt: {error}") from error
    except (RuntimeError, MemoryError, TypeError, ValueError, OverflowError) as error:  # from absurd sizes
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"checkpoint {path} cannot be rebuilt ({type(error).__name__}: {reason})") from error
    try:
        model.network.load_state_dict(weights)
        codec.load_state_dict(of_codec)
    except RuntimeError as error:
        raise UserError(f"{misfit}: {error}") from error
    return Model(model.eval().requires_grad_(False), codec, cfg, spec, step)


def _of_width(
    width: float, own: Mapping[str, Tensor], cfg: DictConfig, path: Path, state: Mapping[Any, Any], step: int
) -> dict[str, Tensor]:
    """The weights of another EMA than a checkpoint's `own`; its config is then of that one."""
    if cfg.get("ema") is None:
        raise OptionError(WIDTH, f"is {width}; allowed: null, since the model was imported, with one set of weights")
    held = {
        name.removeprefix(EMAS): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith(EMAS) and isinstance(tensor, Tensor)
    }
    try:
        refuse_untrusted(cfg, ["ema"], cfg.trust)
        if mistakes := structure_of_model(cfg, ["ema"])[-1]:
            raise ConfigError(mistakes)
        require_held(tuple(own.values()), path.stat().st_size)
        ema: EMA = make(cfg, "ema", network=nn.Identity())
    except (StoredError, UserError) as error:
        raise UserError(f"checkpoint {path} cannot be rebuilt: its config {error}") from error
    weights = ema.post_hoc(width, step, held, folder_of(path))
    cfg.ema.width = width
    return weights


def _described(record: Any, path: Path, trust: Sequence[str]) -> tuple[DictConfig, DataSpec]:
    """The config and the spec of the data of a checkpoint's record; the record is not trusted."""
    if not isinstance(record, Mapping):
        raise UserError(f"checkpoint {path} was not written by Langevin: its '{RECORD}' record is no mapping")
    try:
        cfg = read_stored(record.get("config"))
        refuse_untrusted(cfg, (*MODEL, *SAMPLING), trust)
    except StoredError as error:
        raise UserError(f"checkpoint {path}: its config {error}") from error
    cfg["trust"] = list(trust)  # never its own
    forget_places(cfg)
    find_own(cfg, path.absolute().parent.parent)
    try:
        spec = DataSpec.read(record.get("spec"))
        refuse_modality(spec.modality, trust)
    except ValueError as error:
        raise UserError(f"checkpoint {path}: its record of the data {error}") from error
    return cfg, spec
