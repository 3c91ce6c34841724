"""The run that a config's codec names; imports no Lightning."""

from omegaconf import DictConfig, OmegaConf, open_dict

from langevin.assembly.components import codec_uses
from langevin.assembly.make import contradicted, mistakes_of
from langevin.assembly.saved import autoencoder_of
from langevin.assembly.tasks import task_of
from langevin.config.types import plain
from langevin.config.validate import ConfigError, Mistake
from langevin.digest import digest_of
from langevin.errors import UserError


def complete(cfg: DictConfig) -> list[Mistake]:
    """Write into a config what the run that its codec names is: the network, its weights' digest and its channels.

    So a run's config says what it was trained in, wherever that run lies, and whatever it becomes.

    Returns:
        the mistakes found; where there are any, the config is as it was.
    """
    try:
        if codec_uses(cfg) != "autoencoder" or task_of(cfg).network == "autoencoder":
            return []
        node = cfg.codec
        if OmegaConf.is_missing(node, "run"):  # is reported with the config's structure
            return []
        place = node.get("run")
        if place is None:
            return [Mistake("codec.run", "is null; allowed: the run of an autoencoder, for here none is trained")]
        if not isinstance(place, str):  # likewise
            return []
        network, channels, own = autoencoder_of("run", place, tuple(cfg.get("trust") or ()))
    except ConfigError as error:
        return error.mistakes
    except UserError as error:
        return mistakes_of(cfg, "codec", error)
    found = {"weights": digest_of(network), "channels": channels}
    mistakes = contradicted(cfg, "codec", f"codec.run={place}", found)
    if cfg.get("autoencoder") is not None and plain(cfg.autoencoder) != own:
        mistakes.append(Mistake("autoencoder", f"is another one than that of codec.run={place}; leave it out"))
    if not mistakes:
        with open_dict(cfg):
            cfg.autoencoder = own
            node.update(found)
    return mistakes
