"""What the contract tests share."""

import pytest
from helpers.dinov2 import offline_hub, save_dinov2


@pytest.fixture(autouse=True, scope="session")
def dinov2(tmp_path_factory):
    """A small DINOv2 in torch hub's cache, and no internet."""
    with offline_hub(tmp_path_factory.mktemp("hub")) as hub:
        save_dinov2(hub)
        yield
