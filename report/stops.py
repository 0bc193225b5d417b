"""Where early stopping stops logistic regression (task 2e), by the order of the data: ``python -m report.stops``.

Writes ``stops.csv`` beside this file. For each split: the order of the data as it is, 40 runs whose order is drawn anew
in every epoch, and 40 that keep one drawn order. A loop of its own in NumPy, float32, that uses none of this project's
training; settings and rule are those of ``experiment=course_logistic_early_stopping``. It takes about two minutes.
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handgrad.files import replace_file

FILE = Path(__file__).with_name("stops.csv")
SPLITS, SEEDS = ("report", "course"), range(40)
LR, BATCH, PATIENCE, EPOCHS = 0.05, 128, 10, 500


class Stop(NamedTuple):
    """A run: ``order`` is ``given``, ``reshuffled`` or ``kept``; ``steps`` counts its updates."""

    split: str
    order: str
    seed: int
    steps: int
    best_step: int
    best_val_loss: float


class Sets(NamedTuple):
    """``input (N, D + 1)``, whose last feature is 1, and ``target (N,)`` of 0 and 1."""

    train: tuple[np.ndarray, np.ndarray]
    val: tuple[np.ndarray, np.ndarray]


def load(split: str, root: Path = Path("data")) -> Sets:
    """Returns the digits 2 and 3 of a split."""
    from handgrad.data.mnist import MNISTDataModule

    data = MNISTDataModule(
        root=root, split=split, digits=[3, 2], shuffle=False, batch_size=BATCH, seed=0, epochs=EPOCHS, train_size=None
    )
    data.setup()
    pairs = ((input.numpy(), target.numpy()) for input, target in (data.train, data.val))
    return Sets(*((np.hstack([x, np.ones((len(x), 1), x.dtype)]), y.astype(x.dtype)) for x, y in pairs))


def train(sets: Sets, order: Callable[[], np.ndarray]) -> tuple[int, int, float]:
    """Trains from zero until the validation loss has had no new minimum for ``PATIENCE`` checks.

    Args:
        order: called at the start of each epoch, returns the order of its samples.

    Returns:
        updates at the stop, updates at the smallest validation loss, that loss.
    """
    (x, y), (x_val, y_val) = sets
    w, interval, step = np.zeros(x.shape[1], x.dtype), len(x) // BATCH // 5, 0
    best_step, best, worse = 0, np.inf, 0
    for _ in range(EPOCHS):
        rows = order()
        for first in range(0, len(x) - BATCH + 1, BATCH):
            batch = rows[first : first + BATCH]
            w -= x.dtype.type(LR / BATCH) * ((1 / (1 + np.exp(-(x[batch] @ w))) - y[batch]) @ x[batch])
            step += 1
            if step % interval:
                continue
            loss = float(np.logaddexp(0, (1 - 2 * y_val) * (x_val @ w)).mean())
            best_step, best, worse = (step, loss, 0) if loss < best else (best_step, best, worse + 1)
            if worse == PATIENCE:
                return step, best_step, best
    return step, best_step, best


def stops(split: str, sets: Sets, seeds: range = SEEDS) -> list[Stop]:
    """Returns the run on the data's own order, and for each seed one of either kind of drawn order."""
    samples = len(sets.train[0])
    found = [Stop(split, "given", 0, *train(sets, lambda: np.arange(samples)))]
    for seed in seeds:
        rng, kept = np.random.default_rng(seed), np.random.default_rng(1000 + seed).permutation(samples)
        found.append(Stop(split, "reshuffled", seed, *train(sets, lambda rng=rng: rng.permutation(samples))))
        found.append(Stop(split, "kept", seed, *train(sets, lambda kept=kept: kept)))
    return found


def read_stops(split: str) -> dict[str, list[int]]:
    """Returns the updates at the stop on ``split``, by order."""
    found: dict[str, list[int]] = {}
    with open(FILE, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                found.setdefault(row["order"], []).append(int(row["steps"]))
    return found


def main() -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Stop._fields)
    writer.writerows(stop for split in SPLITS for stop in stops(split, load(split)))
    replace_file(FILE, text.getvalue().encode())


if __name__ == "__main__":
    main()
