"""Executes a notebook and stores it with its outputs, without the text of progress bars and what changes each time."""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent


def run(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Execute a notebook.

    Args:
        notebook: is changed in place.
        folder: where it runs: runs go to `outputs/` there.

    Returns:
        the notebook with its outputs, but those of stderr.
    """
    source = os.pathsep.join([str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=1800, coalesce_streams=True, resources=place)
    client.execute(env=os.environ | {"PYTHONPATH": source})
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
    nbformat.write(run(nbformat.read(given.notebook, as_version=4), Path.cwd()), given.notebook)
