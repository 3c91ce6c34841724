"""What the contract tests share."""

import pytest
from helpers.dinov2 import offline_hub, save_dinov2


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory):
    """The folder of a torch hub that has a small DINOv2."""
    hub = tmp_path_factory.mktemp("hub")
    save_dinov2(hub)
    return hub


@pytest.fixture(autouse=True)
def hub(dinov2):
    """It is torch hub's, without internet."""
    with offline_hub(dinov2):
        yield
