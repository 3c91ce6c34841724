"""What a pipeline of Stable Diffusion's layout has beside its network, autoencoder and scheduler: CLIP's text half."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from langevin.errors import UserError
from langevin.files import write_atomically, write_json
from langevin.interop.diffusers import Known, completed
from langevin.interop.folder import NETWORK_FILE, read_json, write_weights
from langevin.interop.renaming import settings
from langevin.text.clip import TEXT_HALF
from langevin.text.files import NETWORK, PICKLED, SAFE, TOKENIZER, VOCABULARY, WEIGHTS, vocabulary_files
from langevin.text.frozen import Files, FrozenTextEncoder
from langevin.weights import read_weights

STABLE, STABLE_CONTROL = "StableDiffusionPipeline", "StableDiffusionControlNetPipeline"
"""The latter with a `ControlNetModel` beside the network."""
LATENT_CHANNELS = 4
"""Of its networks, unless their config says otherwise."""
TEXT_CHOICES = (
    "conditions=[text]",
    "conditions.text.project=false",
    "conditions.text.pooled=false",
    "text=clip",
)
"""The tokens as CLIP gives them, padding too, and nothing else: how Stable Diffusion was trained."""
TEXT_PARTS: Mapping[str, list[Any]] = {
    NETWORK: ["transformers", "CLIPTextModel"],
    TOKENIZER: ["transformers", "CLIPTokenizer"],
    **{part: [None, None] for part in ("safety_checker", "feature_extractor", "image_encoder")},
}
"""The other parts of its index."""
TOKENIZER_CONFIG = "tokenizer_config.json"
ENCODER: Known = {
    "model_type": (None, "Literal['clip_text_model']"),
    "hidden_size": (512, "int"),
    "max_position_embeddings": (77, "Annotated[int, Ge(3)]"),
}
LENGTH: Known = {"model_max_length": (77, "Annotated[int, Ge(3)]")}
"""The fields of the configs of encoder and tokenizer that are looked at."""
LEFT_OUT = ("safety_checker", "image_encoder")
"""Parts of its folders that have no place here."""


def read_text(folder: Path, where: str, token_channels: int) -> list[str]:
    """The choices that are a network's encoder of text, but for the folder: the length that its pipeline pads texts to.

    Args:
        folder: the pipeline's.
        where: the place of the network's config, for messages.
        token_channels: the size of the tokens to which the network attends.

    Raises:
        UserError: when there is none, or it gives tokens of another size.
    """
    file = folder / NETWORK / NETWORK_FILE
    if not file.is_file() or not (folder / TOKENIZER).is_dir():
        allowed = f"the folder of its pipeline, which has {NETWORK}/ and {TOKENIZER}/ too"
        raise UserError(f"import={folder}: attends to text, whose encoder is not there; allowed: {allowed}")
    own = completed(str(file), read_json(file), ENCODER)
    length, size = own["max_position_embeddings"], own["hidden_size"]
    config = folder / TOKENIZER / TOKENIZER_CONFIG
    if config.is_file():
        length = min(length, completed(str(config), read_json(config), LENGTH)["model_max_length"])
    if size != token_channels:
        raise UserError(f"{where}: cross_attention_dim is {token_channels}; allowed: {size}, as its {NETWORK}/ gives")
    return settings("text", {"length": length})


def left_out(folder: Path) -> list[str]:
    """What a pipeline's folder has that is not imported, a sentence each."""
    return [f"its {name} is left out" for name in LEFT_OUT if (folder / name).is_dir()]


def copy_encoder(text: FrozenTextEncoder, out: Path) -> Path:
    """Copy an encoder's files to the subfolders that a pipeline has for them; of a whole CLIP, its text half.

    Files of another encoder that lie there are removed, for libraries would take them.

    Args:
        text: the encoder.
        out: the pipeline's folder, which is returned.

    Raises:
        UserError: when they are missing, or other ones than the encoder's.
    """
    files = text.own_files()
    assert files.tokenizer is not None
    network, tokenizer = out / NETWORK, out / TOKENIZER
    if files.network.resolve() != network.resolve():
        if read_json(files.network / NETWORK_FILE).get("model_type") == TEXT_HALF:
            sources = [files.network / NETWORK_FILE, *files.weights, *files.network.glob("*.index.json")]
            _copy(sources, network)
        else:
            sources = [network / WEIGHTS[0]]
            write_weights(sources[0], _of_text(files))
            write_json(network / NETWORK_FILE, {**files.config, "architectures": ["CLIPTextModel"]})
        _remove_others(network, (*SAFE, *PICKLED), sources)
    if files.tokenizer.resolve() != tokenizer.resolve():
        sources = vocabulary_files(files.tokenizer)
        _copy(sources, tokenizer)
        _remove_others(tokenizer, VOCABULARY, sources)
    return out


def _copy(sources: Sequence[Path], folder: Path) -> None:
    for source in sources:
        with source.open("rb") as opened:
            write_atomically(folder / source.name, partial(shutil.copyfileobj, opened))


def _of_text(files: Files) -> dict[str, Tensor]:
    """The weights of a CLIP's text half."""
    whole = [pair for file in files.weights for pair in read_weights(file).items()]
    return {name: tensor for name, tensor in whole if not name.startswith(tuple(files.left_out))}


def _remove_others(folder: Path, patterns: Sequence[str], kept: Sequence[Path]) -> None:
    """Remove the files of some kinds that have other names than those that were written."""
    names = {file.name for file in kept}
    for file in [file for pattern in patterns for file in folder.glob(pattern)]:
        if file.name not in names:
            file.unlink()


def notes_on_text(out: Path, pipeline: str | None, scheduler: Mapping[str, Any]) -> list[str]:
    """What to know of an exported model of text, a sentence each."""
    if pipeline is None:
        load = f"UNet2DConditionModel.from_pretrained({str(out)!r}, subfolder='unet')"
        return [f"it has no pipeline without a KL autoencoder: load {load} and its text encoder"]
    notes = []
    if scheduler.get("steps_offset") != 1:
        notes.append(f"{pipeline} sets steps_offset to 1; here it is {scheduler.get('steps_offset')}")
    if scheduler.get("clip_sample"):
        notes.append(f"{pipeline} sets clip_sample to false; here it is true")
    return notes
