import pytest

from langevin.tables import aligned, fitting, natural

COLUMNS = {"name": ["a", "long name"], "more": ["1", "2"], "value": ["0.5", "12.25"]}


def test_texts_are_left_and_numbers_right():
    assert list(aligned(COLUMNS, ("name",), None)) == [
        "name       more  value",
        "a             1    0.5",
        "long name     2  12.25",
    ]


@pytest.mark.parametrize(
    ("width", "left"),
    [(None, ["name", "more", "value"]), (22, ["name", "more", "value"]), (21, ["name", "value"]), (9, ["value"])],
)
def test_what_is_expendable_goes_first(width, left):
    columns, number = fitting(COLUMNS, ["more", "name"], width)
    assert (list(columns), number) == (left, 3 - len(left))


def test_what_cannot_go_is_cut():
    assert list(aligned({"value": ["0.123456"]}, (), 5)) == ["   v…", "0.12…"]


def test_rows_are_sorted_as_people_count():
    rows = [["heun", "5"], ["ddim", "100"], ["ddim", "20"], ["", "3"], ["7", "x"]]
    assert sorted(rows, key=natural) == [["7", "x"], ["", "3"], ["ddim", "20"], ["ddim", "100"], ["heun", "5"]]
