"""A probe as users fit it: WordNet's glosses, their MiniLM embeddings, and scikit-learn at the C that was chosen.

``python -m benchmarks.wordnet_probe`` holds out a stratified tenth as test set, lets ``LinearProbe`` choose its l2 by
cross-validation on the rest, and fits scikit-learn's ``LogisticRegression`` at the same C: as it comes, and with as
many iterations as its tolerance asks for. Either side has one thread. With ``--l2 VALUE`` nothing is chosen, which is
most of the time: the fits at this l2 alone.
"""

import argparse
import os
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import probe_data, probe_peers
from benchmarks.harness import ONE, ROOT, Table, machine, threads, write
from handgrad.cli.streams import standard_streams

TEST, FOLDS, SEED = 0.1, 3, 0
ENOUGH = 100_000  # iterations: its tolerance stops scikit-learn before
COLUMNS = ["fit", "C", "test accuracy", "test loss", "J above minimum", "iterations", "processor s", "clock s"]


@dataclass(frozen=True)
class Split:
    """The samples ``x (N, D)``, ``y (N,)`` that train, and those that test."""

    x: np.ndarray
    x_test: np.ndarray
    y: np.ndarray
    y_test: np.ndarray


def split(name: str) -> Split:
    """Returns a set of ``probe_data``, a tenth of each class held out."""
    from sklearn.model_selection import train_test_split

    x, y = probe_data.get(name)
    return Split(*train_test_split(x, y, test_size=TEST, stratify=y, random_state=SEED))


def compared(name: str, l2: float | None = None) -> Table:
    """Returns a row for the probe and its choice (where ``l2`` is None), at that l2 alone, and scikit-learn's two."""
    from sklearn.linear_model import LogisticRegression

    from handgrad import LinearProbe

    data = split(name)
    table = Table("fits", f"A probe of {name}", COLUMNS, [])
    if l2 is None:
        probe = LinearProbe(l2="auto", cv=FOLDS)
        took = timed(probe, data)
        table.rows.append([f'LinearProbe(l2="auto", cv={FOLDS})', *row(probe, data, probe), *took])
        gap = max(entry.gap_ for entry in probe.path_)
        table.notes.append(f"{len(probe.path_)} values, chosen by the loss of {FOLDS} folds; largest gap {gap:.1e}.")
        l2 = probe.l2_
    alone = LinearProbe(l2)
    C = 1 / (l2 * len(data.y))
    models = {
        f"LinearProbe({l2:g})": alone,
        "LogisticRegression(C)": LogisticRegression(C=C),
        f"LogisticRegression(C, max_iter={ENOUGH})": LogisticRegression(C=C, max_iter=ENOUGH),
    }
    for title, model in models.items():
        took = timed(model, data)
        table.rows.append([title, *row(model, data, alone), *took])
    rows, columns = data.x.shape
    shape = f"{rows:,} x {columns} {data.x.dtype}, {len(alone.classes_)} classes; {len(data.y_test):,} test samples"
    table.notes += [
        f"{shape}. One thread, one fit each.",
        "J above minimum: at most, relative; the minimum is known by the probe's certificate.",
    ]
    return table


def row(model: Any, data: Split, probe: Any) -> list[object]:
    """Returns a fitted model's cells of ``COLUMNS``, up to its seconds; ``probe`` knows the minimum."""
    from sklearn.metrics import log_loss

    accuracy, loss = model.score(data.x_test, data.y_test), log_loss(data.y_test, model.predict_proba(data.x_test))
    least = objective(probe, data, probe.l2_) * (1 - probe.gap_)
    above = objective(model, data, probe.l2_) / least - 1
    return [float(probe.C_), float(accuracy), float(loss), float(above), int(np.max(model.n_iter_))]


def timed(model: Any, data: Split) -> tuple[float, float]:
    """Fits a model; returns the seconds of the processor and by the clock."""
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "lbfgs failed to converge")  # as its objective shows
        model.fit(data.x, data.y)
    took = time.process_time() - cpu, time.perf_counter() - wall
    print(f"  {model}: {took[0]:.1f} s", file=sys.stderr, flush=True)
    return took


def objective(model: Any, data: Split, l2: float) -> float:
    """Returns what both minimize, in float64: the mean loss of the training samples and the penalty."""
    return probe_peers.objective(data.x, np.searchsorted(model.classes_, data.y), model.coef_, model.intercept_, l2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wordnet_probe")
    parser.add_argument("--l2", type=float, help="fit at this l2 alone")
    l2 = parser.parse_args().l2
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the probe takes a thread for each core
    facts = machine("benchmarks.wordnet_probe")
    with threads(ONE):
        tables = [compared("wordnet", l2), facts]
    print(write("wordnet_probe", tables, ROOT / "outputs" / "bench"))


if __name__ == "__main__":
    with standard_streams():
        main()
