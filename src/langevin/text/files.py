"""Folders of pretrained encoders: a user's own, or those that the Hugging Face hub has under a name."""

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from langevin.errors import OptionError, missing_package
from langevin.visible import visible
from langevin.weights import read_weights

EXTRA = "text"
"""The extra of our distribution that installs what reads these folders."""
CONFIG, OF_OPEN_CLIP = "config.json", "open_clip_config.json"
NETWORK, TOKENIZER = "text_encoder", "tokenizer"
"""What the subfolders of a pipeline's folder are called; those of a second encoder end with "_2"."""
KINDS = {"clip": "clip", "clip_text_model": "clip", "t5": "t5"}
"""By a config's `model_type`, the option of the group `text` that reads it."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights as the library `transformers` takes them: the first that is there counts."""
WEIGHTS_OF_OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", *WEIGHTS)
"""The same of open_clip, whose folders often hold the weights for `transformers` too."""
VOCABULARY = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "spiece.model"),
)
"""Files of a tokenizer, as many as there are."""
ELSEWHERE = "transformers_weights"
"""A field by which a config has `transformers` load another file than the one that the digest is of."""
SAFE = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")
"""Patterns of the same as the hub has them."""
_INCIDENTAL = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures")
"""Of a config: what decides nothing of what is computed."""


def require_package(option: str, package: str, module: str) -> None:
    """Check that an optional package is installed.

    Args:
        option: what needs it.
        package: its name on the package index.
        module: what it is imported as.

    Raises:
        UserError: when it is not.
    """
    if find_spec(module) is None:
        raise missing_package(option, package, EXTRA)


def folder_of(path: str) -> Path:
    """The folder that an option `path` means: one here, or that of a name of the hub, which is downloaded once.

    A download is announced on stderr: the name may be that of a stranger's checkpoint.

    Raises:
        OptionError: when there is none.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", path) or find_spec("huggingface_hub") is None:
        allowed = "a folder of its weights and tokenizer, or its name on the Hugging Face hub, OWNER/NAME"
        raise OptionError("path", f"is {path}, which is no folder; allowed: {allowed}")
    import huggingface_hub
    from huggingface_hub.constants import ENDPOINT

    _announce(f"{path}: is no folder here; fetching {ENDPOINT}/{path}, unless it is cached")
    described = [CONFIG, OF_OPEN_CLIP, *VOCABULARY]
    described += [f"{part}*/{name}" for part in (NETWORK, TOKENIZER) for name in described]
    try:
        found = Path(huggingface_hub.snapshot_download(path, allow_patterns=[*described, *_patterns(*SAFE)]))
        if not any(found.rglob("*.safetensors")):
            huggingface_hub.snapshot_download(path, allow_patterns=[*described, *_patterns(*PICKLED)])
    except Exception as error:  # of the network, the hub, or the disk
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OptionError(
            "path",
            f"is {path}, which is no folder here and cannot be fetched from the Hugging Face hub "
            f"({visible(reason.rstrip('.'))}); allowed: a folder, or a name that the hub has",
        ) from error
    return found


@cache
def _announce(line: str) -> None:
    """Print a line to stderr, once."""
    print(visible(line), file=sys.stderr, flush=True)


def _patterns(*names: str) -> list[str]:
    """Patterns of a hub's files: those of the encoder alone, or of the encoders among a pipeline's parts."""
    return [
        f"{place}{library}{name}" for place in ("", f"{NETWORK}*/") for library in ("", "open_clip_") for name in names
    ]


def with_config(path: str, option: str) -> tuple[Path, Path, dict[str, Any]]:
    """The folders of an encoder of the library `transformers` and of its tokenizer, and its config.

    In a pipeline's folder these are subfolders side by side.

    Args:
        path: see `folder_of`; also a pipeline's, or its text encoder's.
        option: of the group `text`, which kind of encoder is wanted.

    Raises:
        OptionError: when there is none, or another kind's.
    """
    folder = folder_of(path)
    others = []
    for network in [folder, *sorted(folder.glob(f"{NETWORK}*"))]:
        if not (network / CONFIG).is_file():
            continue
        config = read_json(network / CONFIG)
        kind = str(config.get("model_type"))
        if KINDS.get(kind) != option:
            others.append(kind)
            continue
        if named := [
            each for each in (config, config.get("text_config")) if isinstance(each, dict) and each.get(ELSEWHERE)
        ]:
            raise OptionError(
                "path", f"has a {CONFIG} with {ELSEWHERE}={visible(str(named[0][ELSEWHERE]))}; allowed: without it"
            )
        beside = network.with_name(network.name.replace(NETWORK, TOKENIZER))
        for tokenizer in (network, beside, network / TOKENIZER):
            if any((tokenizer / name).is_file() for name in VOCABULARY):
                return network, tokenizer, config
        raise OptionError("path", f"is {path}, which has no tokenizer; allowed: a folder with such as {VOCABULARY[0]}")
    if not others and (folder / OF_OPEN_CLIP).is_file():
        raise OptionError("path", f"is {path}, an encoder of open_clip; allowed with text=open_clip")
    if not others:
        raise OptionError("path", f"is {path}, which has no {CONFIG}; allowed: the folder of an encoder with its files")
    fitting = [f"text={KINDS[kind]}" for kind in others if kind in KINDS]
    wanted = " or ".join(kind for kind, reader in KINDS.items() if reader == option)
    instead = f"allowed with {fitting[0]}" if fitting else f"allowed: {wanted}"
    raise OptionError("path", f"is {path}, which holds a model of the kind {visible(', '.join(others))}; {instead}")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        OptionError: when it does not.
    """
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError("path", f"has a {file.name} that cannot be read ({error}); fetch it again") from error
    if not isinstance(values, dict):
        raise OptionError("path", f"has a {file.name} that is no JSON object; fetch it again")
    return values


def weight_files(folder: Path, names: Sequence[str] = WEIGHTS) -> list[Path]:
    """The files of a folder that hold the weights; several where they are split.

    Args:
        folder: the encoder's.
        names: what its library calls them, those first that it takes first.

    Raises:
        OptionError: when there are none.
    """
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
        if (index := folder / f"{name}.index.json").is_file():
            parts = read_json(index).get("weight_map")
            if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
                raise OptionError("path", f"has a {index.name} without a weight_map; fetch it again")
            return [folder / Path(part).name for part in sorted(set(parts.values()))]
    raise OptionError("path", f"is {folder}, which has no weights; allowed: a folder with {' or '.join(names)}")


def digest_of_files(
    weights: Sequence[Path], tokenizer: Sequence[Path], config: Mapping[str, Any], left_out: Sequence[str]
) -> str:
    """The sha256 of all that decides what an encoder computes, in hexadecimal digits.

    It is of the weights' names, types, shapes and values, whichever kind of file they lie in; of the config, without
    what decides nothing; and of the bytes of the tokenizer's files.

    Args:
        weights: files.
        tokenizer: files.
        config: the encoder's.
        left_out: what the names of weights begin with that are not the encoder's, such as those of its vision half.
    """
    lines = []
    for file in weights:
        for name, tensor in read_weights(file).items():
            if not name.startswith(tuple(left_out)):
                values = hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
                lines.append(f"{name} {tensor.dtype} {tuple(tensor.shape)} {values.hexdigest()}")
    decides = {name: value for name, value in config.items() if name not in _INCIDENTAL}
    whole = hashlib.sha256("\n".join(sorted(lines)).encode())
    whole.update(json.dumps(decides, sort_keys=True).encode())
    whole.update(listed(tokenizer))
    return whole.hexdigest()


def listed(files: Sequence[Path]) -> bytes:
    """The names of files and the sha256 of what they hold, a line each, whatever their order."""
    lines = [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in sorted(files)]
    return "".join(lines).encode()


def vocabulary_files(folder: Path) -> list[Path]:
    """The files of a tokenizer that a folder has."""
    return [folder / name for name in VOCABULARY if (folder / name).is_file()]
