from pathlib import Path

import pytest
from helpers.inception import write_inception_weights


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Inception weights, not the official ones."""
    return write_inception_weights(tmp_path_factory.mktemp("inception") / "weights.pth")
