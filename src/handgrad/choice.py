"""The chosen classifier of a path: which entry, its weights on raw features, and what it gives."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from handgrad import evaluation
from handgrad.data.base import LinearDataModule
from handgrad.data.normalization import folded
from handgrad.errors import InputError
from handgrad.evaluation import Report
from handgrad.metrics import Score, score
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.resampling import intervals, of_folds
from handgrad.runs.results import Row
from handgrad.selection import Selection
from handgrad.solvers.protocol import Solver
from handgrad.training.refit import Refit, refit


@dataclass(frozen=True)
class Choice:
    """The entry of a path that was chosen by the validation set.

    Attributes:
        selection: how.
        entry: its index on the path.
        scores: what each entry gives on the validation set, by the selection's metric, with its standard error; of
            folds it is the mean over them.
        validation: more columns of the results, by entry.
        weight, bias: (K, D) and (K,), on features before a normalization by columns; refitted where that was asked for.
        report: what they give on the test set; where there is none, what they gave on the validation set before a
            refit, which has seen it.
        columns: of the results' selected row: calibration, and the figures of the refit.
    """

    selection: Selection
    entry: int
    scores: Sequence[Score]
    validation: Sequence[dict[str, Any]]
    weight: Tensor
    bias: Tensor
    report: Report
    columns: dict[str, Any]


def check_selection(selection: Selection, data: LinearDataModule) -> None:
    """Raises an InputError where a choice can not be made so; ``data`` is set up."""
    samples = data.val or data.train
    assert samples is not None
    evaluation.check_metric(selection.metric, samples[1], data.classes)
    for fold in range(0 if data.fold is None else int(data.fold.max()) + 1):
        evaluation.check_metric(selection.metric, samples[1][data.fold == fold], data.classes, f"fold {fold}")
    if selection.refit and data.val is None:
        raise InputError("select.refit=true: accepted with data.folds is false; the weights are of all samples already")
    if selection.refit:
        data.check_weights_of_val()


def check_refit(selection: Selection, solver: Solver) -> None:
    """Raises an InputError where a solver can not refit.

    SGD stops by the validation set, which is no judge of what has been trained on it, and how many updates were best
    for fewer samples says little of how many would be for more.
    """
    if selection.refit and not solver.one_at_a_time:
        raise InputError("select.refit=true: accepted with optimizer=exact; others stop by the validation set")


def choose(
    model: LinearClassifier,
    data: LinearDataModule,
    solver: Solver,
    selection: Selection,
    folds: Sequence[Row] = (),
    *,
    first: bool = True,
) -> Choice:
    """Returns the chosen classifier; of several processes only the ``first`` refits.

    The test set is looked at after the choice alone. The temperature is that of the chosen entry as it was before a
    refit, for after it the validation set is none any more.

    Args:
        model: evaluated: ``final`` has what its best weights give.
        folds: what ``cross_validated`` found, where there is no validation set.
    """
    scores, validation = validated(model, data, selection.metric, folds)
    if (known := model.final.get(f"val_{selection.metric}")) is not None:
        scores = [score._replace(value=value) for score, value in zip(scores, known.tolist(), strict=True)]
    entry = selection.choose(model.hparams["l2"], scores)
    before = chosen = model.best_weight[entry], model.best_bias[entry]
    columns: dict[str, Any] = {}
    if selection.refit and first:
        again = refit(model, data, solver, entry)
        chosen = again.weight, again.bias
        columns |= of_refit(model, data, again, entry)
    temperature = math.nan
    if model.criterion.residual is not None and not model.multilabel and data.val is not None:
        temperature = evaluation.temperature_of(model, *before, data.val)
    report = Report("test", None, None)
    if (samples := data.test or data.val) is not None:
        split, weights = ("val", before) if data.test is None else ("test", chosen)
        report = evaluation.report(model, weights, split, samples, temperature)
    of_path = selection.metric in evaluation.OF_LABELS  # then the path has its figures
    if data.test is not None and (data.bootstrap or not of_path):
        outcome = evaluation.outcome_of(model, *chosen, data.test, keep=selection.metric == "auroc")
        if not of_path:
            columns[f"test_{selection.metric}"] = score(selection.metric, outcome).value
        if data.bootstrap:
            columns |= intervals(outcome, selection.metric, data.bootstrap, data.seed)
    if (calibration := report.calibration) is not None:
        columns |= {"temperature": temperature, f"{report.split}_ece": calibration.error}
        columns |= {f"{report.split}_ece_scaled": calibration.scaled_error}
    raw = chosen if data.normalization is None else folded(*chosen, *data.normalization)
    return Choice(selection, entry, scores, validation, *raw, report, columns)


def validated(
    model: LinearClassifier, data: LinearDataModule, metric: str, folds: Sequence[Row]
) -> tuple[list[Score], list[dict[str, Any]]]:
    """Returns the scores by which an entry is chosen, and more columns of the results, by entry."""
    if data.val is None:
        return of_folds(folds, model.hparams["l2"], metric)
    scores = evaluation.scores(model, data.val, metric)
    return scores, [{f"val_{metric}": found.value} for found in scores]


def of_refit(model: LinearClassifier, data: LinearDataModule, again: Refit, entry: int) -> dict[str, Any]:
    """Returns the figures of a refit, by the names of the results."""
    found = {f"refit_{name}": value for name, value in again.proof.items()}
    found["refit_C"] = model.inverse_penalty(model.hparams["l2"][entry], again.samples)
    found["refit_weight_norm_squared"] = again.weight.square().sum().item()
    if model.penalize_bias:
        found["refit_weight_norm_squared"] += again.bias.square().sum().item()
    if data.test is not None:
        outcome = evaluation.outcome_of(model, again.weight, again.bias, data.test)
        found["refit_test_loss"] = outcome.loss.mean().item()
        found["refit_test_accuracy"] = (outcome.prediction == outcome.target).double().mean().item()
    return found
