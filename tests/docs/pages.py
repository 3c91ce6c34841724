"""The fenced blocks of the documentation, and how its commands are made short enough for a test."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers.commands import CLASSIFIER, ROOT, TINY

from langevin.config.overrides import parsed

OWN = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
"""The pages of which every block is run, checked, or says why it is not."""
OTHERS = sorted([ROOT / "slurm/README.md", *ROOT.glob("experiments/*/README.md")])
"""Further pages of the site, of which Langevin's commands are checked."""
BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
CONFIGURED = re.compile(
    r"(?:^|\s)(?:langevin |(?:python )?(?:slurm/)?)(train|sample|evaluate|convert)(?:\.py|\.sbatch)?\s(?:\S+\.txt )?"
)
NO_VALUES = {"trainer.val_check_interval": "2", "trainer.limit_val_batches": "1", "metrics": "[]"}
AT_MOST = {
    "num_samples": 40,  # FID asks for 32 or more, of a classifier of 32 features
    "num_images": 1,
    "batch_size": 40,
    "trajectory": 2,
    "sampler.steps": 2,
    "trainer.max_steps": 4,
    "data.image_size": 16,
}
"""Options whose values a test makes smaller."""


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        marker: "run", "not run: REASON", or "".
        language: what is written behind the fence.
        text: its lines.
    """

    marker: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page."""
    return [Block(*(found[name] or "" for name in Block._fields)) for found in BLOCK.finditer(page.read_text())]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a block, as words."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def configured(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block that Hydra configures, in whatever way they are called: their names and overrides."""
    for line in text.replace("\\\n", " ").splitlines():
        if (found := CONFIGURED.search(line)) and not line.startswith(("printf", "job=", "error", " ")):
            yield found[1], shlex.split(line[found.end() :], comments=True)


def cells(overrides: list[str]) -> list[list[str]]:
    """The runs of a sweep, so many that each value is in one of them."""
    values = []
    for override in overrides:
        read = parsed(override)
        if read is not None and read.is_sweep_override():
            values.append([f"{read.key_or_group}={each}" for each in read.sweep_string_iterator()])
        else:
            values.append([override])
    return [[each[i % len(each)] for each in values] for i in range(max(map(len, values), default=1))]


def shortened(command: str, overrides: list[str]) -> list[str]:
    """Overrides that ask for the same in a second or two."""
    given = dict(each.partition("=")[::2] for each in overrides if "=" in each)
    short: dict[str, str] = {}
    if command == "train" and given.get("experiment") == "toy":
        short |= {"trainer.max_steps": "2", "callbacks": "[checkpoint]", "lr_schedule.steps": "0"} | NO_VALUES
    elif command == "train" and "autoencoder" in (given.get("task"), given.get("experiment", "").partition("_")[2]):
        short |= {"autoencoder.channels": "8", "autoencoder.norm_groups": "4", "trainer.max_steps": "4"} | NO_VALUES
        short |= {"callbacks": "[checkpoint]", "lr_schedule.steps": "0"}
    elif command == "train" and ("task" in given or "classifier" in given.get("experiment", "")):
        short |= dict(each.split("=", 1) for each in CLASSIFIER)
    elif command == "train":
        short |= dict(each.split("=", 1) for each in TINY) | NO_VALUES
    if "sampler" in given:
        short["sampler.steps"] = "2"
    if given.get("data") in ("image_folder", "parquet"):
        short["data.image_size"] = "16"
    counts = {key: int(value) for key, value in given.items() if key in AT_MOST and value.isdigit()}
    short |= {key: str(min(count, AT_MOST[key])) for key, count in counts.items()}
    return [each for each in overrides if each.partition("=")[0] not in short] + [f"{k}={v}" for k, v in short.items()]


def shortened_python(text: str) -> str:
    """Python that does the same in a second or two."""
    tiny = shortened("train", ["experiment=digits", "name=quickstart"])
    text = text.replace('"experiment=digits", "name=quickstart"', ", ".join(f'"{each}"' for each in tiny))
    return re.sub(r"num_samples=\d+", "num_samples=20", text)
