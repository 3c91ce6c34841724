import csv
import os
import re
import stat
from contextlib import nullcontext

import pytest
from training_helpers import QUIET, read_csv, train

from langevin.errors import UserError
from langevin.training.loggers.csv import CSVFile


def rows_of(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    return header, rows


def test_values_are_read_back_exactly(tmp_path):
    logger = CSVFile(tmp_path / "metrics.csv")
    values = [0.1, 1e-300, float("inf"), 12345678.9, -0.0]
    for step, value in enumerate(values, 1):
        logger.log_metrics({"loss": value, "epoch": 3}, step)
    logger.save()
    header, rows = rows_of(tmp_path / "metrics.csv")
    assert header == ["step", "loss"]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [repr(float(row[1])) for row in rows] == [repr(value) for value in values]


def test_a_row_is_on_the_disk_once_it_is_saved(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CSVFile(path)
    for step in (1, 2, 3):
        logger.log_metrics({"loss": step}, step)
        before = path.read_text() if path.exists() else ""
        logger.save()
        assert path.read_text().startswith(before)
        assert [row["step"] for row in read_csv(path)] == [str(number) for number in range(1, step + 1)]


def test_later_rows_are_appended(tmp_path):
    """The file grows: it is not written anew for each row of a long run."""
    path = tmp_path / "metrics.csv"
    logger = CSVFile(path)
    logger.log_metrics({"loss": 1}, 1)
    logger.save()
    os.link(path, tmp_path / "the same file")
    for step in (2, 3):
        logger.log_metrics({"loss": step}, step)
        logger.save()
        logger.save()
    assert path.samefile(tmp_path / "the same file")
    assert rows_of(path)[1] == [["1", "1.0"], ["2", "2.0"], ["3", "3.0"]]


def test_values_of_one_step_share_a_row(tmp_path):
    logger = CSVFile(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 1.0}, 10)
    logger.save()
    logger.log_metrics({"val/loss": 2.0}, 10)
    logger.log_metrics({"train/loss": 3.0}, 20)
    logger.save()
    logger.log_metrics({"val/loss": 4.0}, 10)
    logger.finalize("success")
    assert rows_of(tmp_path / "metrics.csv") == (
        ["step", "train/loss", "val/loss"],
        [["10", "1.0", "4.0"], ["20", "3.0", ""]],
    )


def test_rows_are_in_order_of_their_steps(tmp_path):
    logger = CSVFile(tmp_path / "metrics.csv")
    for step in (20, 10, 30):
        logger.log_metrics({"loss": step}, step)
        logger.save()
    assert [row[0] for row in rows_of(tmp_path / "metrics.csv")[1]] == ["10", "20", "30"]


def test_columns_may_appear_later(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CSVFile(path)
    logger.log_metrics({"loss": 1}, 1)
    logger.save()
    logger.log_metrics({"loss": 2, "a, quoted": 5}, 2)
    logger.save()
    assert rows_of(path) == (["step", "loss", "a, quoted"], [["1", "1.0", ""], ["2", "2.0", "5.0"]])


def test_a_resumed_run_drops_what_its_checkpoint_does_not_know(tmp_path):
    path = tmp_path / "metrics.csv"
    first = CSVFile(path)
    for step in (10, 20, 30):
        first.log_metrics({"loss": step}, step)
    first.save()
    second = CSVFile(path)
    second.resume(20)
    assert [row[0] for row in rows_of(path)[1]] == ["10", "20"]
    second.log_metrics({"loss": 31, "new": 1}, 30)
    second.save()
    assert rows_of(path) == (
        ["step", "loss", "new"],
        [["10", "10.0", ""], ["20", "20.0", ""], ["30", "31.0", "1.0"]],
    )


def test_a_resumed_run_without_a_file_starts_one(tmp_path):
    logger = CSVFile(tmp_path / "run" / "metrics.csv")
    logger.resume(20)
    logger.log_metrics({"loss": 1}, 30)
    logger.save()
    assert rows_of(logger.path)[1] == [["30", "1.0"]]


@pytest.mark.parametrize("cut", range(1, len("120,0.512,7.25\n") + 1))
def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path, cut):
    """Wherever it is cut: "12" is no step 12, and "0.5" is not 0.512."""
    path = tmp_path / "metrics.csv"
    whole = "step,loss,norm\n100,1.5,2.5\n110,1.25,2.25\n"
    path.write_text(whole + "120,0.512,7.25\n"[:-cut])
    logger = CSVFile(path)
    is_cut = cut < len("120,0.512,7.25\n")
    with pytest.warns(UserWarning, match=re.escape(str(path))) if is_cut else nullcontext():
        logger.resume(120)
    assert path.read_text() == whole
    logger.log_metrics({"loss": 0.25, "norm": 1.0}, 130)
    logger.save()
    assert path.read_text() == whole + "130,0.25,1.0\n"


@pytest.mark.parametrize("text", ["", "st", "step,loss", "step,loss\n", "step,loss\n10"])
@pytest.mark.filterwarnings("ignore:the last line of")
def test_a_file_that_holds_no_row_is_started_anew(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    logger = CSVFile(path)
    logger.resume(100)
    logger.log_metrics({"loss": 0.5}, 110)
    logger.save()
    assert rows_of(path) == (["step", "loss"], [["110", "0.5"]])


DAMAGE = {
    "binary": (bytes(range(128, 256)) + b"\n10,1.5\n", "line 1 is no text"),
    "zeros, as a crash of the machine leaves them": (b"step,loss\n10,1.5\n" + bytes(6) + b"\n", "line 3 is no text"),
    "another header": (b"epoch,loss\n10,1.5\n", "its first line names no column 'step'"),
    "a name missing": (b"step,loss\n10,1.5,2.5\n", "line 2 has 3 fields, but the first line names 2 columns"),
    "a field missing": (b"step,loss,norm\n10,1.5,2\n20,1.5\n", "line 3 has 2 fields, but the first line names 3"),
    "no step": (b"step,loss\nten,1.5\n", "a row has the step 'ten'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_and_stays(tmp_path, name):
    path = tmp_path / "metrics.csv"
    content, words = DAMAGE[name]
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))} is damaged: {re.escape(words)}"):
        CSVFile(path).resume(20)
    assert path.read_bytes() == content


def test_a_run_with_a_damaged_file_is_one_error(tmp_path):
    options = (*QUIET, "trainer.max_steps=2")
    train(tmp_path, *options)
    path = tmp_path / "run" / "metrics.csv"
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    refused = train(tmp_path, *QUIET, "trainer.max_steps=3", status=1)
    (line,) = [line for line in refused.err.splitlines() if line.startswith("error:")]
    assert f"{path} is damaged: line 1 is no text" in line
    assert "Traceback" not in refused.err


def test_it_is_rewritten_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    logger = CSVFile(path)
    logger.log_metrics({"loss": 1}, 1)
    logger.save()
    before = path.read_bytes()

    def fail(*paths):
        raise OSError("killed")

    logger.log_metrics({"loss": 2, "new": 3}, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="killed"):
            logger.save()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["metrics.csv"]
    logger.save()
    assert rows_of(path)[1] == [["1", "1.0", ""], ["2", "2.0", "3.0"]]


def test_others_may_read_it(tmp_path):
    logger = CSVFile(tmp_path / "metrics.csv")
    logger.log_metrics({"loss": 1}, 1)
    logger.save()
    (tmp_path / "plain").touch()
    mode = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "metrics.csv").stat().st_mode) == mode


def test_a_new_run_in_an_old_folder_without_a_checkpoint_starts_its_log_anew(tmp_path):
    run = train(tmp_path, *QUIET, "trainer.max_steps=2")
    run.last.unlink()
    again = train(tmp_path, *QUIET, "trainer.max_steps=3")
    assert [row["step"] for row in again.rows] == ["1", "2", "3"]
