"""The estimator's benchmark compares the same folds and judges what it measures; no time is asserted."""

import numpy as np
import pytest

from benchmarks import bench_estimator, bench_probe, estimator_peers, probe_data, probe_ours, probe_train
from benchmarks.bench_estimator import Tables
from benchmarks.bench_probe import Figure, Target
from benchmarks.harness import Options
from benchmarks.probe_train import Run

FIGURE = Figure("wine", "wine", [1.0, 0.1], "newton-cholesky", Target(5, 10))
OPTIONS = Options(quick=False, rounds=3, warmup=1)


def test_folds_are_a_partition_and_their_sets_the_training_samples(monkeypatch, tmp_path):
    monkeypatch.setattr(probe_data, "FOLDER", tmp_path)
    x, y = probe_data.get("wine")
    folds = probe_data.folds(y, probe_data.FOLDS["wine"])
    held = np.concatenate([held for _, held in folds])
    assert sorted(held) == list(range(len(y)))
    for fold, (train, _) in enumerate(folds):
        part_x, part_y = probe_data.get(f"wine_fold_{fold}")
        np.testing.assert_array_equal(part_x, x[train])
        np.testing.assert_array_equal(part_y, y[train])


def test_penalties_are_those_of_a_folds_samples():
    folds = probe_data.folds(np.arange(100) % 4, 5)
    assert estimator_peers.penalties([0.5, 0.01], folds) == pytest.approx([1 / 40, 1 / 0.8])


def test_a_process_is_judged_by_the_processor_and_the_warm_round_is_left_out(monkeypatch):
    seconds = iter([9.0, 1.0, 6.0, 2.0, 4.0, 2.0, 7.0, 2.0])  # ours and scikit-learn's in turn; the first two warm
    monkeypatch.setattr(probe_train, "watched", lambda command, limit: Run(4.0, next(seconds), 0))
    tables = Tables()
    bench_estimator.start_up("start", ("a", "b"), Target(3, at_most=True), OPTIONS, tables)
    (row,) = tables.figures.rows
    assert row == ["start", "1", "<= 3", True, "", "", 3.0, 2.0, 3.5, 1.0, 1.0, 1.0]


def test_a_process_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(probe_train, "watched", lambda command, limit: Run(1.0, 1.0, 0, "no module"))
    step = ("start", lambda: bench_estimator.start_up("start", ("a", "b"), Target(3), OPTIONS, tables))
    tables = Tables()
    monkeypatch.setattr(bench_estimator, "steps", lambda options, _: [step])
    figures = next(bench_estimator.run(OPTIONS))
    assert "start: skipped: no module" in figures.notes


@pytest.mark.parametrize(("gap", "passes"), [(9e-7, True), (2e-6, False)])
def test_folds_are_compared_in_few_rounds_and_only_where_they_are_proven(monkeypatch, gap, passes):
    asked = []

    def ask(module, **request):
        asked.append(request.get("names", request.get("name")))
        return {"cpu": 4.0 if "names" in request else 3.0, "wall": 1.0, "gap": gap, "chosen": 0.1}

    monkeypatch.setattr(bench_estimator, "ask", ask)
    tables = Tables()
    bench_estimator.folds_over_separate(FIGURE, OPTIONS, tables)
    assert asked == ["wine", ["wine", "wine_fold_0", "wine_fold_1"]] * bench_estimator.FEW
    assert tables.figures.rows[0][2:7] == ["<= 1", passes, "", "", 0.75]
    assert [row[1] for row in tables.fits.rows] == [3.0, 4.0]


def test_the_peers_seconds_are_those_of_all_folds(monkeypatch):
    found = {"complete": True, "reached": [True, True], "gaps": [1e-7, 9e-7], "cpu": [2.0, 3.0], "wall": [4.0, 4.0]}
    monkeypatch.setattr(bench_probe, "peer", lambda figure, best: found | {"name": figure.name})
    monkeypatch.setattr(probe_ours, "reference", lambda name, l2s: {"objective": [1.0, 1.0]})
    ours = {"cpu": 1.0, "wall": 1.0, "gap": 1e-7, "chosen": 0.1}
    plain = {"cpu": 6.0, "wall": 6.0, "gap": 0.1, "within": 1, "fits": 4, "chosen": 0.1}
    monkeypatch.setattr(bench_estimator, "ask", lambda module, **_: ours if module == "estimator_ours" else plain)
    tables = Tables()
    bench_estimator.folds_over_peer(FIGURE, OPTIONS, tables)
    same_gap, as_it_comes = tables.figures.rows
    assert same_gap[2:7] == [">= 5", True, ">= 10", True, 10.0]
    assert as_it_comes[2:7] == ["", "", "", "", 6.0]
    assert [row[4] for row in tables.fits.rows] == ["4 of 4", "1 of 4"]
    found["complete"] = False
    with pytest.raises(RuntimeError, match="scikit-learn was out of time on wine_fold_0"):
        bench_estimator.folds_over_peer(FIGURE, OPTIONS, tables)
