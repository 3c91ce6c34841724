"""Executes a notebook and stores it with its outputs, without the text of progress bars and what changes each time."""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent


def executed(path: Path, folder: Path) -> NotebookNode:
    """Execute a notebook.

    Args:
        path: the notebook.
        folder: where it runs: runs go to `outputs/` there.

    Returns:
        the notebook with its outputs, but those of stderr.
    """
    notebook = nbformat.read(path, as_version=4)
    return run(notebook, folder)


def run(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Execute the cells of a notebook in a folder, see `executed`."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.pop("execution_count", None)
                if output.output_type == "execute_result":
                    output["execution_count"] = None
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", nargs="?", type=Path, default=HERE / "first_samples.ipynb")
    given = parser.parse_args()
    nbformat.write(executed(given.notebook, Path.cwd()), given.notebook)
