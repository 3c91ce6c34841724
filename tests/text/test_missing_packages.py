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


def test_what_is_fetched_is_said_before_and_once(monkeypatch, capsys, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "model.safetensors").touch()
    said = []

    def fetch(*_args, **_options):
        said.append(capsys.readouterr().err)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example")
    assert [files.folder_of("some/encoder") for _ in range(2)] == [tmp_path] * 2
    line = "some/encoder: is no folder here; fetching https://hub.example/some/encoder, unless it is cached\n"
    assert said == [line, ""]
