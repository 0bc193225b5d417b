"""``results.csv`` of a run: a row per l2 value."""

import csv
from pathlib import Path
from typing import Any


def read_results(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a ``results.csv``: numbers as float, what is not measured as None."""
    with open(path, newline="") as file:
        return [{key: number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def number(text: str) -> float | str | None:
    """Returns ``text`` as a float where it is one, None where it is empty."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text
