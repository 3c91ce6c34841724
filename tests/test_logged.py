"""`metrics.csv`, read from both ends, against Python's own reader."""

import csv
import math
import random

import pytest

from langevin import logged
from langevin.logged import last_values, read_logged, texts_at

HEAD = "step,train/loss,val/loss,eval/fid@50,eval/protocol\n"


def write(path, number, end="\n"):
    chance = random.Random(number)
    with path.open("w", newline="") as file:
        file.write(HEAD.replace("\n", end))
        for step in range(1, number + 1):
            loss = "nan" if chance.random() < 0.1 else repr(chance.random())
            val = repr(chance.random()) if step % 7 == 0 else ""
            fid, protocol = (repr(chance.random()), f"{step:08d}") if step % 31 == 0 else ("", "")
            file.write(f"{step},{loss},{val},{fid},{protocol}{end}")
    return path


def expected(path):
    """All numbers by columns, with their steps."""
    columns = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if text and name not in ("step", "eval/protocol"):
                    columns.setdefault(name, []).append((int(row["step"]), float(text)))
    return columns


def same(points):
    return [(step, "nan" if math.isnan(value) else value) for step, value in points]


@pytest.mark.parametrize("block", [1, 7, 64, 1000, 1 << 20])
@pytest.mark.parametrize(("number", "end"), [(0, "\n"), (1, "\n"), (100, "\n"), (100, "\r\n")], ids=str)
def test_both_ways_of_reading(tmp_path, monkeypatch, block, number, end):
    monkeypatch.setattr(logged, "BLOCK", block)
    path, damage = write(tmp_path / "metrics.csv", number, end), []
    columns = expected(path)
    found = read_logged(path)
    assert found.damage == ""
    assert {name: same(series) for name, series in found.columns.items()} == {
        name: same(points) for name, points in columns.items()
    }
    assert found.protocols == {step: f"{step:08d}" for step in range(31, number + 1, 31)}, (
        "names, which look like numbers"
    )
    last = {name: (step, value) for name, (value, step) in last_values(path, damage).items()}
    assert {name: same([point]) for name, point in last.items()} == {
        name: same(points[-1:]) for name, points in columns.items()
    }
    assert not damage
    if number:
        assert texts_at(path, 62 if number == 100 else 1).keys() >= {"train/loss"}
    assert texts_at(path, number + 1) == {}


def test_a_row_by_its_step(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(HEAD + "1,0.5,,,\n2,0.25,,7.0,abc\n4,1.0,,,\n")
    assert texts_at(path, 2) == {"train/loss": "0.25", "eval/fid@50": "7.0", "eval/protocol": "abc"}
    assert texts_at(path, 3) == {}
    assert texts_at(tmp_path / "nowhere", 3) == {}


def test_no_more_is_read_than_it_takes(tmp_path, monkeypatch):
    """Of a log of 100,000 rows the last block, for all columns are in it."""
    path, seen = write(tmp_path / "metrics.csv", 100_000), []
    add = logged._fields
    monkeypatch.setattr(logged, "_fields", lambda line: seen.append(len(line)) or add(line))
    assert len(last_values(path, [])) == 3
    assert len(seen) < 40


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (b"3,0.5,,", None),  # cut by a kill
        (b"\n\n", None),
        (b'"3",0.125,,,\n', None),
        (b"3,0.125\n", None),
        (b"3,0.125,,,,,,,\n", None),
        (b"\0" * 100 + b"\n", r"a row has the step '\x00"),
        (b"9" * 5000 + b",1,,,\n", "a row has the step '99999999999999999999…'"),
        (b"-3,1,,,\n", "a row has the step '-3'"),
        (b"\xff\xfe,1,,,\n", "a row has the step"),
        (b'"' + b"1" * 200_000 + b'",\n', "a row cannot be read (field larger than field limit"),
        (b"3," + b"1" * 3_000_000 + b"\n", "a row is too long"),
    ],
    ids=range(11),
)
def test_what_is_wrong_is_left_out_and_reported(tmp_path, rest, reason):
    path, damage = tmp_path / "metrics.csv", []
    path.write_bytes(HEAD.encode() + b"1,0.5,,,\n2,0.25,0.75,,\n" + rest)
    found = read_logged(path)
    points = [(1, 0.5), (2, 0.25), *([(3, 0.125)] if b"0.125" in rest else [])]
    assert list(found.columns["train/loss"]) == points
    last = last_values(path, damage)
    if reason != "a row is too long":  # from the back there is no way past it
        assert last["train/loss"] == points[-1][::-1]
    for report in (found.damage, "".join(damage)):
        assert (reason or "") in report
        assert bool(report) == bool(reason)


@pytest.mark.parametrize("content", [b"", b"step,train/loss", b"a,b\n1,2\n", b"x" * 2_000_000, bytes(range(256))])
def test_what_is_no_log(tmp_path, content):
    path, damage = tmp_path / "metrics.csv", []
    path.write_bytes(content)
    assert last_values(path, damage) == {}
    found = read_logged(path)
    assert not found.columns
    assert bool(found.damage) == bool(damage) == (content[:4] not in (b"", b"step"))


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    """CPU seconds are those of a slow machine; on a fast one it is a third."""
    import resource

    path = write(tmp_path / "metrics.csv", 1_000_000)

    def seconds(read):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        read()
        return resource.getrusage(resource.RUSAGE_SELF).ru_utime - before

    assert seconds(lambda: last_values(path, [])) < 0.5
    assert seconds(lambda: read_logged(path)) < 8
