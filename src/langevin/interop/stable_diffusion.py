"""What a pipeline of Stable Diffusion's layout has beside its network, autoencoder and scheduler: CLIP's text half."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from langevin.errors import UserError
from langevin.files import write_atomically
from langevin.interop.diffusers import Known, completed
from langevin.interop.folder import NETWORK_FILE, read_json
from langevin.interop.renaming import settings
from langevin.text.files import NETWORK, TOKENIZER, vocabulary_files, weight_files
from langevin.text.frozen import FrozenTextEncoder

STABLE = "StableDiffusionPipeline"
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
    """Copy an encoder's files to the subfolders that a pipeline has for them.

    Args:
        text: the encoder.
        out: the pipeline's folder, which is returned.

    Raises:
        UserError: when they are missing, or other ones than the encoder's.
    """
    files = text.own_files()
    assert files.tokenizer is not None
    network = [files.network / NETWORK_FILE, *weight_files(files.network), *files.network.glob("*.index.json")]
    for inner, sources in ((NETWORK, network), (TOKENIZER, vocabulary_files(files.tokenizer))):
        for source in sources:
            with source.open("rb") as opened:
                write_atomically(out / inner / source.name, partial(shutil.copyfileobj, opened))
    return out


def notes_on_text(out: Path, pipeline: str | None, scheduler: Mapping[str, Any]) -> list[str]:
    """What to know of an exported model of text, a sentence each."""
    if pipeline is None:
        load = f"UNet2DConditionModel.from_pretrained({str(out)!r}, subfolder='unet')"
        return [f"it has no pipeline without a KL autoencoder: load {load} and its text encoder"]
    notes = []
    if scheduler.get("steps_offset") != 1:
        notes.append(f"{STABLE} sets steps_offset to 1; here it is {scheduler.get('steps_offset')}")
    if scheduler.get("clip_sample"):
        notes.append(f"{STABLE} sets clip_sample to false; here it is true")
    return notes
