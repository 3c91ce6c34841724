"""Studies of runs of about a second."""

import csv

import yaml
from helpers.commands import TINY, call

QUIET = (
    "callbacks=[checkpoint]",
    *(option for option in TINY if not option.startswith(("callbacks", "trainer.max_steps", "sampler"))),
)
MEASURED = ("conditions=[class_label]", "metrics=[class_accuracy]", "evaluation.num_samples=20", "sampler.steps=2")


def write(folder, **changes):
    """A study of two rates of learning and two seeds, with some keys changed; None leaves one out."""
    values = {
        "question": "How fast?",
        "base": [*QUIET, *MEASURED, "trainer.max_steps=3", "lr_schedule.steps=0", f"output_dir={folder / 'runs'}"],
        "factors": {"rate": {"slow": "optimizer.lr=1e-4", "fast": "optimizer.lr=3e-2"}},
        "seeds": [0, 1],
        "measures": {"train/loss": "down", "eval/class_accuracy": "up"},
    }
    values = {key: value for key, value in (values | changes).items() if value is not None}
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder


def study(folder, *arguments, status=0):
    """Call `python -m langevin.study`; what it printed, and its errors."""
    result = call("study.__main__", str(folder), *arguments)
    assert result.status == status, result.out + result.err
    return result


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def saved(folder):
    """When each run of a study last saved."""
    return {path.parent.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/*/checkpoints/last.ckpt")}
