"""`langevin COMMAND ...`, also `python -m langevin COMMAND ...`: the one program, of which each command is a module."""

import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec

from langevin import __version__
from langevin.config.describe import command_comment, first_sentence
from langevin.errors import UserError
from langevin.help import FLAGS, is_wanted, show
from langevin.visible import ending_with_reader, visible_lines

CONFIGURED = ("train", "sample", "evaluate", "convert")
"""The commands that are configured by Hydra, whose help is made of their YAML files."""
OTHERS = {
    "runs": ("langevin.runs", "lists runs and their state"),
    "study": ("langevin.study.__main__", "runs a study's grid of runs, or a search, and makes its table"),
    "report": ("langevin.report.__main__", "puts runs side by side in one HTML file"),
    "dashboard": ("langevin.dashboard", "makes a workspace and a report in W&B for the runs in a folder"),
    "ui": ("langevin.ui.__main__", "opens a page on this machine that samples from one or two runs"),
}
MODULES = {name: f"langevin.commands.{name}" for name in CONFIGURED} | {name: at for name, (at, _) in OTHERS.items()}


def main() -> None:
    """Run the command that the command line names."""
    name, *rest = sys.argv[1:] or ["--help"]
    try:
        if name in (*FLAGS, "--version"):
            with ending_with_reader():
                print(overview() if name in FLAGS else __version__)
        elif name not in MODULES:
            close = get_close_matches(name, MODULES, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"{name}: no such command{hint}; allowed: {', '.join(MODULES)}")
        elif name in CONFIGURED and is_wanted(rest):
            show(name, rest)
        else:
            sys.argv[1:] = rest
            # Lightning starts further processes by `python -m` and the name of this specification.
            sys.modules["__main__"].__spec__ = find_spec(MODULES[name])
            import_module(MODULES[name]).main()
    except UserError as error:
        print(visible_lines(f"error: {error}"), file=sys.stderr, flush=True)
        sys.exit(1)


def overview() -> str:
    """All commands, a line each."""
    about = {name: first_sentence(command_comment(name)) for name in CONFIGURED}
    lines = {name: f"{text[0].lower()}{text[1:]}" for name, text in about.items()}
    lines |= {name: text for name, (_, text) in OTHERS.items()}
    return "\n".join(
        [
            "langevin: controlled experiments on diffusion models",
            "",
            *(f"  langevin {name:<11} {text}" for name, text in lines.items()),
            "",
            "langevin COMMAND --help shows its options. A first run, in a minute on a CPU:",
            "",
            "  langevin train experiment=digits name=first",
            "  langevin sample checkpoint=outputs/first",
        ]
    )


if __name__ == "__main__":
    main()
