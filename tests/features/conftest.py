import pytest
import torch


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Torch hub with an empty cache."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub"
