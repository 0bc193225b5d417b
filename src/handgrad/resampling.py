"""What a run finds on parts of its samples: folds of a cross-validation, few-shot draws, draws of the test set."""

import csv
import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handgrad.cross_validation import Fitted, PartialFits, outcomes
from handgrad.data.base import LinearDataModule
from handgrad.data.splits import few_shots, generator
from handgrad.files import replace_file
from handgrad.metrics import Outcome, Score, score
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.runs.folder import DRAWS, FOLDS
from handgrad.runs.results import Row, csv_file, read_results, shown
from handgrad.runs.signals import Interrupted, stopping
from handgrad.selection import Selection
from handgrad.tables import aligned

log = logging.getLogger(__name__)
LEVEL = 0.95  # of confidence intervals
Before = Callable[[], None]


def partial_fits(model: LinearClassifier, data: LinearDataModule, solver: Any) -> PartialFits:
    """Returns what solves the model's path on parts of the training set."""
    assert data.train is not None
    l2 = torch.tensor(model.hparams["l2"], dtype=torch.float64)
    objective = replace(model.objective(), l2=l2, run=model.pipeline.run)
    input, target = data.train[0].to("cpu"), data.train[1].cpu()
    return PartialFits(solver, objective, model.bias.shape[1], input, target, data.weights_of_part, data.normalize)


def cross_validated(
    model: LinearClassifier,
    data: LinearDataModule,
    solver: Any,
    metric: str,
    folder: Path | None = None,
    resumed: bool = False,
) -> list[Row]:
    """Returns what each fold's fit gives on the samples that it holds out: a row for each fold and l2 value.

    Args:
        metric: of ``handgrad.metrics``, beside the loss and the accuracy.
        folder: of the run; ``folds.csv`` is written after each fold. None: nothing is written.
        resumed: whether what stands there is of this run, and need not be done again.
    """
    assert data.fold is not None
    solved = model.weight.detach().double().cpu(), model.bias.detach().double().cpu()
    problem, l2 = partial_fits(model, data, solver).guided_by(*solved), model.hparams["l2"]
    rows = kept(folder, FOLDS, len(l2)) if resumed else []
    folds = range(int(data.fold.max()) + 1)
    parts = [(torch.where(data.fold != fold)[0], torch.where(data.fold == fold)[0]) for fold in folds]
    with obedient(folder, lambda: f"{len(rows) // len(l2)} of {len(folds)} folds") as before:
        for first, group in problem.fits(parts, keep=metric == "auroc", before=before, done=len(rows) // len(l2)):
            del rows[first * len(l2) :]
            for fold, fitted in enumerate(group, first):
                rows += fold_rows(fold, l2, metric, fitted)
                told = "Fold %d of %d: %d samples train, %d are held out"
                log.info(told, fold + 1, len(folds), *map(len, parts[fold]))
            write(folder, FOLDS, rows)
    return rows


def fold_rows(fold: int, l2: Sequence[float], metric: str, fitted: Fitted) -> list[Row]:
    """Returns what a fold's fit gives, a row for each l2 value."""
    report = {name: values.tolist() for name, values in fitted.report.items()}
    return [
        {"fold": fold, "l2": value}
        | {f"val_{name}": score(name, found).value for name in named(metric)}
        | {name: shown(values[entry]) for name, values in report.items()}
        for entry, (value, found) in enumerate(zip(l2, fitted.outcomes, strict=True))
    ]


def few_shot_draws(
    model: LinearClassifier,
    data: LinearDataModule,
    solver: Any,
    selection: Selection,
    folder: Path | None = None,
    resumed: bool = False,
) -> list[Row]:
    """Returns what few-shot fits give: a row for each draw, of the l2 value that the validation set chooses for it.

    Args:
        folder: of the run; ``few_shots.csv`` is written after each draw. None: nothing is written.
        resumed: whether what stands there is of this run, and need not be done again.
    """
    assert data.val is not None
    problem, l2 = partial_fits(model, data, solver), model.hparams["l2"]
    rows = kept(folder, DRAWS, 1) if resumed else []
    draws = [(shots, draw) for shots in data.shots for draw in range(data.draws)]
    with obedient(folder, lambda: f"{len(rows)} of {len(draws)} few-shot draws") as before:
        for shots, draw in draws[len(rows) :]:
            fitted = problem.fit(few_shots(problem.target, shots, data.seed, shots, draw), None, before=before)
            keep = selection.metric == "auroc"
            found = outcomes(fitted.weight, fitted.bias, *on_cpu(data.val), keep=keep, run=model.pipeline.run)
            entry = selection.choose(l2, [score(selection.metric, outcome) for outcome in found])
            row = {"shots": shots, "draw": draw, "l2": l2[entry]}
            row |= {f"val_{name}": score(name, found[entry]).value for name in named(selection.metric)}
            if data.test is not None:
                weights = fitted.weight[entry, None], fitted.bias[entry, None]
                (tested,) = outcomes(*weights, *on_cpu(data.test), keep=keep, run=model.pipeline.run)
                row |= {f"test_{name}": score(name, tested).value for name in named(selection.metric)}
            rows.append(row | {name: shown(values[entry].item()) for name, values in fitted.report.items()})
            write(folder, DRAWS, rows)
    return rows


def of_folds(rows: Sequence[Row], l2: Sequence[float], metric: str) -> tuple[list[Score], list[dict[str, float]]]:
    """Returns the mean of a metric over the folds with its standard error, and the columns of the results, by entry."""
    scores, columns = [], []
    for entry in range(len(l2)):
        mine = rows[entry :: len(l2)]
        found: dict[str, float] = {}
        for name in named(metric):
            values = [row[f"val_{name}"] for row in mine]
            found |= {f"val_{name}": statistics.fmean(values), f"val_{name}_sd": statistics.stdev(values)}
        scores.append(Score(found[f"val_{metric}"], found[f"val_{metric}_sd"] / len(mine) ** 0.5))
        columns.append(found)
    return scores, columns


def intervals(found: Outcome, metric: str, draws: int, seed: int) -> dict[str, float]:
    """Returns bounds of the test set's figures at 95 %: percentiles over draws of as many samples, with replacement.

    Source: the percentile bootstrap of Efron, Bootstrap methods: another look at the jackknife (1979).
    """
    values: dict[str, list[float]] = {name: [] for name in named(metric)}
    random, count = generator(seed, draws), len(found.target)
    for _ in range(draws):
        drawn = taken(found, torch.randint(count, (count,), generator=random))
        for name, kept in values.items():
            kept.append(score(name, drawn).value)
    bounds = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    columns: dict[str, float] = {}
    for name, kept in values.items():
        low, high = torch.tensor(kept, dtype=torch.float64).nanquantile(bounds).tolist()
        columns |= {f"test_{name}_low": low, f"test_{name}_high": high}
    return columns


def taken(found: Outcome, index: Tensor) -> Outcome:
    """Returns the outcome of the samples ``index (n,)``."""
    parts: dict[str, Any] = {name: part[index] for name, part in found._asdict().items() if isinstance(part, Tensor)}
    return found._replace(**parts)


def named(metric: str) -> list[str]:
    """Returns the metrics that are written down."""
    return list(dict.fromkeys(("loss", "accuracy", metric)))


def on_cpu(samples: tuple[Any, Tensor]) -> tuple[Any, Tensor]:
    return samples[0].to("cpu"), samples[1].cpu()


@contextmanager
def obedient(folder: Path | None, done: Callable[[], str]) -> Iterator[Before]:
    """Puts signals off; lends out what obeys them, to be called between two fits."""

    def obey() -> None:
        if stopping.signal is not None:
            raise Interrupted(stopping.signal, folder, done())

    stopping.put_off = stopping.installed
    try:
        yield obey
    finally:
        stopping.put_off = False


def kept(folder: Path | None, name: str, count: int) -> list[Row]:
    """Returns the rows that an earlier process left, a multiple of ``count``."""
    path = folder and folder / name
    rows = []
    if path and path.exists():
        try:
            rows = read_results(path)
        except (OSError, ValueError, csv.Error):
            log.warning("%s: damaged; its fits are made again", path)
    return rows[: len(rows) // count * count]


def write(folder: Path | None, name: str, rows: Sequence[Row]) -> None:
    if folder:
        replace_file(folder / name, csv_file(list(rows[0]), rows))


def few_shot_table(rows: Sequence[Row], metric: str, width: int | None = None) -> str:
    """Returns few-shot draws as aligned text: by number of shots the mean and the standard deviation over the draws.

    Args:
        width: of the terminal, which it is to fit.
    """
    split = "test" if f"test_{metric}" in rows[0] else "val"
    names = [f"{split}_{name}" for name in named(metric)]
    cells = [["shots", "draws", "median l2", *(word for name in names for word in (name.replace("_", " "), "± sd"))]]
    for shots in dict.fromkeys(row["shots"] for row in rows):
        mine = [row for row in rows if row["shots"] == shots]
        numbers = [number for name in names for number in mean_and_deviation([row[name] for row in mine])]
        l2 = statistics.median(row["l2"] for row in mine)
        cells.append(
            [
                str(shots),
                str(len(mine)),
                f"{l2:.3g}",
                *(f"{number:.4f}" if number == number else "" for number in numbers),
            ]
        )
    return "\n".join(aligned(cells, width))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns both; of a single value the latter is NaN."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan")
