"""What fitted classifiers give on a set of samples: metrics, confusion, calibration; a part of the set at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from handgrad.data.blocks import Samples
from handgrad.data.rows import fleeting
from handgrad.errors import InputError
from handgrad.functions.linear_map import linear_map
from handgrad.functions.samples import widest
from handgrad.metrics import (
    METRICS,
    Outcome,
    Reliability,
    Score,
    auroc_undefined,
    calibration_error_of,
    confusion_matrix,
    fit_temperature,
    joined,
    outcome,
    outcome_of_labels,
    reliability_of,
    score,
)
from handgrad.models.linear_classifier import LinearClassifier

OF_LABELS = ("loss", "accuracy")  # metrics of several labels a sample
NUMBERS_AT_ONCE = 2**20  # logits, or features that are cast: what a part of a set takes
NUMBERS_OF_TEMPERATURE = 2**24  # logits from which the temperature is fitted, a sample's after another's


@dataclass(frozen=True)
class Calibration:
    """What probabilities are worth.

    Attributes:
        temperature: T, which makes the validation loss of ``logits / T`` smallest.
        curve, scaled_curve: how often labels are right by their probability, without and with T.
    """

    temperature: float
    curve: Reliability
    scaled_curve: Reliability

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return calibration_error_of(self.curve)

    @property
    def scaled_error(self) -> float:
        """The same with T."""
        return calibration_error_of(self.scaled_curve)


@dataclass(frozen=True)
class Report:
    """What the chosen classifier gives on ``split``.

    Attributes:
        confusion: (C, C), how many samples of class i are labelled j; None of several labels a sample.
        calibration: None where outputs are no probabilities of classes.
    """

    split: str
    confusion: Tensor | None
    calibration: Calibration | None


def outcome_of(
    model: LinearClassifier, weight: Tensor, bias: Tensor, samples: Samples, *, keep: bool = False
) -> Outcome:
    """Returns what one classifier gives on a set; its losses are those of the model's own criterion.

    Args:
        weight, bias: (K, D) and (K,), on the features as the set has them.
        keep: whether to keep the (N, C) probabilities.
    """
    input, target = fleeting(samples[0], torch.promote_types(weight.dtype, torch.float32)), samples[1]
    rows = max(1, NUMBERS_AT_ONCE // max(input.shape[1], len(bias)))
    parts = [slice(first, first + rows) for first in range(0, len(target), rows)]
    find = partial(_of_part, model, weight, bias, (input, target), keep=keep)
    return joined(model.pipeline.run([partial(find, part) for part in parts]))


@torch.inference_mode()
def _of_part(
    model: LinearClassifier, weight: Tensor, bias: Tensor, samples: Samples, rows: slice, keep: bool
) -> Outcome:
    dtype = torch.promote_types(weight.dtype, torch.float32)
    x, target = samples[0][rows].to(weight.device, dtype), samples[1][rows].to(weight.device)
    z = linear_map(x, weight[None].to(dtype)) + bias[None, :, None].to(dtype)
    if widest(z.device) != torch.float64:
        z, target = z.cpu(), target.cpu()
    losses = model.criterion.plain(z, target)[0].double()
    if model.multilabel:
        return on_cpu(outcome_of_labels(z[0].t(), target)._replace(loss=losses))
    found = outcome(z[0].t(), target, keep)
    return on_cpu(found._replace(loss=losses, prediction=model.decide(z.transpose(1, 2))[0]))


def on_cpu(found: Outcome) -> Outcome:
    """Returns an outcome that was found on any device."""
    target, prediction, losses, confidence, log_p, classes = found
    numbers = losses.cpu(), confidence.cpu(), None if log_p is None else log_p.cpu()
    return Outcome(target.cpu(), prediction.cpu(), *numbers, classes)


def scores(model: LinearClassifier, samples: Samples, metric: str) -> list[Score]:
    """Returns what each entry's best weights give, by a metric of ``handgrad.metrics``."""
    keep = metric == "auroc"
    entries = zip(model.best_weight, model.best_bias, strict=True)
    return [score(metric, outcome_of(model, weight, bias, samples, keep=keep)) for weight, bias in entries]


def check_metric(metric: str, target: Tensor, classes: Sequence[int | str], where: str = "the validation set") -> None:
    """Raises an InputError where a metric is not defined for a validation set, ``target (N,)`` or (N, K)."""
    if target.dim() == 2:
        if metric not in OF_LABELS:
            raise InputError(f"select.metric={metric}: accepted of several labels is one of {', '.join(OF_LABELS)}")
    elif metric == "auroc" and (reason := auroc_undefined(target.cpu(), classes)):
        others = ", ".join(name for name in METRICS if name != "auroc")
        raise InputError(f"select.metric=auroc: {reason} in {where}; accepted are {others}")


def report(model: LinearClassifier, chosen: tuple[Tensor, Tensor], split: str, samples: Samples, T: float) -> Report:
    """Returns what the chosen classifier's ``weight (K, D)`` and ``bias (K,)`` give on a set.

    Args:
        T: the temperature; NaN: outputs are no probabilities.
    """
    if model.multilabel:
        return Report(split, None, None)
    found = outcome_of(model, *chosen, samples)
    classes = max(len(chosen[1]), 2)
    confusion = confusion_matrix(found.prediction, found.target, classes)
    if T != T:
        return Report(split, confusion, None)
    scaled = outcome_of(model, chosen[0] / T, chosen[1] / T, samples)
    return Report(split, confusion, Calibration(T, reliability_of(found), reliability_of(scaled)))


def temperature_of(model: LinearClassifier, weight: Tensor, bias: Tensor, val: Samples) -> float:
    """Returns the temperature of a classifier by a validation set, of which evenly spread rows serve if it is large."""
    input, target = val
    count = max(1, NUMBERS_OF_TEMPERATURE // max(len(bias), 2))
    if len(target) > count:
        index = torch.linspace(0, len(target) - 1, count, dtype=torch.float64).long()
        input, target = input.index_select(0, index.to(input.device)), target[index.to(target.device)]
    found = outcome_of(model, weight, bias, (input, target), keep=True)
    assert found.log_probability is not None
    return fit_temperature(found.log_probability, found.target)
