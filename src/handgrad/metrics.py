"""How good logits are, measured in one number or a table; no gradient is taken here.

Everywhere ``logits (N, K)`` are of N samples and ``target (N,)`` are their classes. K = 1 is a sigmoid: the logit of
class 1, with 0 for that of class 0. Probabilities p are logits too: ``p.log()``, or ``p.logit()`` where K = 1.
``sample_weight (N,)`` says what a sample counts; None: 1. What is not defined is NaN.

Each metric comes with the standard error that it has over the samples, by the infinitesimal jackknife (Jaeckel 1972):
with ``h_n``, how the metric T moves when sample n counts more,

    h_n = N dT/ds_n at s = 1,     s.e.(T)^2 = sum_n h_n^2 / (N (N - 1))

Every metric here is of degree 0 in the weights s, so that the h_n add up to 0. For a mean this is the standard error of
the mean; for the AUROC it is that of DeLong, DeLong and Clarke-Pearson (1988), up to N / (N - 1) in its parts.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

BINS = 15
HOTTEST = 100.0  # the largest temperature, and one over the smallest, that is fitted


class Outcome(NamedTuple):
    """What a metric looks at.

    Attributes:
        target, prediction: (N,) classes.
        loss: (N,) float64, ``-ln p[n, target_n]``.
        confidence: (N,) float64, the probability of the prediction.
        log_probability: (N, C), for the AUROC alone; else it may be None.
        classes: C.
    """

    target: Tensor
    prediction: Tensor
    loss: Tensor
    confidence: Tensor
    log_probability: Tensor | None
    classes: int


class Score(NamedTuple):
    """A metric, and its standard error over the samples."""

    value: float
    standard_error: float


class PerClass(NamedTuple):
    """Of each class, (C,) float64: NaN where it is not defined.

    Attributes:
        samples: of the class, or the sum of their weights.
        recall: the share of them that is labelled so: the accuracy of the class.
        precision: the share of what is labelled so that is of the class.
        f1: ``2 TP / (samples + labelled so)``, the harmonic mean of both.
    """

    samples: Tensor
    recall: Tensor
    precision: Tensor
    f1: Tensor


class Reliability(NamedTuple):
    """The reliability curve, in bins of equal width over the confidence, each (B,) float64.

    Attributes:
        confidence: mean probability of the labels given.
        accuracy: the share of them that is right.
        share: of the samples that lie in the bin; where it is 0 the other two are NaN.
    """

    confidence: Tensor
    accuracy: Tensor
    share: Tensor


def log_probabilities(logits: Tensor) -> Tensor:
    """Returns ``ln p (N, C)`` in the dtype of the logits, at least float32; a sigmoid's C is 2."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[1] == 1:
        return torch.nn.functional.logsigmoid(torch.cat((-logits, logits), 1))
    return logits.log_softmax(1)


def decide(logits: Tensor) -> Tensor:
    """Returns the class (N,) with the largest logit; of equal ones the first."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def outcome(logits: Tensor, target: Tensor, keep: bool = True) -> Outcome:
    """Returns what the metrics need; without the (N, C) probabilities where ``keep`` is false."""
    log_p = log_probabilities(logits)
    losses = -log_p.gather(1, target[:, None])[:, 0].double()
    confidence = log_p.amax(1).double().exp()
    return Outcome(target, decide(logits), losses, confidence, log_p if keep else None, log_p.shape[1])


def outcome_of_labels(logits: Tensor, target: Tensor, keep: bool = False) -> Outcome:
    """Returns what the loss and the accuracy need of K sigmoids, ``target (N, K)``: one class, all labels are right.

    The loss is the sum over the labels. ``keep`` is for the likeness with ``outcome``.
    """
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    right = ((logits > 0) == target.bool()).all(1)
    none = torch.zeros(len(target), dtype=torch.float64, device=target.device)
    return Outcome(torch.ones_like(right).long(), right.long(), losses.double().sum(1), none, None, 2)


def joined(parts: list[Outcome]) -> Outcome:
    """Returns the outcome of the samples of all parts, in their order."""
    kept = [part.log_probability for part in parts if part.log_probability is not None]
    return Outcome(
        torch.cat([part.target for part in parts]),
        torch.cat([part.prediction for part in parts]),
        torch.cat([part.loss for part in parts]),
        torch.cat([part.confidence for part in parts]),
        torch.cat(kept) if kept else None,
        parts[0].classes,
    )


def confusion_matrix(prediction: Tensor, target: Tensor, classes: int, sample_weight: Tensor | None = None) -> Tensor:
    """Returns how many samples of class i are labelled j, (C, C) float64; those of parts add up.

    Args:
        prediction, target: (N,) classes.
        classes: C.
    """
    weight = None if sample_weight is None else sample_weight.double()
    return torch.bincount(target * classes + prediction, weight, classes**2).double().view(classes, classes)


def per_class(confusion: Tensor) -> PerClass:
    """Returns the table of a ``confusion (C, C)``."""
    return of_counts(confusion.diag(), confusion.sum(1), confusion.sum(0))


def of_counts(hits: Tensor, samples: Tensor, labelled: Tensor) -> PerClass:
    """Returns the table of classes, or labels: how many samples are rightly labelled so, are of it, are labelled so."""
    return PerClass(samples, hits / samples, hits / labelled, 2 * hits / (samples + labelled))


def accuracy(logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> float:
    """Returns the share of right labels."""
    return _mean((decide(logits) == target).double(), sample_weight)


def loss(logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> float:
    """Returns the mean of ``-ln p[n, target_n]``, in nats."""
    return _mean(outcome(logits, target).loss, sample_weight)


def mean_per_class(logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> float:
    """Returns the mean of the classes' recalls, of those that have samples: scikit-learn's balanced accuracy."""
    return _per_class(logits, target, sample_weight).recall.nanmean().item()


def f1_macro(logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> float:
    """Returns the mean of the classes' f1, of those that have samples or are given as labels."""
    return _per_class(logits, target, sample_weight).f1.nanmean().item()


def auroc(logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> float:
    """Returns the area under the ROC curve: how often a sample of a class is ranked before one that is not; ties: 1/2.

    Two classes: by the probability of class 1. More: the mean over the classes, each against the rest by its own
    probability. NaN where a class has no sample; ``auroc_undefined`` says which.
    """
    log_p = log_probabilities(logits)
    return _auroc(log_p, target, sample_weight)[0]


def auroc_undefined(target: Tensor, classes: Sequence[int | str]) -> str | None:
    """Returns why there is no AUROC for these samples, in words; None where there is one.

    Args:
        classes: their names.
    """
    counts = torch.bincount(target, minlength=len(classes)).tolist()
    missing = [str(name) for name, count in zip(classes, counts, strict=True) if not count]
    told = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return f"no sample of class {told}" if missing else None


def score(metric: str, found: Outcome) -> Score:
    """Returns a metric of ``METRICS`` with its standard error, NaN for a single sample."""
    value, influence = METRICS[metric](found)
    count = len(found.target)
    squares = influence.square().sum().item()
    return Score(value, math.sqrt(squares / (count * (count - 1))) if count > 1 else math.nan)


def _accuracy(found: Outcome) -> tuple[float, Tensor]:
    """``T = sum s hit / sum s``, ``h = hit - T``."""
    return _mean_with_influence((found.prediction == found.target).double())


def _loss(found: Outcome) -> tuple[float, Tensor]:
    """``T = sum s loss / sum s``, ``h = loss - T``."""
    return _mean_with_influence(found.loss)


def _mean_with_influence(values: Tensor) -> tuple[float, Tensor]:
    mean = values.mean()
    return mean.item(), values - mean


def _mean_per_class(found: Outcome) -> tuple[float, Tensor]:
    """``T = 1/C sum_c r_c``, ``r_c = sum_{n in c} s hit / sum_{n in c} s``, so ``h_n = N / (C N_c) (hit_n - r_c)``."""
    table = per_class(confusion_matrix(found.prediction, found.target, found.classes))
    hit = (found.prediction == found.target).double()
    share = len(hit) / (table.samples.count_nonzero() * table.samples)
    influence = (share[found.target]) * (hit - table.recall[found.target])
    return table.recall.nanmean().item(), influence


def _f1_macro(found: Outcome) -> tuple[float, Tensor]:
    """``T = 1/C sum_c F_c``, ``F_c = 2 TP_c / M_c``, ``M = S + P`` with S_c samples and P_c labels of class c.

    A sample counts in its own class y and in that of its label, p, so
    ``h_n = N/C (2 hit_n / M_y - F_y / M_y - F_p / M_p)``.
    """
    confusion = confusion_matrix(found.prediction, found.target, found.classes)
    f1, both = per_class(confusion).f1, confusion.sum(0) + confusion.sum(1)
    hit = (found.prediction == found.target).double()
    part = f1 / both
    moved = 2 * hit / both[found.target] - part[found.target] - part[found.prediction]
    return f1.nanmean().item(), moved * (len(hit) / both.count_nonzero())


def _auroc_of(found: Outcome) -> tuple[float, Tensor]:
    assert found.log_probability is not None, "the AUROC needs all probabilities"
    return _auroc(found.log_probability, found.target, None)


METRICS: dict[str, Callable[[Outcome], tuple[float, Tensor]]] = {
    "loss": _loss,
    "accuracy": _accuracy,
    "mean_per_class": _mean_per_class,
    "f1_macro": _f1_macro,
    "auroc": _auroc_of,
}
LOWER_IS_BETTER = {"loss"}


def _auroc(log_p: Tensor, target: Tensor, sample_weight: Tensor | None) -> tuple[float, Tensor]:
    """Returns the AUROC, and each sample's influence (N,) on it (without weights)."""
    if log_p.shape[1] == 2:
        return _area(log_p[:, 1] - log_p[:, 0], target == 1, sample_weight)
    total, influence = 0.0, torch.zeros(len(target), dtype=torch.float64)
    for index, ranked in enumerate(log_p.unbind(1)):
        area, moved = _area(ranked, target == index, sample_weight)
        total += area
        influence += moved
    return total / log_p.shape[1], influence / log_p.shape[1]


def _area(ranked: Tensor, positive: Tensor, sample_weight: Tensor | None) -> tuple[float, Tensor]:
    """Returns ``A = sum_{i in +, j in -} s_i s_j [r_i > r_j] / (s_+ s_-)``, ties 1/2, and its influences (N,).

    With ``v_i``, the share of the others' side that a sample is ranked right against, ``A = mean_+ v = mean_- v`` and
    ``h_i = N / N_side (v_i - A)``.
    """
    weight = torch.ones_like(ranked, dtype=torch.float64) if sample_weight is None else sample_weight.double()
    sides = [(ranked[side], weight[side]) for side in (positive, ~positive)]
    if not all(of_side.sum() > 0 for _, of_side in sides):
        return math.nan, torch.full_like(weight, math.nan)
    above = _share_below(*sides[0][:1], *sides[1])
    below = 1 - _share_below(*sides[1][:1], *sides[0])
    area = (above * sides[0][1]).sum() / sides[0][1].sum()
    influence = torch.empty_like(weight)
    influence[positive] = (above - area) * (len(weight) / len(above))
    influence[~positive] = (below - area) * (len(weight) / len(below))
    return area.item(), influence


def _share_below(value: Tensor, others: Tensor, weight: Tensor) -> Tensor:
    """Returns the share of ``others``, by weight, that each value (n,) lies above; ties count half."""
    others, order = others.sort()
    cumulated = torch.cat((weight.new_zeros(1), weight[order].cumsum(0)))
    ends = (cumulated[torch.searchsorted(others, value.contiguous(), right=right)] for right in (False, True))
    return sum(ends) / (2 * cumulated[-1])


def reliability_curve(
    logits: Tensor, target: Tensor, sample_weight: Tensor | None = None, bins: int = BINS
) -> Reliability:
    """Returns how often labels are right, by the probability that they were given."""
    return reliability_of(outcome(logits, target, keep=False), sample_weight, bins)


def reliability_of(found: Outcome, sample_weight: Tensor | None = None, bins: int = BINS) -> Reliability:
    """Returns the same curve of an outcome."""
    weight = torch.ones_like(found.confidence) if sample_weight is None else sample_weight.double()
    index = (found.confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)  # a bin has its upper end
    hit = (found.prediction == found.target).double()
    share, confidence, right = (torch.bincount(index, weight * of, bins) for of in (hit * 0 + 1, found.confidence, hit))
    return Reliability(confidence / share, right / share, share / weight.sum())


def expected_calibration_error(
    logits: Tensor, target: Tensor, sample_weight: Tensor | None = None, bins: int = BINS
) -> float:
    """Returns the mean distance of confidence and accuracy over the bins, by their shares (Guo et al. 2017, ECE)."""
    return calibration_error_of(reliability_curve(logits, target, sample_weight, bins))


def calibration_error_of(curve: Reliability) -> float:
    """Returns the same error of a curve."""
    return ((curve.confidence - curve.accuracy).abs() * curve.share).nansum().item()


def fit_temperature(logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> float:
    """Returns the temperature T that makes the loss of ``logits / T`` smallest (Guo et al. 2017), in [1/100, 100].

    With b = 1/T, z the logits (0 and z for a sigmoid) and p = softmax(b z), the loss is convex in b::

        f(b) = mean_n (ln sum_k exp(b z[n, k]) - b z[n, y_n])
        f'   = mean_n (sum_k p z - z[n, y_n])
        f''  = mean_n (sum_k p z^2 - (sum_k p z)^2), the variance of z under p

    The root of f' is found by Newton's method, and by halving ln b where a step leaves what is left of the interval.
    """
    slope_and_curvature = _along_temperature(logits, target, sample_weight)
    low, high, b = 1 / HOTTEST, HOTTEST, 1.0
    for end, outward in ((low, 1), (high, -1)):
        if slope_and_curvature(end)[0] * outward > 0:
            return 1 / end  # the loss only falls on the way there
    for _ in range(100):
        slope, curvature = slope_and_curvature(b)
        low, high = (b, high) if slope < 0 else (low, b)
        newton = b - slope / curvature if curvature > 0 else b
        after = newton if low <= newton <= high else math.sqrt(low * high)
        if abs(after - b) <= 1e-10 * b:
            break
        b = after
    return 1 / b


def _along_temperature(
    logits: Tensor, target: Tensor, sample_weight: Tensor | None
) -> Callable[[float], tuple[float, float]]:
    """Returns what gives f' and f'' at b."""
    z = logits.double()
    z = torch.cat((torch.zeros_like(z), z), 1) if z.shape[1] == 1 else z
    z = z - z.gather(1, target[:, None])  # then z[n, y_n] = 0
    weight = torch.ones(len(z), dtype=torch.float64) if sample_weight is None else sample_weight.double()
    weight = weight / weight.sum()

    def slope_and_curvature(b: float) -> tuple[float, float]:
        p = (b * z).softmax(1)
        mean = (p * z).sum(1)
        variance = (p * (z - mean[:, None]).square()).sum(1)
        return (weight @ mean).item(), (weight @ variance).item()

    return slope_and_curvature


def average_precision(ranked: Tensor, positive: Tensor, sample_weight: Tensor | None = None) -> float:
    """Returns the mean precision over the positive samples, as they are found from the highest rank down.

    ``AP = sum_t (R_t - R_{t-1}) P_t`` over the thresholds t, with recall R and precision P; samples of equal rank are
    found together. NaN where none is positive.

    Args:
        ranked: (N,), larger where the label is more likely.
        positive: (N,), 0 or 1.
    """
    ranked, order = ranked.sort(descending=True)
    weight = torch.ones(len(order), dtype=torch.float64) if sample_weight is None else sample_weight.double()[order]
    last = torch.cat((ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)))
    hits = (weight * positive[order].double()).cumsum(0)[last]
    precision = hits / weight.cumsum(0)[last]
    return ((precision * hits.diff(prepend=hits.new_zeros(1))).nansum() / hits[-1]).item()


def mean_average_precision(logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> float:
    """Returns the mean of the labels' average precisions, of those that a sample has.

    Args:
        logits: (N, K), of K labels.
        target: (N, K), 0 or 1.
    """
    each = [
        average_precision(*columns, sample_weight) for columns in zip(logits.unbind(1), target.unbind(1), strict=True)
    ]
    return torch.tensor(each, dtype=torch.float64).nanmean().item()


def _mean(values: Tensor, sample_weight: Tensor | None) -> float:
    if sample_weight is None:
        return values.mean().item()
    return ((values * sample_weight.double()).sum() / sample_weight.double().sum()).item()


def _per_class(logits: Tensor, target: Tensor, sample_weight: Tensor | None) -> PerClass:
    return per_class(confusion_matrix(decide(logits), target, max(logits.shape[1], 2), sample_weight))
