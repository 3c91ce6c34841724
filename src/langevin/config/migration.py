"""What was once called otherwise: what earlier versions stored is read under today's names.

A rename is an entry in a table here. What is stored is migrated where it is read; digests, after which folders are
named, are made of the old names; and an old name that is given by hand is refused with the new one.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

KEYS = {
    "grid": "timestep_spacing",
    "samples.grid": "samples.timestep_spacing",
}
"""Options of a config and entries of a protocol, by their paths from its root. A rename changes the last part."""

CLASSES = {
    "langevin.diffusion.objective.VLB": "langevin.diffusion.objective.VLBObjective",
    "langevin.diffusion.parameterization.EDM": "langevin.diffusion.parameterization.EDMParameterization",
    "langevin.diffusion.parameterization.Flow": "langevin.diffusion.parameterization.FlowParameterization",
    "langevin.diffusion.schedules.edm.EDM": "langevin.diffusion.schedules.edm.EDMSchedule",
    "langevin.diffusion.schedules.explicit.Explicit": "langevin.diffusion.schedules.explicit.ExplicitSchedule",
    "langevin.diffusion.schedules.flow.Flow": "langevin.diffusion.schedules.flow.FlowSchedule",
    "langevin.diffusion.schedules.quadratic.Quadratic": "langevin.diffusion.schedules.quadratic.QuadraticSchedule",
    "langevin.diffusion.schedules.sigmoid.Sigmoid": "langevin.diffusion.schedules.sigmoid.SigmoidSchedule",
    "langevin.diffusion.time_sampler.Uniform": "langevin.diffusion.time_sampler.UniformTimes",
    "langevin.diffusion.weighting.EDM": "langevin.diffusion.weighting.EDMWeighting",
    "langevin.diffusion.weighting.Sigmoid": "langevin.diffusion.weighting.SigmoidWeighting",
    "langevin.diffusion.weighting.VLB": "langevin.diffusion.weighting.VLBWeighting",
    "langevin.features.classifier.Classifier": "langevin.features.classifier.ClassifierFeatures",
    "langevin.guidance.classifier.Classifier": "langevin.guidance.classifier.ClassifierGuidance",
    "langevin.samplers.grid.Auto": "langevin.samplers.timestep_spacing.Auto",
    "langevin.samplers.grid.Explicit": "langevin.samplers.timestep_spacing.ExplicitSpacing",
    "langevin.samplers.grid.InnerLogSNR": "langevin.samplers.timestep_spacing.InnerLogSNR",
    "langevin.samplers.grid.Karras": "langevin.samplers.timestep_spacing.Karras",
    "langevin.samplers.grid.Leading": "langevin.samplers.timestep_spacing.Leading",
    "langevin.samplers.grid.LogSNR": "langevin.samplers.timestep_spacing.LogSNR",
    "langevin.samplers.grid.Quadratic": "langevin.samplers.timestep_spacing.QuadraticSpacing",
    "langevin.samplers.grid.Trailing": "langevin.samplers.timestep_spacing.Trailing",
    "langevin.samplers.grid.Uniform": "langevin.samplers.timestep_spacing.UniformSpacing",
}
"""Classes that a config names, by their full paths."""

TEXTS = {
    "normalized as CLIP's pictures": "normalized as CLIP's images",
    "normalized as ImageNet's pictures": "normalized as ImageNet's images",
    "taken for a picture at": "taken for an image at",
}
"""Parts of a protocol's `preprocessing`, in which a feature extractor describes it."""


def migrated(values: Any) -> Any:
    """The plain values of a stored config, protocol or record under today's names; nothing is imported for it.

    Args:
        values: nested, or flat by paths such as "grid.rho".
    """
    return _renamed(values, Tables(KEYS, CLASSES, TEXTS))


def former(values: Any) -> Any:
    """The inverse of `migrated`: the same values under the first names, of which digests are made."""
    inverted = ({new: old for old, new in table.items()} for table in (KEYS, CLASSES, TEXTS))
    return _renamed(values, Tables(*inverted))


def current(path: str) -> str:
    """An option's path under today's names."""
    return _key(path, "", KEYS)


class Tables(NamedTuple):
    """What is replaced by what."""

    keys: Mapping[str, str]
    classes: Mapping[str, str]
    texts: Mapping[str, str]


def _renamed(node: Any, tables: Tables, prefix: str = "") -> Any:
    """A node that stands behind the path `prefix`."""
    if isinstance(node, Mapping):
        return {
            _key(key, prefix, tables.keys) if isinstance(key, str) else key: _renamed(value, tables, f"{prefix}{key}.")
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_renamed(value, tables, f"{prefix}{index}.") for index, value in enumerate(node)]
    if isinstance(node, str):
        node = tables.classes.get(node, node)
        for old, new in tables.texts.items() if prefix.endswith("preprocessing.") else ():
            node = node.replace(old, new)
    return node


def _key(key: str, prefix: str, keys: Mapping[str, str]) -> str:
    """A key, or in flat values a path, that stands behind the path `prefix`."""
    path = prefix + key
    for old, new in keys.items():
        if old.startswith(prefix) and (path == old or path.startswith(f"{old}.")):
            return new[len(prefix) :] + path[len(old) :]
    return key
