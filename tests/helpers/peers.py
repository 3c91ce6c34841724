"""The peers' own code, where it is."""

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture
def peer(monkeypatch):
    """Import a module of a peer's checkout in the folder that LANGEVIN_PEERS names."""
    torch.manual_seed(0)  # Fourier frequencies

    def load(checkout, module):
        folder = Path(os.environ.get("LANGEVIN_PEERS", "unset")) / checkout
        if not folder.is_dir():
            pytest.skip(f"no {checkout} in LANGEVIN_PEERS: see peers.md")
        monkeypatch.syspath_prepend(str(folder))
        for name, loaded in list(sys.modules.items()):  # EDM and EDM2 have packages of the same names
            package, place = folder / name.partition(".")[0], getattr(loaded, "__file__", None) or ""
            if package.is_dir() and not place.startswith(f"{folder}{os.sep}"):
                monkeypatch.delitem(sys.modules, name)
        return importlib.import_module(module)

    return load
