"""The benchmarks run, write every row, and refuse a contestant that computes something else; no time is asserted."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import bench_training, peers
from benchmarks.harness import ROOT, Options, Sample, Table, alternate, target_row

STEMS = {path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The tables of ``python -m benchmarks --quick``."""
    out = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for file in out.glob("*.md"):
        assert file.read_text().split("\n\n", 1)[1] in done.stdout
    return out


def read(folder: Path, table: str) -> list[dict[str, str]]:
    with open(folder / f"{table}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_stem_writes_its_page_and_the_machine(folder):
    assert {path.stem for path in folder.glob("*.md")} == STEMS
    for stem in STEMS:
        facts = dict(row.values() for row in read(folder, f"{stem}_machine"))
        assert facts["torch"].startswith("2.")
        assert facts["processor"]
        assert int(facts["cores"]) >= 1


def test_training_has_every_contestant_with_both_thread_counts(folder):
    rows = read(folder, "training_times")
    both = [*bench_training.PEERS, bench_training.LIGHTNING]
    expected = {(bench_training.OURS, "auto")} | {(name, count) for name in both for count in ("default", "1")}
    assert {(row["contestant"], row["threads"]) for row in rows} == expected
    for row in rows:
        assert 0 < float(row["min"]) <= float(row["median ms"]) <= float(row["max"])


def test_training_compares_with_the_targets(folder):
    rows = {row["ours over"]: row["target"] for row in read(folder, "training_targets")}
    assert rows == {
        "NumPy loop of the course": "<= 0.65",
        "PyTorch loop": "<= 0.9",
        "PyTorch loop, F.linear_cross_entropy": "report",
        "closed-form update by hand": "<= 1.4",
        "matrix products only": "report",
        "Lightning, the usual way": "<= 0.04",
    }


def test_training_tells_where_the_time_goes(folder):
    milliseconds = {row["part"]: float(row["median ms"]) for row in read(folder, "training_breakdown")}
    assert {"updates", "evaluation", "Curves", "Checkpointing", "Lightning and the rest"} <= set(milliseconds)
    assert all(value > 0 for value in milliseconds.values())
    inside = {row["part"]: float(row["ms"]) for row in read(folder, "training_inside")}
    assert inside["updates > optimizer.step"] > 0
    assert inside["evaluation"] > 0


def test_scikit_learn_reaches_the_loss_or_is_said_to_be_absent(folder):
    ours, *others = read(folder, "training_sklearn")
    for row in others:
        absent = row["median s"] == "not installed"
        assert absent or float(row["validation loss"]) <= float(ours["validation loss"])


def test_path_has_every_contestant(folder):
    times = [row["contestant"] for row in read(folder, "path_times")]
    assert times == [
        *(
            f"path of {paths}, {what}"
            for paths in (1, 5, 10)
            for what in ("training alone", "all", "matrix products only")
        ),
        *(f"path of {paths}, {what}" for paths in (10, 20) for what in ("training alone", "all")),
        "path of 5, fit",
        "path of 5, whole call",
        "five runs, fit",
        "five runs, whole call",
    ]
    targets = {row["ratio"]: row["target"] for row in read(folder, "path_targets")}
    assert targets["path of 5 over one, training alone"] == "<= 1.3"
    assert targets["path of 5 over one, all"] == "<= 2"
    assert targets["path of 5 over five runs, fit"] == "<= 0.45"


def test_functions_have_every_contestant(folder):
    rows = {(row["forward and backward"], row["L"], row["threads"]) for row in read(folder, "functions_passes")}
    for name in ("linear_cross_entropy (ours)", "F.linear_cross_entropy", "l2_penalty (ours)"):
        assert {(name, paths, count) for paths in ["1", "5", "100"] for count in ("default", "1")} <= rows


def test_memory_and_start_up(folder):
    peak = {row[""]: float(row["MiB"]) for row in read(folder, "memory_peak")}
    assert peak["a run of split `full`"] > peak["importing torch and Lightning"] > 0
    assert {row["command"] for row in read(folder, "startup_commands")} == {"python itself", "train.py --help"}


def problem() -> peers.Problem:
    """A small one: 90 training samples in 9 mini-batches, 50 validation samples, 3 classes."""
    generator = torch.Generator().manual_seed(0)
    input, target = torch.randn(140, 4, generator=generator), torch.randint(3, (140,), generator=generator)
    batches = list(torch.randperm(90, generator=generator).split(10))
    parts = (input[:90], target[:90]), (input[90:], target[90:])
    return peers.Problem(*parts, batches, check_interval=2, last_check=9, num_classes=3, lr=0.1, epochs=1)


@pytest.mark.parametrize("peer", [peers.torch_loop, peers.torch_fused_loop, peers.closed_form_loop])
def test_peers_end_where_numpy_does(peer):
    assert peer(problem()) == pytest.approx(peers.numpy_loop(problem()), abs=1e-6)


@pytest.mark.parametrize("change", [{"lr": 0.1005}, {"last_check": 8}])
def test_a_contestant_that_does_something_else_is_refused(change):
    wrong = replace(problem(), **change)
    with pytest.raises(RuntimeError, match="wrong ends at"):
        bench_training.check_end("wrong", peers.numpy_loop(wrong), peers.numpy_loop(problem()))


def test_checks_are_counted():
    assert [update for update in range(1, 10) if problem().is_check(update)] == [2, 4, 6, 8, 9]
    assert problem().checks == 5


def test_alternate_takes_turns_and_leaves_the_warm_up_out():
    calls = []

    def contestant(name):
        return lambda: calls.append(name) or float(len(calls))

    samples = alternate({"a": contestant("a"), "b": contestant("b")}, Options(quick=True, rounds=2, warmup=1))
    assert calls == ["a", "b"] * 3
    assert samples == {"a": Sample((3.0, 5.0)), "b": Sample((4.0, 6.0))}


def test_ratios_are_taken_round_by_round():
    ratio = Sample((1.0, 4.0, 9.0)).over(Sample((1.0, 2.0, 3.0)))
    assert ratio.seconds == (1.0, 2.0, 3.0)
    assert target_row("x", 2.0, ratio) == ["x", "<= 2", 2.0, 1.0, 3.0, True]
    assert target_row("x", 1.9, ratio)[-1] is False
    assert target_row("x", None, ratio)[-1] == ""


def test_a_table_in_markdown():
    table = Table("t", "Title", ["name", "x"], [["a", 0.123456], ["b", True], ["c", None]], ["note"])
    lines = table.markdown().splitlines()
    assert lines[:5] == ["## Title", "", "| name | x      |", "|------|--------|", "| a    | 0.1235 |"]
    assert lines[-1] == "- note"


def test_probe_has_a_figure_of_each_kind_and_both_sides_reach_the_gap(folder):
    figures = {row["figure"]: row for row in read(folder, "probe_figures")}
    assert len(figures) == 6
    assert all(float(row["processor"]) > 0 for row in figures.values())
    for row in read(folder, "probe_paths"):
        assert float(row["largest gap"]) <= 1e-6
        assert (row["converged"], row["reached"]) == ("3 of 3", "3 of 3")
        assert float(row["ours, processor s"]) > 0


def test_estimator_has_a_row_of_each_kind_and_agrees_with_scikit_learn(folder):
    figures = read(folder, "estimator_figures")
    assert [row["figure"].partition(":")[0] for row in figures] == ["a process", *["wine, 2 folds"] * 3]
    assert all(float(row["processor"]) > 0 for row in figures)
    (row,) = read(folder, "estimator_equality")
    assert float(row["coefficients differ by"]) < 1e-5
    assert (row["by accuracy"], row["by loss"]) == ("same", "same")
    ours, separate, oracle, plain = read(folder, "estimator_fits")
    assert float(ours["largest gap"]) <= float(separate["largest gap"]) + 1e-6
    assert oracle["within 1e-6"] == "6 of 6"
    assert ours["chosen l2"] == plain["chosen l2"]
