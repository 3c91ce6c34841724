"""Every command and every block of Python of the documentation works: it is run in short, or at least checked."""

import contextlib
import inspect
import io
import re
import shutil
import sys

import numpy as np
import pytest
import yaml
from helpers.commands import ROOT, call
from helpers.commands import composed as of_command
from helpers.dinov2 import offline_hub, save_dinov2
from helpers.saved import save_untrained
from pages import OTHERS, OWN, Block, blocks, cells, commands, configured, shortened, shortened_python
from PIL import Image

import langevin
from langevin.__main__ import CONFIGURED, MODULES, main
from langevin.cli import composed
from langevin.commands import convert, evaluate, sample
from langevin.config.options import RUN_OPTIONS
from langevin.errors import UserError
from langevin.spec import DataSpec
from langevin.text.frozen import FrozenTextEncoder

NAMED = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in OWN]
RUN = [
    pytest.param(page, id=str(page.relative_to(ROOT)))
    for page in OWN
    if any(block.language in ("console", "python") or block.marker == "run" for block in blocks(page))
]
IN_DOCSTRING = re.findall(r":\n\n((?:    .*\n|\n)+)", langevin.__doc__)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with what the pages assume to be there: two trained runs, photos by class, images with targets, rows."""
    folder = tmp_path_factory.mktemp("docs")
    for experiment, name in (("digits", "quickstart"), ("digits_classifier", "digits_classifier")):
        overrides = shortened("train", [f"experiment={experiment}", f"name={name}"])
        found = call("train", *overrides, f"output_dir={folder / 'outputs'}")
        assert found.status == 0, found.err
    words = shortened("sample", ["num_samples=500", f"checkpoint={folder / 'outputs/quickstart'}"])
    assert call("sample", *words).status == 0
    random = np.random.default_rng(0)
    for number in range(12):
        place = folder / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(place)
        for kind in ("originals", "reconstructions"):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / kind / place.name)
    shutil.copytree(ROOT / "tests/data/of_datasets", folder / "digits_parquet")
    return folder


@pytest.fixture
def folder(runs, tmp_path, monkeypatch):
    """A copy of it, to work in."""
    place = tmp_path / "work"
    shutil.copytree(runs, place)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    yield place
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_parts"]:
        del sys.modules[name]


def langevin_command(words: list[str], monkeypatch) -> tuple[int, str]:
    """Run `langevin ...`: its status, and what it printed."""
    monkeypatch.setattr(sys, "argv", words)
    spec, out = sys.modules["__main__"].__spec__, io.StringIO()
    status: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            main()
    except SystemExit as done:
        status = done.code
    finally:
        sys.modules["__main__"].__spec__ = spec
    return int(status is not None and status != 0), out.getvalue()


def check(command: str, overrides: list[str]) -> None:
    """Compose a command's config and find the mistakes in it."""
    modules = {"sample": sample, "evaluate": evaluate, "convert": convert}
    options = modules[command].OPTIONS if command in modules else RUN_OPTIONS
    words = [each for each in overrides if not each.startswith(("-", "hydra"))]
    for cell in cells(words) if "-m" in overrides else [words]:
        with composed(command, cell, options) as cfg:
            if command == "train":
                from langevin.assembly.check import mistakes_in

                assert not (found := mistakes_in(cfg)), (cell, found)
            elif command == "convert":
                with pytest.raises(UserError, match=r"does not exist|is there already"):
                    convert.run(cfg)
            else:
                modules[command].check(cfg)


def run_block(block: Block, monkeypatch) -> None:
    """Run the commands of a block, shortened."""
    for name, command, *words in commands(block.text):
        assert name == "langevin", f"{name} is not run by a test: mark the block <!-- not run: REASON -->"
        short = shortened(command, words) if command in CONFIGURED else words
        if command == "study":
            short = [*words, "--", "lr_schedule.steps=0", *shortened("train", [])]
        status, printed = langevin_command([name, command, *short], monkeypatch)
        assert status == 0, f"langevin {command} {' '.join(short)}\n{printed}"


@pytest.mark.parametrize("page", NAMED)
def test_every_block_says_what_it_is(page):
    for block in blocks(page):
        assert block.language in ("sh", "console", "python", "yaml", "json", "text"), block
        assert block.marker in ("", "run") or block.marker.startswith("not run: "), block.marker
        if block.language == "sh" and not block.marker.startswith("not run: "):
            for words in commands(block.text):
                assert words[0] == "langevin", f"{words}: mark the block <!-- not run: REASON -->"
                assert words[1] in MODULES, words
        if block.language in ("yaml", "json"):
            assert yaml.safe_load(block.text)


def save_autoencoder(run):
    """What a command takes for a trained autoencoder: of digits if its name says so, else of images in colour."""
    place = run / "checkpoints" / "last.ckpt"
    place.parent.mkdir(parents=True, exist_ok=True)
    cfg = of_command("train", "task=autoencoder", "autoencoder.channels=8", "autoencoder.norm_groups=4")[0]
    save_untrained(place, cfg, DataSpec.of_images(1 if "digits" in run.name else 3, 8, None))


def encoder_files(cls, options):
    """What a command takes for the files of a pretrained encoder of text, which nobody can fetch here."""
    sizes = [name for name in ("channels", "pooled_channels") if name in inspect.signature(cls).parameters]
    return {"weights": "0" * 64, **dict.fromkeys(sizes, 8)}


def save_base(run, overrides):
    """What a command takes for the run that it starts from: an untrained one of the same recipe."""
    place = run / "checkpoints" / "last.ckpt"
    place.parent.mkdir(parents=True, exist_ok=True)
    cfg = of_command("train", *(each for each in overrides if each.startswith("experiment=")))[0]
    save_untrained(place, cfg, DataSpec.of_images(3, cfg.data.image_size, None))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A small DINOv2 in torch hub's cache, and no internet."""
    with offline_hub(tmp_path_factory.mktemp("hub")) as place:
        save_dinov2(place)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("page", [*NAMED, *(pytest.param(page, id=str(page.relative_to(ROOT))) for page in OTHERS)])
def test_every_command_has_a_config_without_mistakes(page, tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FrozenTextEncoder, "found", classmethod(encoder_files))
    for block in blocks(page):
        if block.language in ("", "sh") and block.marker != "run":
            for command, overrides in configured(block.text):
                for override in overrides:
                    if override.startswith("codec.run="):
                        save_autoencoder(tmp_path / override.removeprefix("codec.run="))
                    if override.startswith("init.checkpoint=") and page in OTHERS:
                        save_base(tmp_path / override.removeprefix("init.checkpoint="), overrides)
                check(command, overrides)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_blocks_work(page, folder, monkeypatch):
    for block in blocks(page):
        first = block.text.partition("\n")[0]
        if block.language in ("python", "yaml") and first.startswith("# my_"):
            place = folder / first.removeprefix("# ")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(re.sub(r"trials: \d+", "trials: 2", block.text))
        elif block.language == "python":
            exec(shortened_python(block.text), {})
        elif block.language == "console":
            command, _, output = block.text.partition("\n")
            ((_, *words),) = commands(command)
            assert langevin_command(words, monkeypatch) == (1, output)
        elif block.marker == "run":
            run_block(block, monkeypatch)


def test_the_docstring_of_the_package_works(folder):
    names = {"langevin": langevin}
    exec(shortened_python(inspect.cleandoc(IN_DOCSTRING[0])), names)
    assert names["samples"].record["samples"]["guidance"]["scale"] == 2.0
    exec(inspect.cleandoc(IN_DOCSTRING[1]), names)
    assert names["x"].shape == (4, 3, 32, 32)
    assert names["x"].std() > 0
