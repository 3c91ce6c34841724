"""Encoders whose package or files are missing; none is needed to find that."""

import pytest

from langevin.errors import OptionError, UserError
from langevin.text import files
from langevin.text.clip import CLIPTextEncoder
from langevin.text.open_clip import OpenCLIPTextEncoder
from langevin.text.t5 import T5TextEncoder


@pytest.mark.parametrize("kind", [CLIPTextEncoder, T5TextEncoder, OpenCLIPTextEncoder])
def test_a_missing_package_is_named_with_its_extra(kind, monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"^text={kind.option} needs the package {kind.package}: .*\[text\]'$"):
        kind("somewhere")


def test_a_path_that_is_neither_a_folder_nor_a_name(tmp_path):
    with pytest.raises(OptionError, match="which is no folder; allowed: a folder"):
        files.folder_of(str(tmp_path / "gone"))


def test_a_name_that_cannot_be_fetched(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def fail(*_args, **_options):
        raise OSError("no network\nmuch more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        OptionError, match=r"cannot be fetched from the Hugging Face hub \(no network\); allowed"
    ) as error:
        files.folder_of("openai/clip")
    assert "\n" not in str(error.value)
