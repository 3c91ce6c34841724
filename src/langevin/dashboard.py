"""`python -m langevin.dashboard [FOLDER] --project PROJECT`: a workspace and a report in W&B for the runs in a folder.

What is logged and what differs among the runs is read from their folders, so that every metric has its panel and every
option that was varied its axis. Nothing of the runs is sent: W&B shows what they have logged there (`loggers=wandb`).
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langevin.config.naming import short_names
from langevin.errors import UserError, missing_package
from langevin.runs import find_runs

STEP = "trainer/global_step"
"""What Lightning's logger calls the step."""
TRAINING = ("train/loss", "val/loss", "train/grad_norm", "train/learning_rate")
IMAGES = ("samples", "trajectory")
SPEED = "train/images_per_second"


@dataclass(frozen=True)
class DashboardContent:
    """What a dashboard is about.

    Attributes:
        metrics: the columns of evaluations and validations, such as "eval/fid@50000".
        varied: the options in which the runs differ, by their full paths, and their short names.
        images: the kinds of images that the runs draw.
    """

    metrics: tuple[str, ...]
    varied: dict[str, str]
    images: tuple[str, ...]


def content_of(folder: Path) -> DashboardContent:
    """What the runs in a folder have logged, and where they differ.

    Raises:
        UserError: when there is no run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the one that holds the runs")
    runs = [run for found in find_runs(folder).values() for run in found]
    if not runs:
        raise UserError(f"{folder} holds no runs; train some first, with loggers=wandb")
    names = {name for run in runs for name in run.metrics}
    # The objective's own terms, which are logged of training too, add little to the loss.
    own = {name for name in names if name.replace("val/", "train/", 1) in names}
    metrics = sorted(name for name in names - own if name.startswith(("eval/", "val/")))
    short = short_names({path for run in runs for path in run.differs})
    drawn = {path.name.rpartition("_")[0] for run in runs for path in Path(run.folder, run.name).glob("samples/*.png")}
    return DashboardContent(
        tuple(metrics), dict(sorted(short.items())), tuple(name for name in IMAGES if name in drawn)
    )


def sections(content: DashboardContent) -> dict[str, list[Any]]:
    """The panels, by the titles of what they are about."""
    import wandb_workspaces.reports.v2 as wr

    found = {
        "Evaluation": lines(content.metrics),
        "Samples": [wr.MediaBrowser(media_keys=[name], num_columns=2) for name in content.images],
        "Training": lines(TRAINING, smoothing=0.6),
        "Speed": lines([SPEED]),
    }
    if content.varied and content.metrics:
        axes = [
            *(wr.ParallelCoordinatesPlotColumn(wr.Config(path), name) for path, name in content.varied.items()),
            *(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(name)) for name in content.metrics),
        ]
        found["Sweep"] = [wr.ParallelCoordinatesPlot(columns=axes, layout=wr.Layout(w=24, h=10))]
    return {title: panels for title, panels in found.items() if panels}


def lines(names: Iterable[str], smoothing: float = 0.0) -> list[Any]:
    """A panel for each value, against the steps."""
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.LinePlot(title=name, x=STEP, y=[name], smoothing_type="exponential", smoothing_factor=smoothing)
        for name in names
    ]


def workspace(content: DashboardContent, entity: str, project: str, name: str) -> Any:
    """The workspace, not yet saved."""
    import wandb_workspaces.workspaces as ws

    parts = [ws.Section(name=title, panels=panels, is_open=True) for title, panels in sections(content).items()]
    settings = ws.WorkspaceSettings(x_axis=STEP, max_runs=20)
    return ws.Workspace(entity=entity, project=project, name=name, sections=parts, settings=settings)


def report(content: DashboardContent, entity: str, project: str, name: str) -> Any:
    """The report, not yet saved: the same panels with room for what they show."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents(), wr.H1("Question"), wr.P("What is asked, and what would answer it.")]
    for title, panels in sections(content).items():
        grid = wr.PanelGrid(runsets=[wr.Runset(entity=entity, project=project)], panels=panels)
        blocks += [wr.H1(title), grid, wr.P("What this shows.")]
    return wr.Report(entity=entity, project=project, title=name, blocks=blocks, width="fluid")


def save(content: DashboardContent, entity: str | None, project: str, name: str) -> list[str]:
    """Make both in W&B.

    Returns:
        their addresses.

    Raises:
        UserError: when W&B does not take them.
    """
    import wandb

    try:
        owner = entity or wandb.Api(timeout=30).default_entity
        if not owner:
            raise UserError("W&B has no account on this machine: `wandb login`, or WANDB_API_KEY")
        made = [make(content, owner, project, name).save() for make in (workspace, report)]
    except UserError:
        raise
    except Exception as error:  # whatever the service, the network or the missing login came up with
        raise UserError(f"W&B did not take the dashboard of project {project}: {error}") from error
    return [each.url for each in made]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and make them."""
    parser = argparse.ArgumentParser(
        "python -m langevin.dashboard", description="Makes a workspace and a report in W&B for the runs in a folder."
    )
    parser.add_argument("folder", nargs="?", default="outputs", type=Path, help="where the runs are (outputs)")
    parser.add_argument("--project", required=True, help="the project in W&B, loggers.wandb.project of the runs")
    parser.add_argument("--entity", help="the team or account (the account's own)")
    parser.add_argument("--name", default="Langevin", help="what both are called (Langevin)")
    given = parser.parse_args(arguments)
    try:
        if find_spec("wandb_workspaces") is None:
            raise missing_package("a dashboard", "wandb-workspaces", "dashboard")
        for address in save(content_of(given.folder), given.entity, given.project, given.name):
            print(address)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
