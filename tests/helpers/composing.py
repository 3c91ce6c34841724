"""Hydra composes a config in 0.1 s, of which all but 0.01 s goes into what is the same each time: see `once`."""

import copy
import functools
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, _utils
from omegaconf.nodes import ValueNode

from helpers.commands import ROOT

KINDS = (DictConfig, ListConfig, *ValueNode.__subclasses__())


def once(patch: pytest.MonkeyPatch) -> None:
    """Let Hydra parse an override, read a file, and find and merge the files of the same options, only once.

    Single values that are overridden come in after that, for each config anew.
    """
    files: dict[Any, Any] = {}
    found: dict[Any, DefaultsList] = {}
    merged: dict[Any, Any] = {}
    read: Callable[..., Any] = ConfigRepository.load_config
    map_choices: Callable[..., Any] = defaults_list._create_interpolation_map
    find: Callable[..., DefaultsList] = config_loader_impl.create_defaults_list
    merge = ConfigLoaderImpl._compose_config_from_defaults_list
    parse = functools.cache(OverridesParser.create().parse_rule)

    def parse_once(self, s, rule_name):
        return copy.copy(parse(s, rule_name))  # Hydra hands each the loader of its configs

    def read_once(self, config_path):
        folders = places(self)
        if folders is None:
            return read(self, config_path)
        key = folders, config_path
        if key not in files:
            files[key] = read(self, config_path)
        file = copy.copy(files[key])
        if file is not None:
            file.config = copy.deepcopy(file.config)  # Hydra merges the next file into its nodes
        return file

    def copied(self, delegate):
        self.delegate, self.cache = copy.copy(delegate), {}  # Hydra copies all the configs that plugins store, too

    def map_if_needed(overrides, defaults, self_added):
        """What an interpolation in a list of defaults could name: a config of all choices, for each file anew."""
        needed = any(not each.is_self() and each.is_interpolation() for each in defaults)
        return map_choices(overrides, defaults, self_added) if needed else None

    def find_once(repo, config_name, overrides_list, **rest):
        folders = places(repo)
        chosen = tuple(each.input_line for each in overrides_list if repo.group_exists(each.key_or_group))
        key = folders, config_name, chosen, *rest.items()
        if folders is None or key not in found:
            found[key] = find(repo=repo, config_name=config_name, overrides_list=overrides_list, **rest)
        values = Overrides(repo, overrides_list).config_overrides
        return DefaultsList(found[key].defaults, found[key].defaults_tree, values, found[key].overrides)

    def merge_once(self, defaults, repo):
        folders = places(repo)
        key = folders, repr(defaults)
        if folders is None or key not in merged:
            merged[key] = merge(self, defaults, repo)
        return copy.deepcopy(merged[key])

    patch.setattr(OverridesParser, "parse_rule", parse_once)
    patch.setattr(ConfigRepository, "load_config", read_once)
    patch.setattr(defaults_list, "_create_interpolation_map", map_if_needed)
    patch.setattr(CachingConfigRepository, "__init__", copied)
    patch.setattr(config_loader_impl, "create_defaults_list", find_once)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merge_once)
    # Hydra 1.3.8 digests its list of dangerous classes twice for each component that is built.
    for name in ("hydra._internal.target_policy", "hydra._internal.instantiate._instantiate2"):
        checked = getattr(sys.modules.get(name), "_validated_target_policy", None)
        if checked is not None:
            patch.setattr(sys.modules[name], "_validated_target_policy", functools.cache(checked))
    # It also composes each config twice, the first time only to read hydra.mode, which no config of ours sets.
    patch.setattr(Hydra, "get_mode", lambda self, config_name, overrides: None)
    # PyYAML's parser in Python takes ten times as long as that in C, and each file gets a class of loaders of its own.
    patch.setattr(yaml, "SafeLoader", getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    patch.setattr(_utils, "get_yaml_loader", functools.cache(_utils.get_yaml_loader))
    # Each command copies its whole config a dozen times, and OmegaConf constructs and checks every node of a copy.
    for kind in KINDS:
        patch.setattr(kind, "__deepcopy__", copied_node)


def copied_node(node, memo):
    """A deep copy of a node of a config, as OmegaConf's own, which takes five times as long; its parent is kept."""
    result = object.__new__(type(node))
    fields = result.__dict__
    fields.update(node.__dict__, _flags_cache=None)  # found anew when it is asked for
    metadata = fields["_metadata"] = copy.copy(node.__dict__["_metadata"])
    metadata.flags = copy.copy(metadata.flags)
    cache = metadata.resolver_cache
    metadata.resolver_cache = copy.deepcopy(cache, memo) if cache else defaultdict(dict)
    content = fields.get("_content")
    if isinstance(content, dict):
        children = fields["_content"] = {key: type(child).__deepcopy__(child, memo) for key, child in content.items()}
        for child in children.values():
            child.__dict__["_parent"] = result
    elif isinstance(content, list):
        fields["_content"] = [type(child).__deepcopy__(child, memo) for child in content]
        for child in fields["_content"]:
            child.__dict__["_parent"] = result
    return result


def places(repo) -> tuple[str, ...] | None:
    """Where the files of a config come from; None if some lie outside the repository, where a test may change them."""
    folders = tuple(source.path for source in repo.get_sources() if source.scheme() == "file")
    return folders if all(folder.removeprefix("file://").startswith(f"{ROOT}/") for folder in folders) else None
