"""The probe's benchmark judges, keeps what it searched for, and compares the same l2 values; no time is asserted."""

import importlib
import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import bench_probe, harness, probe_data, probe_ours, probe_peers, probe_train
from benchmarks.bench_probe import Figure, Tables, Target
from benchmarks.harness import Options, Sample


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder in the place of ``outputs/bench_data``, with a set ``blobs``: 60 samples in three classes."""
    monkeypatch.setattr(probe_data, "FOLDER", tmp_path)
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    monkeypatch.setitem(probe_data.SETS, "blobs", lambda: (rng.normal(size=(60, 4)) + 0.5 * y[:, None], y))
    return tmp_path


FIGURE = Figure("blobs", "blobs", [1.0, 0.1, 0.01], "newton-cholesky", Target(2, 4))


def ours(cpu: float) -> dict:
    gaps = {"gap": [1e-7, 9e-7, 1e-8], "passes": [2.0, 3.0, 4.0], "counts": {"float32": 4, "float64": 5}}
    return {"cpu": [cpu] * 3, "wall": [2 * cpu] * 3, **gaps}


def theirs(solved: int) -> dict:
    values = {"l2s": FIGURE.l2s[:solved], "iterations": [5] * solved, "reached": [True] * solved}
    return {"cpu": [6.0] * solved, "wall": [6.0] * solved, "solver": "s", "note": "", **values}


@pytest.mark.parametrize(
    ("target", "cells"),
    [
        (Target(2, 4), [">= 2", True, ">= 4", False]),
        (Target(4, 2.5, at_most=True), ["<= 4", True, "<= 2.5", False]),
        (Target(None), ["", "", "", ""]),
    ],
)
def test_targets_are_judged(target, cells):
    assert target.cells(3.0) == cells
    assert True not in target.cells(3.0, valid=False)
    assert True not in target.cells(None)
    assert False not in target.cells(3.0, whole=False)  # what is known to be at least 3 may be 4


@pytest.mark.parametrize(("solved", "l2s", "notes"), [(3, "3", 0), (2, "first 2 of 3", 1), (0, "first 0 of 3", 1)])
def test_the_same_values_are_compared(monkeypatch, solved, l2s, notes):
    monkeypatch.setattr(probe_ours, "reference", lambda name, l2s: {"objective": [1.0] * 3, "gap": [1e-9] * 3})
    monkeypatch.setattr(probe_ours, "solve", lambda name, l2s, threads: ours(cpu=2.0))
    monkeypatch.setattr(bench_probe, "peer", lambda figure, best: theirs(solved))
    tables = Tables()
    bench_probe.compare(FIGURE, Options(quick=False, rounds=2, warmup=0), tables)
    (row,) = tables.figures.rows
    assert row[1] == l2s
    assert row[6:] == ([3.0, 3.0, 3.0, 1.5, 1.5, 1.5] if solved else ["-", *[""] * 5])
    assert row[3] == {3: True, 2: True, 0: "open"}[solved]
    assert row[5] == {3: False, 2: "open", 0: "open"}[solved]
    assert len(tables.figures.notes) == notes
    if solved == 2:
        assert "at least 2," in tables.figures.notes[0]
    assert tables.paths.rows[0][1:7] == [6.0, 12.0, "9", "5", 9e-7, "3 of 3"]


def test_with_several_threads_the_clock_judges(monkeypatch):
    """Here it says 1.5 times faster, and the processor 3."""
    monkeypatch.setattr(probe_ours, "reference", lambda name, l2s: {"objective": [1.0] * 3, "gap": [1e-9] * 3})
    monkeypatch.setattr(probe_ours, "solve", lambda name, l2s, threads: ours(cpu=2.0))
    monkeypatch.setattr(bench_probe, "peer", lambda figure, best: theirs(3))
    verdicts = []
    for threads in (1, 2):
        tables = Tables()
        figure = replace(FIGURE, target=Target(2), threads=threads)
        bench_probe.compare(figure, Options(quick=False, rounds=1, warmup=0), tables)
        verdicts.append(tables.figures.rows[0][3])
    assert verdicts == [True, False]


def test_ratios_are_taken_round_by_round():
    rounds = [(ours(1.0), theirs(3)), (ours(3.0), theirs(3))]
    assert bench_probe.times_faster(rounds, 3) == [Sample((6.0, 2.0)), Sample((3.0, 1.0))]


def test_what_was_searched_for_is_kept(monkeypatch, folder):
    asked = []

    def path_seconds(*arguments):
        asked.append(arguments[-2])
        return theirs(3)

    monkeypatch.setattr(probe_peers, "path_seconds", path_seconds)
    for _ in range(2):
        bench_probe.peer(FIGURE, [1.0] * 3)
    assert asked == [None, [5, 5, 5]]


def test_a_row_that_can_not_be_measured_says_why(monkeypatch):
    def fails():
        raise RuntimeError("no network")

    monkeypatch.setattr(bench_probe, "steps", lambda options, tables: [("wordnet", fails)])
    figures, paths = bench_probe.run(Options(quick=False, rounds=1, warmup=0))
    assert "wordnet: skipped: no network" in figures.notes
    assert paths.rows == []


@pytest.mark.slow
def test_the_optimum_is_solved_for_once_and_kept(folder, monkeypatch):
    first = probe_ours.reference("blobs", FIGURE.l2s)
    assert max(first["gap"]) <= 1e-9
    monkeypatch.setattr(probe_ours, "solve", None)
    assert probe_ours.reference("blobs", FIGURE.l2s) == first


def test_an_answer_has_the_numbers_of_each_value(folder):
    x, y = probe_data.files("blobs")
    threads = torch.get_num_threads()
    try:
        asked = {"x": str(x), "y": str(y), "l2s": FIGURE.l2s, "tolerance": 1e-6, "products": True, "save": None}
        asked["threads"] = 1
        found = json.loads(json.dumps(probe_ours.answer(asked)))
    finally:
        torch.set_num_threads(threads)
    assert max(found["gap"]) <= 1e-6
    assert 1 <= sum(found["counts"].values()) <= sum(found["passes"])  # Newton's own evaluations are passes too
    assert set(found["products"]) == {"cpu", "wall"}
    assert len(found["cpu"]) == len(found["wall"]) == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", ["estimator_ours", "estimator_peers", "growth_ours", "probe_ours", "probe_peers"])
def test_a_process_reads_a_request_and_prints_what_it_answers(module, monkeypatch, capsys):
    """What a process of its own does; two of them are started for real, here and in test_probe.py."""
    module = importlib.import_module(f"benchmarks.{module}")
    monkeypatch.setattr(module, "answer", lambda request: request["x"])
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"x": [1.5], "threads": 1}'))
    module.main()
    assert json.loads(capsys.readouterr().out) == [1.5]


def test_where_there_are_no_processes_one_answers_all_with_one_thread_and_leaves_the_threads(monkeypatch, folder):
    monkeypatch.setattr(harness, "OWN_PROCESSES", False)
    monkeypatch.setattr(harness.subprocess, "run", None)
    answer = probe_ours.answer
    monkeypatch.setattr(probe_ours, "answer", lambda request: answer(request) | {"threads": torch.get_num_threads()})
    torch.set_num_threads(2)
    try:
        found = probe_ours.solve("blobs", FIGURE.l2s)
        assert (found["threads"], torch.get_num_threads()) == (1, 2)
    finally:
        torch.set_num_threads(1)
    assert max(found["gap"]) <= 1e-6


def test_a_large_set_is_written_in_chunks(folder):
    x, y = (np.load(file, mmap_mode="r") for file in probe_data.large(100, 8, rows=30))
    assert (x.shape, x.dtype, y.shape) == ((100, 8), np.float16, (100,))
    assert set(y) <= set(range(10))
    assert x.min() == 0
    assert x[90:].max() > 0
    assert not [file for file in folder.iterdir() if file.suffix != ".npy"]


def test_no_room_for_a_large_set(folder):
    with pytest.raises(RuntimeError, match="GB on the disk are needed"):
        probe_data.large(10**9, 10**6)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_process_is_watched():
    code = "import time; kept = bytearray(50_000_000); time.sleep(0.2)"
    run = probe_train.watched([sys.executable, "-c", code], 60)
    assert run.failure == ""
    assert 50e6 < run.memory < 150e6
    assert run.wall > 0.2
    late = probe_train.watched([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    assert late.failure == "did not end in 0.2 s"
    failed = probe_train.watched([sys.executable, "-c", "raise SystemExit('no')"], 60)
    assert failed.failure == "no"
