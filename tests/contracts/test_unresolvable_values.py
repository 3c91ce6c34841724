"""Every value of a training config may be given by reference to what is not there: a mistake of its own."""

from helpers.commands import composed
from omegaconf import DictConfig, OmegaConf

from langevin.assembly.check import mistakes_in

CHOSEN = (
    *("auxiliaries=[alignment]", "auxiliaries.alignment.run=nowhere", "codec=autoencoder", "codec.run=nowhere"),
    *("conditions=[text]", "captions=templates", "text=learned", "guidance=classifier_free", "thresholding=static"),
    *("discriminator=patch", "perceptual=lpips", "rescalings=[input_scaling]", "metrics=[fid]", "adapter=lora"),
)
"""Of all groups at once, be it that they do not go together: that is not looked at."""


def paths_in(node, path=""):
    """The paths of all nodes and values within a config, those inside of lists excepted."""
    for key in node:
        place = f"{path}.{key}".removeprefix(".")
        yield place
        if not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            yield from paths_in(node[key], place)


def test_each_is_reported_at_its_place():
    cfg, _ = composed("train", *CHOSEN)
    OmegaConf.set_struct(cfg, False)
    paths = list(paths_in(cfg))
    assert len(paths) > 120
    for path in paths:
        above, _, name = path.rpartition(".")
        node = OmegaConf.select(cfg, above) if above else cfg
        before = OmegaConf.to_container(node, resolve=False)[name]
        node[name] = "${nothing}"
        found = mistakes_in(cfg)
        assert path in [each.path for each in found]
        assert all("is ${" in each.message and "which cannot be resolved" in each.message for each in found), found
        node[name] = before
