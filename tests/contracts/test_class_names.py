"""A class name means one thing in the whole package."""

import ast
from collections import Counter

from helpers.commands import ROOT


def test_no_public_class_name_stands_twice():
    names = Counter(
        node.name
        for path in (ROOT / "src" / "langevin").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert len(names) > 100
    assert [name for name, number in names.items() if number > 1] == []
