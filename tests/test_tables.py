"""A table fits the terminal without losing a cell."""

import pytest

from handgrad.tables import aligned

CELLS = [
    ["l2", "steps", "train loss", "val accuracy", ""],
    ["0", "19500", "0.2813", "0.9219", ""],
    ["0.002", "9", "0.3", "1", "*"],
]
WHOLE = [
    "   l2  steps  train loss  val accuracy",
    "    0  19500      0.2813        0.9219",
    "0.002      9         0.3             1  *",
]


@pytest.mark.parametrize("width", [None, 1000, 41])
def test_a_table_that_fits_is_one(width):
    assert aligned(CELLS, width) == WHOLE


def test_one_that_is_too_wide_goes_on_below_under_its_first_column_and_its_marks():
    assert aligned(CELLS, 40) == [
        "   l2  steps  train loss",
        "    0  19500      0.2813",
        "0.002      9         0.3  *",
        "",
        "   l2  val accuracy",
        "    0        0.9219",
        "0.002             1  *",
    ]


@pytest.mark.parametrize("width", [20, 60, 80, 109, 140])
def test_no_cell_is_lost_and_no_line_too_long(width):
    cells = [["name", *(f"column {i}" for i in range(40))], ["a", *map(str, range(40))]]
    lines = aligned(cells, width)
    assert max(map(len, lines)) <= width
    assert [cell for line in lines[1::3] for cell in line.split()[1:]] == cells[1][1:]


def test_a_column_wider_than_the_terminal_stands_alone():
    cells = [["name", "a", "b"], ["x" * 30, "1", "2"]]
    assert [line.split()[1:] for line in aligned(cells, 20)] == [["a"], ["1"], [], ["b"], ["2"]]


def test_names_begin_below_one_another():
    assert aligned([["job", "loss"], ["seed=1", "2"]], named=True) == ["job     loss", "seed=1     2"]
    assert aligned([["job"], ["seed=1"]]) == ["   job", "seed=1"]
