"""The notebook runs from top to bottom, and what it shows is what its cells give."""

import contextlib
import csv
import io
import json
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "probe.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def stored() -> str:
    """Returns what the notebook shows as printed."""
    return "".join(line for cell in CODE for output in cell["outputs"] for line in output.get("text", []))


def accuracies(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"accuracy ([\d.]+)%", text)]


def executed(folder: Path) -> tuple[dict, str]:
    """Runs all cells in one namespace; returns it, and what they printed."""
    space, printed = {"__name__": "__main__"}, io.StringIO()
    matplotlib.use("Agg")
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        for number, cell in enumerate(CODE, 1):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), space)
    return space, printed.getvalue()


@pytest.mark.slow
@pytest.mark.no_cover
def test_its_cells_give_what_it_shows(tmp_path):
    space, printed = executed(tmp_path)
    plt.close("all")
    assert len(accuracies(stored())) == 5
    assert accuracies(printed) == pytest.approx(accuracies(stored()), abs=0.23)  # one of 450 samples
    assert space["accuracy"] > 0.975
    chosen = re.compile(r"l2 = (\S+),")
    assert chosen.search(printed)[1] == chosen.search(stored())[1] == f"{space['probe'].l2_:.3g}"
    assert max(entry.gap_ for entry in space["probe"].path_) <= 1e-6
    check_comparison(space["rows"])
    check_predictions(tmp_path / "predictions.csv", space)


def check_comparison(rows: dict) -> None:
    """All come to one optimum; by default scikit-learn stops before, as the notebook says."""
    (_, ours, moved), (_, default, far), (_, close, near) = rows.values()
    assert abs(ours) < 1e-6
    assert abs(close) < 1e-6
    assert 0.01 < default < 0.1
    assert moved < 3e-3
    assert near < 1e-3
    assert far > 0.03


def check_predictions(file: Path, space: dict) -> None:
    """The file's predictions are right as often as the accuracy says, and its probabilities are that of the classes."""
    with open(file, newline="") as opened:
        header, *rows = csv.reader(opened)
    assert header == ["prediction", *(f"p_{digit}" for digit in range(10))]
    values = np.array(rows, dtype=float)
    assert (values[:, 0] == space["y_test"]).mean() == space["accuracy"]
    assert (values[:, 1:].argmax(1) == values[:, 0]).all()
    np.testing.assert_allclose(values[:, 1:].sum(1), 1, atol=1e-8)


def test_it_is_short_executed_and_clean():
    assert len(CODE) <= 10
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert [output for cell in CODE for output in cell["outputs"] if output["output_type"] == "error"] == []
    assert sum("image/png" in output.get("data", {}) for cell in CODE for output in cell["outputs"]) == 1
    assert NOTEBOOK.stat().st_size < 100_000
    text = "".join(line for cell in CELLS for line in cell["source"]) + stored()
    assert not re.search(r"(?:^|[\s\"'=(])/\w", text)  # no path of one machine
