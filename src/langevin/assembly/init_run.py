"""The run whose EMA weights a new run starts from (`init.checkpoint`); imports no Lightning."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from langevin.adapters.adapter import plain_name
from langevin.assembly.make import contradicted
from langevin.assembly.saved import Model, kind_of, load_trained
from langevin.assembly.sizes import NAMED
from langevin.assembly.sizes import differences as of_sizes
from langevin.assembly.tasks import Task, task_of
from langevin.checkpoint import find_checkpoint
from langevin.conditions.condition import Condition, Several
from langevin.config.identity import flatten
from langevin.config.naming import named, typed_name
from langevin.config.options import INIT, INIT_WEIGHTS
from langevin.config.stored import read_held
from langevin.config.types import TARGET, plain
from langevin.config.validate import ConfigError, Mistake
from langevin.digest import digest_of
from langevin.errors import UserError
from langevin.networks.network import Network
from langevin.spec import DataSpec
from langevin.text.words import WordEncoder

LEAST = 0.5
"""The share of a network's weights that have to be taken: with fewer, another network is meant."""
MEANING = ("process", "schedule", "rescalings", "parameterization", "variance")
"""The groups, beside the network's, that the meaning of weights depends on."""

HARMLESS = ("control", "dropout", "checkpointing")
"""Options of a network, of which the frozen part of one with an adapter computes the same in sampling."""


class Match(NamedTuple):
    """What a network takes from another one's weights.

    Attributes:
        taken: the names of its tensors, with those of the other's.
        widened: those among them that have more input channels than the other's.
        new: the names of the rest.
        unused: what is left of the other's, by its own names.
        share: of its weights, how many are taken, in [0, 1].
        misfits: how names and shapes differ, for messages.
    """

    taken: dict[str, str]
    widened: list[str]
    new: list[str]
    unused: list[str]
    share: float
    misfits: list[str]


def find_initial(cfg: DictConfig) -> tuple[Model | None, list[Mistake]]:
    """Load the model that a config starts from, and write the digest of its weights into the config.

    So a run's config says what it was started from, wherever that lies, and whatever it becomes. A run that has
    started does not need it any more: where it is gone, the digest is that which the run has recorded.

    Returns:
        the model, None where there is none or it is gone; and the mistakes found.
    """
    place, weights = (OmegaConf.select(cfg, option) for option in (INIT, INIT_WEIGHTS))
    if not isinstance(place, str):  # what else it may be is reported with the config's structure
        return None, []
    if not Path(place).exists() and (weights := weights or recorded(cfg, place)):
        with open_dict(cfg):
            cfg.init.weights = weights
        return None, []
    try:
        initial = load_trained(find_checkpoint(Path(place)), tuple(cfg.get("trust") or ()))
    except UserError as error:
        return None, [Mistake(INIT, f"is {place}; {error}")]
    found = {"weights": digest_of(initial.model.network)}
    if mistakes := contradicted(cfg, "init", f"{INIT}={place}", found):
        return None, mistakes
    with open_dict(cfg):
        cfg.init.update(found)
    return initial, []


def recorded(cfg: DictConfig, place: str) -> str | None:
    """The digest of what the config's run was started from, as the run has recorded it; None if it has not.

    A run without a name is found by what it was started from, if all that were started from there had the same weights.
    """
    output = Path(cfg.output_dir)
    found = set()
    for run_dir in [output / cfg.name] if cfg.get("name") else sorted(output.glob("*")):
        with suppress(UserError, OSError):
            held = read_held(run_dir / "config.yaml")
            if (started := OmegaConf.select(held, INIT)) and Path(started).absolute() == Path(place).absolute():
                found.add(OmegaConf.select(held, INIT_WEIGHTS))
    return found.pop() if len(found) == 1 else None


def mistakes_of_initial(
    cfg: DictConfig, task: Task, initial: Model, network: nn.Module, spec: DataSpec
) -> Iterator[Mistake]:
    """What is wrong with starting a network from a model.

    Args:
        cfg: the run's config.
        task: the run's.
        initial: the model.
        network: the run's, be it without values.
        spec: of what it diffuses.
    """
    start = f"is {cfg.init.checkpoint}; allowed:"
    if not isinstance(initial.model, task.model):
        yield Mistake(INIT, f"{start} {task.noun}'s run; this is {kind_of(initial)}'s")
        return
    held = initial.diffused
    if (held.latents is None) != (spec.latents is None):
        kinds = ["samples themselves" if each.latents is None else "latents" for each in (spec, held)]
        yield Mistake(INIT, f"{start} a model of {kinds[0]}, as of this run's codec; this is one of {kinds[1]}")
    elif (held.channels, len(held.shape)) != (spec.channels, len(spec.shape)):
        yield Mistake(INIT, f"{start} a model of {spec.channels} channels, and this is of samples {held.shape}")
    elif images := refused_images(cfg, initial, network):
        yield Mistake("conditions", images)
    elif lost := not_frozen(match := matched(cfg, initial, network, spec), cfg, network):
        text = "a run that has all weights of the frozen network and no others, and here differ"
        yield Mistake(INIT, f"{start} {text}: {', '.join(lost[:NAMED])}{more(lost)}")
    elif cfg.get("adapter") is not None:  # which can adapt all layers to changed settings, whatever its size
        return
    elif getattr(network, "adapter", None) is not None and (changes := list(changed_frozen(cfg, initial, spec))):
        text = "a run of the same settings, since its network is frozen, and here differ"
        yield Mistake(INIT, f"{start} {text}: {', '.join(changes)}")
    elif match.share < LEAST:
        listed = "; ".join(match.misfits[:NAMED])
        text = f"a network of which at least half of the weights fit {task.network}, and here {match.share:.0%} do"
        yield Mistake(INIT, f"{start} {text}: {listed}{more(match.misfits)}")


def not_frozen(match: Match, cfg: DictConfig, network: nn.Module) -> list[str]:
    """The weights that a network which is frozen but for an adapter does not have from the other, or it alone has."""
    adapter = getattr(network, "adapter", None)
    if adapter is None and cfg.get("adapter") is None:
        return []
    new = (name for name in match.new if adapter is None or adapter not in name)
    return list(dict.fromkeys([*new, *match.widened, *match.unused]))


def refused_images(cfg: DictConfig, initial: Model, network: nn.Module) -> str | None:
    """What is wrong with the images that a network takes beside x, if the other's are not the first among them."""
    own, held = (
        [f"{name} ({part.concat_channels} channels)" for name, part in parts_of(each, config) if part.concat_channels]
        for each, config in ((network, cfg), (initial.model.network, initial.cfg))
    )
    if own[: len(held)] == held:
        return None
    given = f"have as images {', '.join(own) or 'none'}"
    allowed = f"allowed with init.checkpoint={cfg.init.checkpoint}: first those of that run, in its order"
    return f"{given}; {allowed}: {', '.join(held)}"


def start_from(cfg: DictConfig, networks: Iterable[nn.Module], spec: DataSpec) -> str | None:
    """Start the networks of a new run from the EMA weights that its config names, if it does.

    Input channels that the other network did not have start at zero: so it computes at first what the other computed.
    What else is new keeps its own initial values.

    Args:
        cfg: by `find_initial`.
        networks: alike: the one to be trained, and the one that holds its EMA weights.
        spec: of what they diffuse.

    Returns:
        what was taken, a line for the user; None where the run starts from fresh weights.

    Raises:
        UserError: when the model cannot be loaded, has other weights by now, or does not fit.
    """
    if cfg.init.checkpoint is None:
        if cfg.init.weights is None:
            return None
        raise ConfigError([Mistake(INIT_WEIGHTS, f"is set, which resumes a run; a new one needs {INIT}")])
    weights = cfg.init.weights
    initial, mistakes = find_initial(cfg)
    if initial is None:  # it was gone from the beginning, or is by now
        text = f"is {cfg.init.checkpoint}, which does not exist; give the run to start from"
        raise ConfigError(mistakes or [Mistake(INIT, text)])
    if weights != cfg.init.weights:
        raise ConfigError([Mistake(INIT, f"is {cfg.init.checkpoint}, which is being trained; give one that is not")])
    networks = list(networks)
    if mistakes := list(mistakes_of_initial(cfg, task_of(cfg), initial, networks[0], spec)):
        raise ConfigError(mistakes)
    match, values = matched(cfg, initial, networks[0], spec), initial.model.network.state_dict()
    for network in networks:
        own = network.state_dict()
        for name, theirs in match.taken.items():
            fill(own[name], values[theirs], name in match.widened)
        for encoder, other in of_other_words(cfg, initial, network).values():
            encoder.take_words(other)
        if isinstance(network, Network):
            network.started(match.taken)
    return described(cfg, initial, match, spec)


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor, widened: bool) -> None:
    """Copy values into a tensor, which may have more input channels: these are set to zero."""
    if widened:
        tensor.zero_()
        tensor = tensor[:, : values.shape[1]]
    tensor.copy_(values)


def matched(cfg: DictConfig, initial: Model, network: nn.Module, spec: DataSpec) -> Match:
    """What a network takes from a model's, by name and shape.

    Of the conditions, the names in the config count, however many there are. A tensor that has more input channels by
    just those that the network takes beside x, and the other does not, is taken too.
    """
    other = initial.model.network
    own, held = (
        {renamed(plain_name(name), list(parts)): (name, tensor) for name, tensor in each.state_dict().items()}
        for each, parts in ((network, dict(parts_of(network, cfg))), (other, dict(parts_of(other, initial.cfg))))
    )
    before, after = (
        spec.channels + getattr(each, "own_channels", 0) + getattr(each, "concat_channels", 0)
        for each in (other, network)
    )

    def is_widened(name: str) -> bool:
        theirs, ours = held[name][1].shape, own[name][1].shape
        is_input = len(theirs) > 1 and (theirs[1], ours[1:2]) == (before, (after,)) and after > before
        return is_input and (theirs[0], *theirs[2:]) == (ours[0], *ours[2:])

    other_words = of_other_words(cfg, initial, network)
    common = [name for name in own if name in held and name not in other_words]
    widened = [name for name in common if is_widened(name)]
    taken = [name for name in common if name in widened or own[name][1].shape == held[name][1].shape]
    numbers = {name: tensor.numel() for name, (_, tensor) in own.items()}
    shapes = ({name: tensor for name, (_, tensor) in each.items() if name not in taken} for each in (own, held))
    return Match(
        {own[name][0]: held[name][0] for name in taken},
        [own[name][0] for name in widened],
        [own[name][0] for name in own if name not in taken],
        [held[name][0] for name in held if name not in taken],
        sum(numbers[name] for name in taken) / max(1, sum(numbers.values())),
        of_sizes(*shapes),
    )


def of_other_words(cfg: DictConfig, initial: Model, network: nn.Module) -> dict[str, tuple[WordEncoder, WordEncoder]]:
    """The encoders of captions in words that are not those of the model's captions, beside the model's.

    Returns:
        by the name of the words' embeddings, in which a condition has the name that the config has for it; those of the
        same width alone.
    """
    held = dict(parts_of(initial.model.network, initial.cfg))
    pairs = {
        name: (getattr(part, "encoder", None), getattr(held.get(name), "encoder", None))
        for name, part in parts_of(network, cfg)
    }
    return {
        f"condition.{name}.encoder.embedding.weight": (own, other)
        for name, (own, other) in pairs.items()
        if isinstance(own, WordEncoder) and isinstance(other, WordEncoder) and own.words.digest != other.words.digest
        if own.embedding.embedding_dim == other.embedding.embedding_dim
    }


def parts_of(network: nn.Module, cfg: DictConfig) -> list[tuple[str, Condition]]:
    """The conditions of a network by their names in its config."""
    condition = getattr(network, "condition", None)
    if not isinstance(condition, Condition):
        return []
    parts = list(condition.parts) if isinstance(condition, Several) else [condition]
    return list(zip(map(str, cfg.conditions), parts, strict=True))  # type: ignore[arg-type]


def renamed(name: str, conditions: list[str]) -> str:
    """A tensor's name in which a condition has the name that the config has for it."""
    of_condition, _, rest = name.partition("condition.")
    if of_condition or not conditions or not rest:
        return name
    if len(conditions) == 1:
        return f"condition.{conditions[0]}.{rest}"
    _, index, rest = rest.split(".", 2)  # of "parts.0.table.weight"
    return f"condition.{conditions[int(index)]}.{rest}"


def described(cfg: DictConfig, initial: Model, match: Match, spec: DataSpec) -> str:
    """What was taken, as a line for the user."""
    taken = f"{len(match.taken)} tensors taken"
    if match.widened:
        taken += f" (of {', '.join(match.widened)} the new input channels start at zero)"
    counts = [
        f"{len(names)} {kind}{in_brackets(names)}" for kind, names in (("new", match.new), ("unused", match.unused))
    ]
    line = f"init.checkpoint={cfg.init.checkpoint} (step {initial.step}): {', '.join([taken, *counts])}"
    if changes := list(changed(cfg, initial, spec)):
        line += f"; the weights have to adapt to changed settings: {', '.join(changes)}"
    return line


def in_brackets(names: list[str]) -> str:
    """The first of some names, to follow their number."""
    return f" ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})" if names else ""


def more(listed: list[str]) -> str:
    """How many more there are than are listed."""
    return f", and {len(listed) - NAMED} more" if len(listed) > NAMED else ""


def changed(cfg: DictConfig, initial: Model, spec: DataSpec) -> Iterator[str]:
    """What the same weights compute otherwise than where they come from: settings as one types them."""
    own, held = (settings(each, task_of(cfg).network) for each in (cfg, initial.cfg))
    classes = [path for path in {**own, **held} if path.endswith(f".{TARGET}") and own.get(path) != held.get(path)]
    of_others = tuple(path.removesuffix(TARGET) for path in classes)
    both = [path for path in own if path in held and own[path] != held[path] and not path.startswith(of_others)]
    for path in (*classes, *both):
        now, before = ("null" if each.get(path) is None else named(path, each[path]) for each in (own, held))
        yield f"{typed_name(path)}={now} (was {before})"
    if spec.image_size != initial.diffused.image_size:
        yield f"images of {spec.image_size} pixels a side (was {initial.diffused.image_size})"
    if spec.latents != initial.diffused.latents:
        yield "latents of another codec"


def changed_frozen(cfg: DictConfig, initial: Model, spec: DataSpec) -> Iterator[str]:
    """The same of weights that are frozen, without what changes nothing in them."""
    network = task_of(cfg).network
    harmless = tuple(f"{network}.{name}=" for name in HARMLESS)
    return (change for change in changed(cfg, initial, spec) if not change.startswith(harmless))


def settings(cfg: DictConfig, network: str) -> Mapping[str, Any]:
    """The values of a config that determine what its network's weights mean, by their paths."""
    return dict(flatten({group: plain(cfg[group]) for group in (network, *MEANING) if cfg.get(group)}))
