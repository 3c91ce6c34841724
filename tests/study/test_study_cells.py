import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from langevin.study.cells import quoted


@pytest.mark.parametrize(
    ("text", "as_it_is"),
    [
        ("outputs/schedules", True),
        ("/data/of me", False),
        ("/data/runs.old/x", True),
        ("linear-0.5-seed0-36c0e5a3", True),
        ("1-one-seed0", False),
        ("null", False),
        ("true", False),
        ("1e-3", False),
        ("inf", False),
        ("it's (a) run, [b]", False),
        ("a=b", False),
        ("${oc.env:HOME}/x", False),
    ],
)
def test_hydra_reads_the_text_that_was_meant(text, as_it_is):
    assert (quoted(text) == text) is as_it_is
    (override,) = OverridesParser.create().parse_overrides([f"name={quoted(text)}"])
    assert override.value() == text
