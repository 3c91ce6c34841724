"""Links between files of the repository lead somewhere; those of the site are checked when it is built."""

import re

import pytest
from helpers.commands import ROOT
from pages import OTHERS

FILES = [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")), *OTHERS]
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)|<img src=\"([^\"]+)\"")


def anchors(text: str) -> set[str]:
    """The anchors of a file's headings, as repository hosts make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", [pytest.param(file, id=str(file.relative_to(ROOT))) for file in FILES])
def test_links_lead_somewhere(file):
    for found in LINK.finditer(file.read_text()):
        link = found[1] or found[2]
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        place = file.parent / path if path else file
        assert place.exists(), link
        if anchor:
            assert anchor in anchors(place.read_text()), link


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250
