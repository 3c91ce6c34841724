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

FIRST = {
    "process": {"_target_": "langevin.diffusion.process.GaussianProcess"},
    "codec": {"_target_": "langevin.codecs.identity.Identity"},
}
"""What all models had from before there was a choice, by the groups."""

TASKS = (
    {"_target_": "langevin.assembly.tasks.DenoisingTask"},
    {"_target_": "langevin.assembly.tasks.ClassificationTask"},
)
"""The task of a model, and of a classifier, from before there was a choice."""

IMAGES = {"modality": "langevin.modalities.image.ImageModality", "levels": 256}
"""What the spec of all data held, had it been written down, from when all data was images."""

CLASSES = {
    "langevin.data.module.ImageDataModule": "langevin.data.module.DataModule",
    "langevin.networks.condition.ClassLabel": "langevin.conditions.class_label.ClassLabel",
    "langevin.networks.condition.Vector": "langevin.conditions.vector.Vector",
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

SEVERAL = "langevin.networks.condition.Several"
"""What once held several conditions, where now there is one a name."""
NAMES = {
    "langevin.conditions.class_label.ClassLabel": "class_label",
    "langevin.conditions.vector.Vector": "vector",
}
"""What conditions are called that once had no name."""

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
    values = _renamed(values, Tables(KEYS, CLASSES, TEXTS))
    return _regrouped(values) if isinstance(values, Mapping) else values


def former(values: Any) -> Any:
    """The inverse of `migrated`: the same values under the first names, of which digests are made."""
    inverted = ({new: old for old, new in table.items()} for table in (KEYS, CLASSES, TEXTS))
    return _renamed(_ungrouped(values) if isinstance(values, Mapping) else values, Tables(*inverted))


def current(path: str) -> str:
    """An option's path under today's names."""
    if path.partition(".")[0] == "condition":
        return "conditions"
    return _key(path, "", KEYS)


def _regrouped(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """A config, nested or flat, or a record: with what it had not before there was a choice, and named conditions."""
    found = {key: value for key, value in values.items() if not _is_under("condition", key)}
    node = values.get("condition")
    if isinstance(node, Mapping):
        target = node.get("_target_")
        found["conditions"] = node["parts"] if target == SEVERAL else {NAMES.get(str(target), "condition"): node}
    elif "condition._target_" in values:
        several, name = values["condition._target_"] == SEVERAL, NAMES.get(values["condition._target_"], "condition")
        old, new = ("condition.parts.", "conditions.") if several else ("condition.", f"conditions.{name}.")
        found |= {new + key.removeprefix(old): value for key, value in values.items() if key.startswith(old)}
    classifies = values.get("classifier") is not None or "classifier._target_" in values
    for group, node in {**FIRST, "task": TASKS[classifies]}.items():
        if "schedule" in values:
            found.setdefault(group, dict(node))
        elif "schedule._target_" in values:
            found.setdefault(f"{group}._target_", node["_target_"])
    if isinstance(facts := values.get("facts"), Mapping) and {"channels", "image_size"} <= facts.keys():
        rest = {key: value for key, value in found.pop("facts").items() if key not in ("channels", "image_size")}
        found["spec"] = {"shape": [facts["channels"], facts["image_size"], facts["image_size"]], **IMAGES, **rest}
    return found


def _ungrouped(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The inverse, of what could be stored before."""
    nested = [*FIRST.items(), *(("task", node) for node in TASKS)]
    first = [*nested, *((f"{group}._target_", node["_target_"]) for group, node in nested)]
    found = {key: value for key, value in values.items() if (key, value) not in first}
    if not any(_is_under("schedule", key) for key in values):  # no config
        return found
    named = found.pop("conditions", None)
    flat = {key: found.pop(key) for key in list(found) if _is_under("conditions", key)}
    if named:
        alone = len(named) == 1
        found["condition"] = next(iter(named.values())) if alone else {"_target_": SEVERAL, "parts": named}
    elif flat:
        alone = len({key.split(".")[1] for key in flat}) == 1
        found |= {} if alone else {"condition._target_": SEVERAL}
        rests = {key: key.split(".", 2)[2] if alone else f"parts.{key.split('.', 1)[1]}" for key in flat}
        found |= {f"condition.{rests[key]}": value for key, value in flat.items()}
    else:
        found["condition"] = None
    return found


def _is_under(group: str, key: Any) -> bool:
    return isinstance(key, str) and (key == group or key.startswith(f"{group}."))


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
