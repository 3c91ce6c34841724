"""What mkdocs adds to the pages of this folder: pages made of files that stand elsewhere, so that nothing stands twice.

- Files of the repository, such as the README of a study, with their images and tables.
- The reference of commands and groups, made of the comments in conf/ (`langevin.config.describe`).
- Notebooks.

A link to a file of the repository leads to its page or its copy on the site, where it has one; elsewhere it is a text.
"""

import base64
import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from langevin.__main__ import CONFIGURED, OTHERS  # noqa: E402  (of this repository, installed or not)
from langevin.config import describe  # noqa: E402

STUDIES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/README.md"))
PAGES = {
    "CHANGELOG.md": "developers/changelog.md",
    "CONTRIBUTING.md": "developers/contributing.md",
    "slurm/README.md": "guides/slurm.md",
    "experiments/README.md": "results/index.md",
    **{f"experiments/{name}/README.md": f"results/{name}.md" for name in STUDIES},
}
"""Files of the repository, and the pages of the site that show them."""
SOURCES = {page: source for source, page in PAGES.items()}
COPIED = (".png", ".csv", ".json", ".yaml", ".tex", ".md")
"""Files beside the studies' pages, to which these link."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
FENCED = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of groups and studies to the navigation."""
    groups = [{group: f"reference/config/{group}.md"} for group in _groups()]
    _section(config.nav, "reference/config/index.md").extend(groups)
    shown = [page for page in PAGES.values() if page.startswith("results/") and page != "results/index.md"]
    _section(config.nav, "results/index.md").extend(shown)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here, and the files that they show."""
    made = {page: (ROOT / source).read_text() for source, page in PAGES.items()}
    made |= {"reference/commands.md": _commands(), "reference/config/index.md": _group_list()}
    made |= {f"reference/config/{group}.md": _group(group) for group in _groups()}
    docs = Path(config.docs_dir)
    for notebook in docs.glob("notebooks/*.ipynb"):
        made[f"notebooks/{notebook.stem}.md"] = _notebook(notebook)
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for page in [each.src_uri for each in files.documentation_pages()]:
        text = made.get(page) or (docs / page).read_text()
        for place in _linked(page, text):
            source = place.relative_to(ROOT).as_posix()
            if files.get_file_from_path(source) is None:
                copy = File.generated(config, source, abs_src_path=str(place), inclusion=InclusionLevel.NOT_IN_NAV)
                files.append(copy)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Direct links to files of the repository to the site."""
    here, docs = page.file.src_uri, Path(config.docs_dir)

    def directed(link: re.Match[str]) -> str:
        image, text, _, anchor = link.groups()
        place = _place(here, link[3])
        if place is None:
            return link[0]
        target = _page_of(place) or (place.relative_to(docs).as_posix() if docs in place.parents else None)
        if target is None and _is_copied(place):
            target = place.relative_to(ROOT).as_posix()
        if target is None:
            return text
        return f"{image}[{text}]({os.path.relpath(target, Path(here).parent)}{anchor or ''})"

    return _outside_of_fences(markdown, lambda text: LINK.sub(directed, text))


def _outside_of_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for fence in FENCED.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def _linked(page: str, text: str) -> Iterator[Path]:
    """The files of the repository that a page needs beside the site's pages."""
    for link in LINK.finditer(FENCED.sub("", text)):
        place = _place(page, link[3])
        if place is not None and _page_of(place) is None and _is_copied(place):
            yield place


def _place(page: str, link: str) -> Path | None:
    """The file or folder of the repository that a page's link leads to, if it is one of it."""
    if re.match(r"[a-z]+:", link):
        return None
    folder = (ROOT / _source(page)).parent
    place = Path(os.path.normpath(folder / link))
    return place if ROOT in place.parents and (place.exists() or ROOT / "docs" in place.parents) else None


def _source(page: str) -> str:
    """The file of the repository that a page is made of; copies have the same path."""
    return SOURCES.get(page) or (page if page.startswith("experiments/") else f"docs/{page}")


def _page_of(place: Path) -> str | None:
    path = place.relative_to(ROOT).as_posix()
    return PAGES.get(path) or PAGES.get(f"{path}/README.md")


def _is_copied(place: Path) -> bool:
    return ROOT / "experiments" in place.parents and place.suffix in COPIED and place.is_file()


def _section(nav: Any, page: str) -> list[Any]:
    """The list of the navigation that holds a page."""
    if isinstance(nav, list):
        if page in nav:
            return nav
        for entry in nav:
            if isinstance(entry, dict) and (found := _section(next(iter(entry.values())), page)):
                return found
    return []


# The reference: what conf/ says.


def _groups() -> list[str]:
    """All groups, in the order in which a training command lists them; those that it lacks at the end."""
    names = [group.name for command in CONFIGURED for group in describe.command_groups(command)]
    return list(dict.fromkeys(names))


def _commands() -> str:
    parts = ["# Commands", "", "Every command explains itself: `langevin COMMAND --help`.", ""]
    for command in CONFIGURED:
        parts += [f"## langevin {command}", "", _prose(describe.command_comment(command)), ""]
        parts += [*_table(describe.command_options(command)), ""]
        parts += ["Groups, each with a page of its own:", "", "| group | default | |", "| --- | --- | --- |"]
        parts += [
            f"| [{group.name}](config/{group.name}.md) | `{group.default}` | {_cell(group.comment)} |"
            for group in describe.command_groups(command)
        ]
        parts.append("")
    for tool in OTHERS:
        parts += [f"## langevin {tool}", "", "```text", _usage(tool), "```", ""]
    return "\n".join(parts)


def _usage(tool: str) -> str:
    """The help that a command prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"}
    arguments = [sys.executable, "-m", "langevin", tool, "--help"]
    return subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout.rstrip()


def _group_list() -> str:
    parts = [
        "# Configuration",
        "",
        "A run is a choice of one part (or several) from each group. `GROUP=PART` chooses, `GROUP.FIELD=VALUE` sets a "
        "field. The pages are made of the files in `conf/`.",
        "",
        "| group | default | parts |",
        "| --- | --- | --- |",
    ]
    chosen = {group.name: group for command in reversed(CONFIGURED) for group in describe.command_groups(command)}
    for group in _groups():
        names = ", ".join(f"[`{name}`]({group}.md#{name})" for name in describe.part_names(group))
        parts.append(f"| [{group}]({group}.md) | `{chosen[group].default}` | {names} |")
    return "\n".join([*parts, ""])


def _group(group: str) -> str:
    said = {each.name: each.comment for command in CONFIGURED for each in describe.command_groups(command)}
    parts = [f"# {group}", "", f"{said[group][:1].upper()}{_prose(said[group])[1:]}.", ""]
    for name in describe.part_names(group):
        part = describe.part(group, name)
        parts += [f"## {name} {{ #{name} }}", "", _prose(part.comment), ""]
        if part.choices:
            parts += ["Chooses " + ", ".join(f"`{choice}`" for choice in part.choices) + ".", ""]
        if part.options:
            parts += [*_table(part.options), ""]
    return "\n".join(parts)


def _table(options: list[describe.Option]) -> list[str]:
    rows = ["| option | default | |", "| --- | --- | --- |"]
    for option in options:
        default = "must be given" if option.default == describe.REQUIRED else f"`{_cell(option.default)}`"
        rows.append(f"| `{option.path}` | {default} | {_cell(option.comment)} |")
    return rows


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _prose(comment: str) -> str:
    """A comment as a paragraph; its lines of commands as code."""
    lines = []
    for line in comment.splitlines():
        is_command = re.fullmatch(r"([A-Z][\w ]*:)?\s*langevin .*", line)
        lines.append(f"\n```text\n{line}\n```\n" if is_command else html.escape(line, quote=False))
    return re.sub(r"```\n\n\n```text\n", "", "\n".join(lines))


# Notebooks.


def _notebook(path: Path) -> str:
    """A notebook as a page: its texts, its code, and its outputs."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        parts += [source] if cell["cell_type"] == "markdown" else ["```python", source, "```"]
        parts.append("")
        for output in cell.get("outputs", ()):
            parts += [*_output(output), ""]
    return "\n".join([*parts, f"The notebook itself: [{path.name}]({path.name}).", ""])


def _output(output: dict[str, Any]) -> list[str]:
    data = output.get("data", {})
    if "image/png" in data:
        image = "".join(data["image/png"]).replace("\n", "")
        base64.b64decode(image, validate=True)
        return [f'<img alt="output" class="pixels" src="data:image/png;base64,{image}">']
    text = "".join(output.get("text", data.get("text/plain", "")))
    return ["```text", text.rstrip(), "```"] if text.strip() else []
