"""The row of a published probe says what was fitted, and its gap is that of the weights."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from benchmarks import probe_data, wordnet_probe


@pytest.fixture
def blobs(tmp_path, monkeypatch):
    """A set ``blobs`` in a folder of its own: 200 samples in three classes."""
    monkeypatch.setattr(probe_data, "FOLDER", tmp_path)
    y = np.arange(200) % 3
    x = np.random.default_rng(0).normal(size=(200, 4)) + np.eye(3, 4)[y]
    monkeypatch.setitem(probe_data.SETS, "blobs", lambda: (x.astype(np.float32), y))
    return "blobs"


def test_a_tenth_of_each_class_is_held_out(blobs):
    data = wordnet_probe.split(blobs)
    assert np.bincount(data.y_test).tolist() == [7, 7, 6]
    assert len(data.x) == len(data.y) == 180


def test_all_are_fitted_at_the_c_that_was_chosen(blobs):
    table = wordnet_probe.compared(blobs)
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert len({row["C"] for row in rows.values()}) == 1
    chosen, alone, default, long = rows.values()
    assert max(chosen["J above minimum"], alone["J above minimum"]) < 2e-6
    assert 0 < default["J above minimum"] == long["J above minimum"] < 1e-3  # its tolerance stopped it both times
    assert default["test loss"] == pytest.approx(chosen["test loss"], abs=1e-2)
    assert all(0.4 < row["test accuracy"] < 1 for row in rows.values())
    again = wordnet_probe.compared(blobs, float(list(rows)[1].removeprefix("LinearProbe(").rstrip(")")))
    assert [row[:6] for row in again.rows] == [row[:6] for row in table.rows[1:]]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_objective_is_that_which_scikit_learn_minimizes(blobs, classes):
    data = wordnet_probe.split(blobs)
    names = np.array(["a", "b", "c"])
    data = wordnet_probe.Split(data.x[data.y < classes], data.x_test, names[data.y[data.y < classes]], data.y_test)
    model = LogisticRegression(C=1.0)
    wordnet_probe.timed(model, data)
    l2 = 1 / len(data.y)
    expected = log_loss(data.y, model.predict_proba(data.x)) + l2 / 2 * (model.coef_**2).sum()
    assert wordnet_probe.objective(model, data, l2) == pytest.approx(expected, rel=1e-6)
