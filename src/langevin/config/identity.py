"""The identity of a run: what makes two runs the same, and a name for it."""

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from langevin.config.migration import former
from langevin.config.types import TARGET, plain

# How a run is logged, stored or sped up. All else determines what is trained, and makes another run when changed.
# The data's path does not; its content does, see `langevin.content`. Nor does that of the run of a codec, of a
# text encoder, or of the run to start from; their weights do. Of a run that an auxiliary reads see `deciding`.
NOT_IDENTITY = (
    "name",
    "output_dir",
    "resume",
    "accept_data",
    "compile",
    "optimized_metric",
    "trust",
    "loader",
    "trainer",
    "callbacks",
    "loggers",
    "metrics",
    "features",
    "evaluation",
    "likelihoods",
    "sampler",
    "timestep_spacing",
    "thresholding",
    "guidance",
    "data.path",
    "data.test_path",
    "data.download_dir",
    "codec.run",
    "text.path",
    "init.checkpoint",
)
WEIGHTS_READ = re.compile(r"auxiliaries\.[^.]+\.weights")
PATHS = ("data.path", "data.test_path")
"""Where the data lies: it distinguishes two runs that are otherwise the same."""
SINCE = {
    "data.resize": "crop",
    "data.captions": False,
    "model.norm_groups": None,
    "model.control": False,
    "model.control_channels": [16],
    "conditions.hint.channels": 1,
    "model.transformer_depth": 0,
    "model.middle_attention": True,
    "model.time_endpoint": False,
    "model.mlp_norm_epsilon": 1e-6,
    "overfit_samples": None,
    "timestep_spacing.offset": 0,
    "timestep_spacing.stop_at_first": False,
    **dict.fromkeys(("adapter", "captions", "text", "autoencoder", "perceptual", "discriminator", "init.weights")),
}
"""Options that were added later, with the values that earlier runs had: at these they are no part of an identity."""
SINCE_OF: Mapping[str, Mapping[str, Any]] = {"langevin.networks.dit.DiT": {"model.cross_attention": False}}
"""The same of single networks, by their class; others have had these options from the first."""
LATER = {
    "data.background": [255, 255, 255],
    "data.skip_broken": False,
    **{path: value for added in SINCE_OF.values() for path, value in added.items()},
} | SINCE
"""All that were added later, also those that changed the names of runs."""
YET_IDENTITY = (
    "trainer.precision",
    "trainer.gradient_clip_val",
    "loader.window",
    "loader.multiple_of",
    "loader.longest",
)


def identity(cfg: DictConfig) -> dict[str, Any]:
    """The values that decide what is trained, by their paths."""
    return deciding(plain(cfg))


def deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a config's plain values."""
    since = {**SINCE, **SINCE_OF.get(str((values.get("model") or {}).get(TARGET)), {})}
    flat = dict(flatten(values))
    # Where the run lies that an auxiliary reads does not matter, if its weights are known.
    digests = (path for path, value in flat.items() if WEIGHTS_READ.fullmatch(path) and value is not None)
    known = {f"{path.removesuffix('weights')}run" for path in digests}
    return {
        path: value
        for path, value in flat.items()
        if _decides(path) and path not in known and (path, value) not in since.items()
    }


@functools.lru_cache(4096)
def _decides(path: str) -> bool:
    parts = path.split(".")
    prefixes = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return bool(prefixes.intersection(YET_IDENTITY)) or not prefixes.intersection(NOT_IDENTITY)


def distinguishing(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, and where the data lies: what distinguishes runs for a reader."""
    return deciding(values) | {path: value for path, value in flatten(values) if path in PATHS}


def flatten(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All of some nested values with their paths; lists are values."""

    def walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return walk(values, "")


def digest(record: Mapping[str, Any], digits: int = 8) -> str:
    """A short name of plain values; neither their order matters, nor what their parts are called now."""
    return hashlib.sha256(json.dumps(former(record), sort_keys=True).encode()).hexdigest()[:digits]


def debug_of(choices: Mapping[str, object]) -> str | None:
    """What the names of runs with the chosen debug preset begin with, such as "debug_fast"; None where none is.

    Args:
        choices: what was chosen of each group.
    """
    return f"debug_{choices['debug']}" if choices.get("debug") else None


def automatic_name(cfg: DictConfig, choices: Mapping[str, Any], content: str | None = None) -> str:
    """A run's name: its main choices, and a digest that differs whenever what is trained differs.

    So the same command resumes its run, and no two cells of a sweep share a folder. The digest is of the first names of
    options and classes: a rename changes no run's name.

    Args:
        cfg: the config.
        choices: what was chosen of each group.
        content: the digest of the data; None gives the name of before the data was a part of it.
    """
    meaning = identity(cfg) | ({} if content is None else {"data.content": content})
    chosen = [choices.get(group) for group in ("experiment", "data", "model", "classifier", "autoencoder", "schedule")]
    chosen = [debug_of(choices), *chosen]
    return "-".join([*dict.fromkeys(str(choice) for choice in chosen if choice), digest(meaning)])


def differences(old: DictConfig, new: DictConfig) -> list[str]:
    """What two configs train differently, a line each."""
    before, after = identity(old), identity(new)
    before = {path: value for path, value in LATER.items() if path in after} | before
    after = {path: value for path, value in SINCE.items() if path in before} | after
    return [
        f"{path}: {before.get(path, 'absent')} in the run, {after.get(path, 'absent')} now"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
