import io
import sys

import pytest
from tqdm import tqdm

from langevin.bars import progress_bar


def test_in_a_file_each_state_is_a_line(monkeypatch):
    """Also with a second bar below the first, and a message in between."""
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with progress_bar(total=2, desc="train") as bar:
        bar.update()  # too soon after the first line for another
        tqdm.write("a message", file=err)
        with progress_bar(total=1, desc="evaluate") as inner:
            inner.update()
        bar.update()
    lines = [line.partition(" [")[0] for line in err.getvalue().split("\n")]
    assert lines == [
        "train:   0%|          | 0/2",
        "a message",
        "evaluate:   0%|          | 0/1",
        "evaluate: 100%|##########| 1/1",
        "train: 100%|##########| 2/2",
        "",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_is_redrawn(monkeypatch, terminal):
    err = io.StringIO()
    monkeypatch.setattr(err, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", err)
    with progress_bar(total=1) as bar:
        bar.update()
    assert ("\r" in err.getvalue()) == terminal


def test_a_long_job_writes_few_lines(monkeypatch):
    """A day of a step a second, by a clock of its own; and of an hour at the end the next line is in ten minutes."""
    err, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr("langevin.bars.time.time", lambda: now[0])
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    with progress_bar(total=86_400, miniters=1) as bar:
        bar._time = lambda: now[0]
        bar.start_t = bar.last_print_t = 0.0
        lines = []
        for second in range(1, 86_401):
            now[0] = float(second)
            if bar.update():
                lines.append(second)
    assert lines[:3] == [10, 20, 30]
    assert sum(second <= 3600 for second in lines) < 80
    assert 150 < len(lines) < 250
    assert lines[-1] - lines[-2] == 600
