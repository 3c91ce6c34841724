"""`langevin convert`: models from other libraries (`import=PLACE`), and ours to diffusers (`export=RUN`)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from langevin.cli import command
from langevin.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from langevin.assembly.tasks import Task
    from langevin.config.validate import Mistake
    from langevin.interop.imported import Imported

OPTIONS = {
    "import": "str | None",
    "flags": "str | None",
    "export": "str | None",
    "ema_width": "Annotated[float, Gt(0)] | None",
    "out": "str",
    "overwrite": "bool",
    "trust": "list[str]",
    "output_dir": "str",
}
ACCEPTED = (
    "a folder of diffusers (model_index.json or config.json with its weights), or a state dict of OpenAI's, EDM's or "
    "DiT's networks or CompVis' autoencoders (.pt, .pth, .bin, .ckpt or .safetensors)"
)
SEVERAL = 3
"""How many mismatched weights are named in a message."""


def run(cfg: DictConfig) -> None:
    """Convert what the config names."""
    from langevin.assembly.components import MODEL, SAMPLING
    from langevin.config.types import TARGET
    from langevin.config.validate import ConfigError, Mistake, structure

    groups = (*MODEL, *SAMPLING)
    # Single fields may be chosen, which by themselves are no component.
    options = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name not in groups])
    mistakes = structure(options, OPTIONS, optional=groups)
    importing = cfg["import"] is not None
    if importing == (cfg.export is not None):
        mistakes.append(
            Mistake("import", "give either import=FOLDER_OR_FILE or export=RUN_OR_CHECKPOINT, and not both")
        )
    elif importing:
        mistakes += [
            Mistake(group, f"is what is imported; leave it out, single fields may be set, such as {group}.dropout=0.1")
            for group in ("model", "classifier", "autoencoder", "codec", "text")
            if TARGET in (cfg.get(group) or {})
        ]
        if cfg.ema_width is not None:
            mistakes.append(Mistake("ema_width", "goes with export=; leave it out"))
    else:
        unfit = "goes with import=; an exported model is as it is"
        mistakes += [Mistake(group, unfit) for group in MODEL if group in cfg]
        if cfg.flags is not None:
            mistakes.append(Mistake("flags", "goes with import=; leave it out"))
    if mistakes:
        raise ConfigError(mistakes)

    out = Path(cfg.out)
    if not cfg.overwrite and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"out={out}: is there already; choose another out=, or overwrite=true")
    if importing:
        import_model(cfg, out)
    else:
        export_model(cfg, out)


def import_model(cfg: DictConfig, out: Path) -> None:
    """Write another library's model as a run that can be sampled from and evaluated, or a classifier to guide by.

    Sampling settings that the imported model does not specify are those of a training config.
    """
    from hydra import compose

    from langevin.assembly.check import check_model, unused_in
    from langevin.assembly.components import MODEL, SAMPLING, make_codec, make_model
    from langevin.assembly.saved import checkpoint_of, override, record_of
    from langevin.assembly.tasks import task_of
    from langevin.assembly.text_files import complete as complete_text
    from langevin.config.types import TARGET
    from langevin.config.validate import ConfigError, Mistake
    from langevin.spec import DataSpec

    imported = read(Path(cfg["import"]), cfg.flags)
    specified = {override.partition("=")[0] for override in imported.overrides}
    imported_cfg = compose("train", imported.overrides)
    OmegaConf.set_struct(imported_cfg, False)  # an unknown field is found by the check
    task = task_of(imported_cfg)
    mistakes = [
        Mistake(group, f"is not specified by the imported model; choose it: {group}=NAME")
        for group in ("schedule", "parameterization")
        if group not in (*specified, *task.unused) and TARGET not in (cfg.get(group) or {})
    ]
    unused = unused_in(imported_cfg, task)
    mistakes += unused_choices(cfg, task, unused)
    if mistakes:
        raise ConfigError(mistakes)
    groups = [group for group in (*MODEL, *SAMPLING) if group not in unused]
    whole = override(imported_cfg, cfg, groups)
    # It was not trained with our data, objective or optimizer, so none is recorded.
    chosen = OmegaConf.masked_copy(whole, [group for group in groups if group in whole])
    spec = DataSpec.of_images(imported.channels, imported.image_size, imported.num_classes)
    if imported.text is not None:
        chosen.text.path = str(imported.text)
        if mistakes := complete_text(chosen):
            raise ConfigError(mistakes)
    check_model(chosen, SAMPLING, spec)

    from langevin.assembly.captions import empty_caption
    from langevin.assembly.text_files import OWN_TEXT, frozen_encoder_of
    from langevin.codecs.autoencoder import AutoencoderCodec
    from langevin.files import write_atomically, write_json
    from langevin.interop.origin import ORIGIN, origin_of
    from langevin.interop.stable_diffusion import copy_encoder
    from langevin.training.checkpoint import AtomicCheckpointIO

    codec = make_codec(chosen, spec)
    if imported.codec is not None:
        assert isinstance(codec, AutoencoderCodec)
        load(codec.network, imported.codec.weights(parameters_of(chosen, "autoencoder")))
        codec.shift.fill_(imported.codec.shift)
    network = make_model(chosen, codec.spec(spec)).network
    weights = imported.weights(parameters_of(chosen))
    if imported.text is not None:
        weights |= empty_caption(network)
    load(network, weights)
    if (encoder := frozen_encoder_of(network)) is not None:
        chosen.text.path = str(copy_encoder(encoder, (out / OWN_TEXT).absolute()))
    origin = {**origin_of(Path(cfg["import"])), **imported.origin}
    record = record_of(chosen, spec, origin)
    (out / ORIGIN).unlink(missing_ok=True)  # of what was there before
    if origin:
        write_json(out / ORIGIN, origin)
    write_atomically(out / "config.yaml", lambda file: file.write(record["config"].encode()))
    AtomicCheckpointIO().save_checkpoint(checkpoint_of(network, record, codec), out / "checkpoints" / "last.ckpt")
    number = sum(weight.numel() for weight in network.parameters())
    print(f"{out}: {number:,} parameters for images of {spec.shape}; {task.use.format(run=out)}")
    for note in imported.notes:
        print(f"  {note}")


def unused_choices(cfg: DictConfig, task: "Task", unused: Sequence[str]) -> "list[Mistake]":
    """The groups that were chosen, of those that a model of a task has no use for."""
    from langevin.config.validate import Mistake

    return [Mistake(group, f"is not used by {task.noun}; leave it out") for group in unused if group in cfg]


def read(place: Path, flags: str | None) -> "Imported":
    """Read what is at `place`, whatever its format.

    Raises:
        UserError: when there is nothing, or it is of no known format, or the flags do not go with it.
    """
    from langevin.interop.autoencoders import is_autoencoder, read_autoencoder
    from langevin.interop.compvis import is_compvis, read_compvis
    from langevin.interop.dit import read_released_dit
    from langevin.interop.edm import read_edm
    from langevin.interop.imported import refuse_latents
    from langevin.interop.openai import read_openai
    from langevin.interop.openai_classifier import read_openai_classifier
    from langevin.interop.pipeline import is_folder, read_folder
    from langevin.weights import read_weights

    if not place.exists():
        raise UserError(f"import={place}: does not exist; allowed: {ACCEPTED}")
    if place.is_dir() and not is_folder(place):
        raise UserError(f"import={place}: holds no config.json; allowed: {ACCEPTED}")
    weights = {} if place.is_dir() else read_weights(place)
    openai = "time_embed.0.weight" in weights
    if openai and flags is None:
        raise UserError(
            f"flags: must be given for OpenAI's {place}, as its README has them: flags='--image_size 64 ...'"
        )
    if not openai and flags is not None:
        raise UserError(f"flags={flags}: goes with OpenAI's weights, which {place} are not; leave it out")
    if openai:
        # A classifier has the encoder only.
        up = any(name.startswith("output_blocks.") for name in weights)
        return (read_openai if up else read_openai_classifier)(weights, str(flags))
    if place.is_dir():
        return read_autoencoder(place) if is_autoencoder(place) else read_folder(place)
    if is_compvis(weights):
        return read_compvis(weights)
    if any(name.removeprefix("model.").startswith(("map_layer0.", "enc.")) for name in weights):
        return read_edm(weights)
    if "x_embedder.proj.weight" in weights:
        read = read_released_dit(weights)
        refuse_latents(place, read.channels)
        return read
    if "time_embedding.linear_1.weight" in weights or "encoder.conv_norm_out.weight" in weights:
        raise UserError(f"import={place}: are weights of diffusers; give the folder that holds their config.json too")
    raise UserError(f"import={place}: weights of no network that is known; allowed: {ACCEPTED}")


def load(network: "nn.Module", weights: "dict[str, Tensor]") -> None:
    """Load weights, all of them and no others.

    Raises:
        UserError: when they do not fit.
    """
    own = network.state_dict()
    check_network = [f"'{name}' is missing" for name in own if name not in weights]
    for name, tensor in weights.items():
        if name not in own:
            check_network.append(f"'{name}' has no place")
        elif tensor.shape != own[name].shape:
            check_network.append(f"'{name}' is {tuple(tensor.shape)}, not {tuple(own[name].shape)}")
    if check_network:
        more = f" and {len(check_network) - SEVERAL} more" if len(check_network) > SEVERAL else ""
        raise UserError(f"weights: do not fit the model of the config: {', '.join(check_network[:SEVERAL])}{more}")
    network.load_state_dict(weights)


def export_model(cfg: DictConfig, out: Path) -> None:
    """Write a trained model's EMA weights for diffusers, or as they are; an adapter is merged into them."""
    from langevin.assembly.captions import exported_encoder
    from langevin.assembly.check import check_model
    from langevin.assembly.components import SAMPLING, make_sampler
    from langevin.assembly.conditioning import is_class_conditional
    from langevin.assembly.low_res import low_res_of
    from langevin.assembly.saved import checkpoint_of, generative, load_trained, override, record_of_merged
    from langevin.assembly.tasks import task_of
    from langevin.autoencoding.model import AutoencoderModel
    from langevin.checkpoint import CHECKPOINT, RECORD, find_checkpoint, read_checkpoint
    from langevin.codecs.autoencoder import AutoencoderCodec
    from langevin.config.validate import ConfigError
    from langevin.interop.autoencoders import scaled_part, write_autoencoder
    from langevin.interop.folder import write_weights
    from langevin.interop.pipeline_export import write_folder
    from langevin.networks.network import Network
    from langevin.training.checkpoint import AtomicCheckpointIO
    from langevin.weights import SAFETENSORS

    path = find_checkpoint(Path(cfg.export), "export")
    model = load_trained(path, cfg.trust, cfg.ema_width)
    task = task_of(model.cfg)
    if mistakes := unused_choices(cfg, task, task.unused):
        raise ConfigError(mistakes)
    chosen = override(model.cfg, cfg, SAMPLING)
    check_model(chosen, SAMPLING)
    held = record_of_merged(read_checkpoint(path)[RECORD], cfg.ema_width)
    if out.suffix == CHECKPOINT:
        AtomicCheckpointIO().save_checkpoint(checkpoint_of(model.model.network, held, model.codec, model.step), out)
        print(f"{out}: the EMA weights of step {model.step}; {task.use.format(run=out)}")
        return
    record: dict[str, Any] = {**held, "step": model.step}
    if out.suffix == SAFETENSORS:
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in record.items()}
        write_weights(out, model.model.network.state_dict(), texts)
        print(f"{out}: the EMA weights of step {model.step}")
        return
    if isinstance(model.model, AutoencoderModel):
        kind = write_autoencoder(out, model.model.network, parameters_of(chosen), record)
        print(f"{out}: the EMA weights of step {model.step}; diffusers' {kind}.from_pretrained({str(out)!r})")
        return
    spec, codec = generative(model, path).diffused, model.codec
    autoencoder = None
    beside = low_res_of(model)
    enlarges = beside is not None and beside.tells_all and beside.level is None
    if isinstance(codec, AutoencoderCodec):
        scaling = codec.shift, codec.scale, not enlarges
        autoencoder = scaled_part(codec.network, parameters_of(chosen, "autoencoder"), *scaling)
    if spec.image_size is None or (codec.record() and autoencoder is None):
        allowed = f"a model of images, or of the latents of codec=autoencoder, or out=NAME{SAFETENSORS}"
        raise UserError(f"export={path}: allowed: {allowed}")
    if isinstance(model.denoiser.network, Network):
        model.denoiser.network.leave_out_transforms()
    taken = getattr(model.denoiser.network, "concat_channels", 0)
    if taken > 0 and not (enlarges and taken == spec.channels == model.spec.channels):
        allowed = f"a model that takes no other image than the one it makes, or out=NAME{SAFETENSORS}"
        raise UserError(f"export={path}: allowed: {allowed}")
    num_classes = spec.num_classes if is_class_conditional(chosen) else None
    text = exported_encoder(model.denoiser.network)
    parts = model.denoiser, make_sampler(chosen, spec), parameters_of(chosen)
    sizes = spec.channels, spec.image_size, num_classes
    notes = write_folder(out, *parts, *sizes, record, autoencoder, text, enlarges)
    print(f"{out}: the EMA weights of step {model.step} for diffusers")
    for note in notes:
        print(f"  {note}")


def parameters_of(cfg: DictConfig, group: str | None = None) -> dict[str, Any]:
    """The parameters of a config's network, or of another component."""
    from langevin.assembly.tasks import task_of
    from langevin.config.types import TARGET, plain

    return {name: value for name, value in plain(cfg[group or task_of(cfg).network]).items() if name != TARGET}


main = command("convert", run, OPTIONS)

if __name__ == "__main__":
    main()
