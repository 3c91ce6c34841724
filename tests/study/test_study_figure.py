import pytest

from langevin.study.compare import Row
from langevin.study.estimate import estimate

Figure = pytest.importorskip("matplotlib.figure").Figure


@pytest.mark.parametrize(
    ("others", "scale"),
    [((3.0, 5.0), "linear"), ((300.0, 290.0), "log"), ((-300.0, 290.0), "linear"), ((0.0, 290.0), "linear")],
)
def test_values_of_several_decades_are_distinguished(others, scale):
    from langevin.study.figure import panel

    arms = {"fast": (1.0, 1.1), "slow": others}
    rows = [Row({"speed": arm}, dict(enumerate(values)), estimate(values)) for arm, values in arms.items()]
    axis = Figure().subplots()
    panel(axis, rows, {"speed": list(arms)})
    assert axis.get_yscale() == scale
    drawn = [float(value) for line in axis.lines if line.get_marker() == "o" for value in line.get_ydata()]
    assert drawn == [1.0, 1.1, *others]
