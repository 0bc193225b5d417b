"""A probe as users fit it: WordNet's glosses, their MiniLM embeddings, and scikit-learn at the C that was chosen.

``python -m benchmarks.wordnet_probe`` holds out a stratified tenth as test set, lets ``LinearProbe`` choose its l2 by
cross-validation on the rest, and fits scikit-learn's ``LogisticRegression`` at the same C: as it comes, and with as
many iterations as its tolerance asks for. All on one core, so that either side has one thread.
"""

import os
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import probe_data, probe_peers
from benchmarks.harness import ROOT, Table, machine, write

TEST, FOLDS, SEED = 0.1, 5, 0
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


def compared(name: str) -> Table:
    """Returns a row for the probe and its choice, the probe at that l2 alone, and scikit-learn's two."""
    from sklearn.linear_model import LogisticRegression

    from handgrad import LinearProbe

    data = split(name)
    table = Table("fits", f"A probe of {name}", COLUMNS, [])
    probe = LinearProbe(l2="auto", cv=FOLDS)
    fits = {f'LinearProbe(l2="auto", cv={FOLDS})': timed(probe, data)}
    models = {
        f"LinearProbe(l2={probe.l2_:g})": LinearProbe(l2=probe.l2_),
        "LogisticRegression(C)": LogisticRegression(C=probe.C_),
        f"LogisticRegression(C, max_iter={ENOUGH})": LogisticRegression(C=probe.C_, max_iter=ENOUGH),
    }
    fits |= {title: timed(model, data) for title, model in models.items()}
    least = objective(probe, data, probe.l2_) * (1 - probe.gap_)
    table.rows += [
        [title, *row(model, data, probe, least), *took]
        for (title, took), model in zip(fits.items(), (probe, *models.values()), strict=True)
    ]
    rows, columns = data.x.shape
    shape = f"{rows:,} x {columns} {data.x.dtype}, {len(probe.classes_)} classes; {len(data.y_test):,} test samples"
    table.notes += [
        f"{shape}. l2 = {probe.l2_:g} of {len(probe.path_)} values, chosen by the loss of {FOLDS} folds.",
        f"Largest gap of the path: {max(entry.gap_ for entry in probe.path_):.1e}. One core, one fit each.",
        "J above minimum: at most, relative; the minimum is known by the probe's certificate.",
    ]
    return table


def row(model: Any, data: Split, probe: Any, least: float) -> list[object]:
    """Returns a fitted model's cells of ``COLUMNS``, up to its seconds; ``least``: the minimum is not below."""
    from sklearn.metrics import log_loss

    accuracy, loss = model.score(data.x_test, data.y_test), log_loss(data.y_test, model.predict_proba(data.x_test))
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
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    facts = machine("benchmarks.wordnet_probe")
    print(write("wordnet_probe", [compared("wordnet"), facts], ROOT / "outputs" / "bench"))


if __name__ == "__main__":
    main()
