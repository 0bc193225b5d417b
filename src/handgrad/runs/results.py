"""``results.csv`` of a run: a row per l2 value."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from handgrad.errors import InputError
from handgrad.tables import aligned

MEASURES = [f"{split}_{name}" for name in ("loss", "accuracy") for split in ("train", "val", "test")]
MEASURES += ["weight_norm_squared"]
RANKINGS = ["val_map", "test_map"]  # of several labels: the mean average precision, of the best weights
SCORES = ["val_loss_se", "val_accuracy_se"]
SCORES += [f"val_{name}{end}" for name in ("mean_per_class", "f1_macro", "auroc") for end in ("", "_se")]
OF_TEST = ("loss", "accuracy", "mean_per_class", "f1_macro", "auroc")
OF_FOLDS = [f"val_{name}_sd" for name in OF_TEST]
BOOTSTRAP = [f"test_{name}{end}" for name in ("loss", "accuracy") for end in ("_low", "_high")]
BOOTSTRAP += [f"test_{name}{end}" for name in ("mean_per_class", "f1_macro", "auroc") for end in ("", "_low", "_high")]
CALIBRATION = ["temperature", "val_ece", "val_ece_scaled", "test_ece", "test_ece_scaled"]
PROOF = ["objective", "gap", "gradient_norm", "converged", "iterations", "passes"]
REFITTED = ["refit_test_loss", "refit_test_accuracy", "refit_weight_norm_squared"]
COLUMNS = ["classes", "scaling", "l2", "C", "selected", "epoch", "steps", "best_step", *MEASURES, *PROOF, "seconds"]
COLUMNS += [*(f"last_{name}" for name in (*MEASURES, "gap")), *RANKINGS]
COLUMNS += [*SCORES, *OF_FOLDS, *BOOTSTRAP, *CALIBRATION, "refit_C", *REFITTED, *(f"refit_{name}" for name in PROOF)]

Row = dict[str, Any]


def shown(value: Any) -> str | int | float:
    """Returns the value of a setting as tables and TensorBoard show it: what is neither number nor text as JSON."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns ``rows`` as the content of a ``results.csv``: their settings, then ``COLUMNS``; empty: not measured."""
    settings = dict.fromkeys(key for row in rows for key in row if key not in COLUMNS)
    return csv_file([*settings, *COLUMNS], rows)


def csv_file(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Returns the content of a CSV file with these columns; what a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_results(path: Path) -> list[Row]:
    """Returns the rows of a ``results.csv``: numbers as int or float, what is not measured as None.

    Raises:
        OSError, ValueError, csv.Error: it cannot be read.
    """
    text = path.read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    if any(None in row or None in row.values() for row in rows) or not text.endswith("\n"):
        raise ValueError(f"{path}: a row has more or fewer cells than there are columns")
    return [{key: number(value) for key, value in row.items()} for row in rows]


def number(text: str) -> int | float | str | None:
    """Returns ``text`` as a number where it is one, whole ones whole; None where it is empty."""
    if not text:
        return None
    try:
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    except ValueError:
        return text


def selected(rows: Sequence[Row]) -> Row:
    """Returns the row that is marked: ``handgrad.selection`` chooses it, and nobody else."""
    return next(row for row in rows if row["selected"] == "true")


def table(
    rows: Sequence[Row], metric: str = "loss", how: str = "by its validation loss", width: int | None = None
) -> str:
    """Returns ``rows`` as aligned text, for people: the best weights' figures; a star marks the selected row.

    Args:
        metric: by which it was selected; how: in words, as ``Selection.told`` has them.
        width: of the terminal, which the table is to fit.
    """
    columns = {"l2": "l2", "steps": "steps", "best_step": "best at"}
    names = [*MEASURES[:-1], *RANKINGS, *([f"val_{metric}"] if f"val_{metric}" not in MEASURES else [])]
    names = [each for name in names for each in (name, f"{name}_sd")]
    measured = [name for name in names if rows[0].get(name) is not None]
    columns |= {
        name: "± sd" if name.endswith("_sd") else name.replace("_", " ").replace("map", "mAP") for name in measured
    }
    cells = [[*columns.values(), "‖w‖", "gap", ""]]
    for row in rows:
        numbers = [f"{row[name]:.4f}" for name in measured]
        norm = f"{row['weight_norm_squared'] ** 0.5:.4f}"
        gap = "" if row.get("gap") is None else f"{row['gap']:.1e}"
        mark = "*" if row.get("selected") == "true" and len(rows) > 1 else ""
        cells.append([f"{row['l2']:g}", str(row["steps"]), str(row["best_step"]), *numbers, norm, gap, mark])
    lines = aligned(cells, width)
    return "\n".join(
        [*lines, *([f"* selected {how}"] if len(rows) > 1 else []), *told_of_refit(rows), *told_of_test(rows)]
    )


def told_of_refit(rows: Sequence[Row]) -> list[str]:
    """Returns what a refit gives, as a line, if there was one."""
    row = next((row for row in rows if row.get("refit_objective") is not None), None)
    if row is None:
        return []
    gap = "" if row["refit_gap"] is None else f", gap {row['refit_gap']:.1e}"
    tested = row.get("refit_test_accuracy") is not None
    test = f": test loss {row['refit_test_loss']:.4f}, accuracy {row['refit_test_accuracy']:.4f}" if tested else ""
    return [f"refitted on train + val at l2={row['l2']:g}{test}{gap}"]


def told_of_test(rows: Sequence[Row]) -> list[str]:
    """Returns what is known of the test set besides the table, a line each: other metrics, and confidence intervals."""
    row, lines = next((row for row in rows if row.get("selected") == "true"), {}), []
    for name in OF_TEST:
        value = row.get(f"refit_test_{name}") or row.get(f"test_{name}")
        low, high = (row.get(f"test_{name}_{end}") for end in ("low", "high"))
        if low is None and (value is None or f"test_{name}" in MEASURES):
            continue
        interval = "" if low is None else f", 95 % interval {low:.4f} to {high:.4f}"
        lines.append(f"test {name.replace('_', ' ')} at l2={row['l2']:g}: {value:.4f}{interval}")
    return lines


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], begun: str = "the run was started") -> None:
    """Raises an InputError that names the first setting which differs from what the run was started with."""
    for key in {**before, **now}:
        if key not in before or key not in now or before[key] != now[key]:
            found, started = (settings.get(key, "(absent)") for settings in (now, before))
            raise InputError(f"{key}={found}: {begun} with {key}={started}")
