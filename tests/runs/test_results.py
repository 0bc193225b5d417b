"""``results.csv``: what is written is what is read, to the last bit; and which of its rows is the result."""

import math
import random
import re

import pytest

from handgrad.errors import InputError
from handgrad.runs.results import COLUMNS, MEASURES, as_csv, check_same, number, read_results, selected, shown, table


def row(l2: float, val_loss: float, **more: object) -> dict:
    measured = dict.fromkeys(MEASURES, 0.5) | {"val_loss": val_loss, "weight_norm_squared": 4.0}
    return {"task": "softmax", "l2": l2, "steps": 240, "best_step": 210, **measured, **more}


@pytest.fixture
def written(tmp_path):
    """Writes rows and reads them."""

    def written(rows):
        (tmp_path / "results.csv").write_bytes(as_csv(rows))
        return read_results(tmp_path / "results.csv")

    return written


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_columns_are_these_in_this_order():
    assert " ".join(COLUMNS) == (
        "classes scaling l2 C selected epoch steps best_step "
        "train_loss val_loss test_loss train_accuracy val_accuracy test_accuracy weight_norm_squared "
        "objective gap gradient_norm converged iterations passes seconds "
        "last_train_loss last_val_loss last_test_loss last_train_accuracy last_val_accuracy last_test_accuracy "
        "last_weight_norm_squared last_gap val_map test_map "
        "val_loss_se val_accuracy_se val_mean_per_class val_mean_per_class_se val_f1_macro val_f1_macro_se "
        "val_auroc val_auroc_se val_loss_sd val_accuracy_sd val_mean_per_class_sd val_f1_macro_sd val_auroc_sd "
        "test_loss_low test_loss_high test_accuracy_low test_accuracy_high "
        "test_mean_per_class test_mean_per_class_low test_mean_per_class_high "
        "test_f1_macro test_f1_macro_low test_f1_macro_high test_auroc test_auroc_low test_auroc_high "
        "temperature val_ece val_ece_scaled test_ece test_ece_scaled "
        "refit_C refit_test_loss refit_test_accuracy refit_weight_norm_squared "
        "refit_objective refit_gap refit_gradient_norm refit_converged refit_iterations refit_passes"
    )


def test_what_is_read_is_what_was_written(written):
    rng = random.Random(0)
    rows = [
        {"task": "softmax", "data.train_size": 100 + i}
        | {name: rng.lognormvariate(0, 20) for name in COLUMNS}
        | {"scaling": "x/255", "steps": 312}
        for i in range(20)
    ]
    found = written(rows)
    assert found == rows
    assert [*map(type, found[0].values())] == [*map(type, rows[0].values())], "whole numbers stay whole"


def test_what_is_not_measured_is_an_empty_cell_and_none(written):
    (found,) = written([{"task": "logistic", "l2": 0, "val_loss": 0.25, "test_loss": None}])
    assert list(found) == ["task", *COLUMNS]
    assert {name: value for name, value in found.items() if value is not None} == {
        "task": "logistic",
        "l2": 0.0,
        "val_loss": 0.25,
    }


def test_the_file_is_plain():
    header, line, end = as_csv([row(0.02, 1e-5, classes="3 2", seconds=1.5)]).decode().split("\n")
    assert header == ",".join(["task", *COLUMNS])
    after = "," * (len(COLUMNS) - COLUMNS.index("seconds") - 1)
    assert line == f"softmax,3 2,,0.02,,,,240,210,0.5,1e-05,0.5,0.5,0.5,0.5,4.0,,,,,,,1.5{after}"
    assert end == ""


def test_text_that_csv_must_quote_comes_back(written):
    told = 'x / 255, then "centred"\r\nby column – über'
    (found,) = written([row(0, 1, scaling=told)])
    assert found["scaling"] == told


def test_no_rows_are_a_header(written):
    assert as_csv([]) == (",".join(COLUMNS) + "\n").encode()
    assert written([]) == []


def test_the_settings_of_any_row_are_columns(written):
    found = written([{"optimizer.momentum": 0.9}, {"optimizer.betas": "[0.9, 0.999]", "lr": 1}])
    assert list(found[0]) == ["optimizer.momentum", "optimizer.betas", "lr", *COLUMNS]
    assert [row["optimizer.momentum"] for row in found] == [0.9, None]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), ([3, 2], "[3, 2]"), ("adam", "adam"), (312, 312), (1e-5, 1e-5), ([0.0], "[0.0]")],
)
def test_a_setting_is_shown_as_the_user_types_it(value, text, written):
    assert shown(value) == text
    (found,) = written([{"setting": shown(value)}])
    assert found["setting"] == text


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "results.csv")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("0", 0),
        ("0.0", 0.0),
        ("312", 312),
        ("-1", -1),
        ("-1.5e-3", -0.0015),
        ("1e5", 1e5),
        ("inf", math.inf),
        ("softmax", "softmax"),
        ("3 2", "3 2"),
    ],
)
def test_numbers(text, value):
    assert number(text) == value
    assert type(number(text)) is type(value)


# --- what is made of the rows ----------------------------------------------------------------------------------------


def test_the_row_that_is_marked_is_selected_whatever_it_measures():
    rows = [row(0, 0.2, selected="false"), row(0.02, 0.3, selected="true"), row(2, 0.4, selected="false")]
    assert selected(rows) is rows[1]


def test_the_table_has_the_metric_by_which_was_chosen_and_says_how():
    rows = [row(0, 0.2, selected="false", val_f1_macro=0.25), row(2, 0.3, selected="true", val_f1_macro=0.75)]
    heading, first, second, told = table(rows, "f1_macro", "by its validation f1 macro").splitlines()
    assert "val f1 macro" in heading
    assert "0.2500" in first
    assert second.endswith("*")
    assert told == "* selected by its validation f1 macro"
    assert table(rows, "accuracy").count("val accuracy") == 1


@pytest.mark.parametrize("tested", [False, True])
def test_the_table_tells_of_a_refit(tested):
    found = {"refit_objective": 0.5, "refit_gap": 2e-7}
    found |= {"refit_test_loss": 0.25, "refit_test_accuracy": 0.9} if tested else {}
    told = table([row(0.1, 0.2, selected="true", **found)]).splitlines()[-1]
    figures = ": test loss 0.2500, accuracy 0.9000" if tested else ""
    assert told == f"refitted on train + val at l2=0.1{figures}, gap 2.0e-07"


def test_the_table_has_a_line_per_row_and_ends_with_the_norm():
    untested = {"test_loss": None, "test_accuracy": None}
    rows = [row(0, 0.25, weight_norm_squared=6.25, selected="true"), row(0.002, 12.34567, steps=7, gap=3.21e-7)]
    assert table([one | untested for one in rows]).splitlines() == [
        "   l2  steps  best at  train loss  val loss  train accuracy  val accuracy     ‖w‖      gap",
        "    0    240      210      0.5000    0.2500          0.5000        0.5000  2.5000           *",
        "0.002      7      210      0.5000   12.3457          0.5000        0.5000  2.0000  3.2e-07",
        "* selected by its validation loss",
    ]


def test_the_table_leaves_out_a_set_that_there_is_not():
    rows = [row(0, 0.0, test_loss=None, test_accuracy=None)]
    heading, line = table(rows).splitlines()
    assert "test" not in heading
    assert line.split() == ["0", "240", "210", "0.5000", "0.0000", "0.5000", "0.5000", "2.0000"]


# --- the same run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"lr": 0.1}, {"lr": 0.2}, "lr=0.2: the run was started with lr=0.1"),
        ({"optimizer.momentum": 0.9}, {"lr": 0.1}, "optimizer.momentum=(absent): the run was started with"),
        ({}, {"data.split": "course"}, "data.split=course: the run was started with data.split=(absent)"),
        ({"patience": None}, {"patience": 0}, "patience=0: the run was started with patience=None"),
    ],
)
def test_the_first_difference_is_told(before, now, told):
    with pytest.raises(InputError, match=f"^{re.escape(told)}"):
        check_same(before, now)


def test_the_same_settings_in_another_order_are_the_same():
    check_same({"lr": 1, "l2": [0.0, 2]}, {"l2": [0, 2.0], "lr": 1.0})
