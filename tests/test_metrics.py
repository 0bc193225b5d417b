"""The metrics against scikit-learn, their standard errors against finite differences, and the temperature's optimum."""

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import sem

from handgrad import metrics
from handgrad.metrics import METRICS, joined, outcome, per_class, score


def samples(classes: int, outputs: int | None = None, count: int = 240, seed: int = 0):
    """Logits that are right more often than not, with ties among them, and weights."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (count,), generator=generator)
    target[:classes] = torch.arange(classes)
    logits = torch.randn(count, outputs or classes, generator=generator, dtype=torch.float64)
    logits += 1.5 * (target[:, None] * 2 - 1 if outputs == 1 else torch.nn.functional.one_hot(target, classes))
    logits = logits.mul(4).round().div(4)
    return logits, target, torch.rand(count, generator=generator, dtype=torch.float64) + 0.1


def references(logits, target, weight):
    """The same by scikit-learn."""
    p = metrics.log_probabilities(logits).exp().numpy()
    label, binary = metrics.decide(logits).numpy(), p.shape[1] == 2
    many = {} if binary else {"multi_class": "ovr", "average": "macro"}
    area = sk.roc_auc_score
    if weight is not None and not binary:  # scikit-learn takes no weights for more than two classes

        def area(y, p, sample_weight, **_):
            return np.mean([sk.roc_auc_score(y == k, p[:, k], sample_weight=sample_weight) for k in range(p.shape[1])])

    return {
        "loss": sk.log_loss(target, p, sample_weight=weight, labels=range(p.shape[1])),
        "accuracy": sk.accuracy_score(target, label, sample_weight=weight),
        "mean_per_class": sk.balanced_accuracy_score(target, label, sample_weight=weight),
        "f1_macro": sk.f1_score(target, label, sample_weight=weight, average="macro"),
        "auroc": area(target, p[:, 1] if binary else p, sample_weight=weight, **many),
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("classes", "outputs"), [(2, 1), (2, 2), (3, 3), (7, 7)])
def test_each_metric_is_that_of_scikit_learn(classes, outputs, weighted):
    logits, target, weight = samples(classes, outputs)
    weight = weight if weighted else None
    found = {name: getattr(metrics, name)(logits, target, weight) for name in METRICS}
    assert found == pytest.approx(references(logits, target, weight), rel=1e-12)
    if not weighted:
        assert {name: score(name, outcome(logits, target)).value for name in METRICS} == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("classes", "outputs"), [(2, 1), (5, 5)])
def test_an_influence_is_the_derivative_by_the_samples_weight(name, classes, outputs):
    logits, target, _ = samples(classes, outputs, count=40)
    value, influence = METRICS[name](outcome(logits, target))
    step, count = 1e-6, len(target)
    for n in range(count):
        ends = []
        for sign in (1, -1):
            weight = torch.ones(count, dtype=torch.float64)
            weight[n] += sign * step
            ends.append(getattr(metrics, name)(logits, target, weight))
        assert influence[n].item() == pytest.approx(count * (ends[0] - ends[1]) / (2 * step), abs=1e-7)
    assert influence.sum().item() == pytest.approx(0, abs=1e-10)
    expected = math.sqrt(influence.square().sum() / (count * (count - 1)))
    assert score(name, outcome(logits, target)) == pytest.approx((value, expected))


def test_the_standard_error_of_a_mean_is_that_of_the_mean():
    logits, target, _ = samples(3)
    losses = -metrics.log_probabilities(logits)[torch.arange(len(target)), target].numpy()
    assert score("loss", outcome(logits, target)).standard_error == pytest.approx(sem(losses), rel=1e-12)
    hits = (metrics.decide(logits) == target).double().numpy()
    assert score("accuracy", outcome(logits, target)).standard_error == pytest.approx(sem(hits), rel=1e-12)
    assert math.isnan(score("accuracy", outcome(logits[:1], target[:1])).standard_error)


@pytest.mark.parametrize("name", METRICS)
def test_the_standard_error_is_how_far_other_samples_lead(name):
    values, told = [], []
    for seed in range(200):
        found = outcome(*samples(4, count=120, seed=seed)[:2])
        value, error = score(name, found)
        values.append(value)
        told.append(error)
    assert np.mean(told) == pytest.approx(np.std(values), rel=0.15)


def test_parts_add_up_to_the_whole():
    logits, target, _ = samples(4)
    whole, parts = outcome(logits, target), joined([outcome(logits[i::3], target[i::3]) for i in range(3)])
    for name in METRICS:
        assert score(name, parts) == pytest.approx(score(name, whole), rel=1e-12)
    assert outcome(logits, target, keep=False).log_probability is None


def test_a_class_without_samples_is_left_out_and_has_no_auroc():
    logits, target, _ = samples(4)
    target[target == 2] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of the class without samples
        expected = sk.balanced_accuracy_score(target, metrics.decide(logits))
    assert metrics.mean_per_class(logits, target) == pytest.approx(expected)
    assert metrics.f1_macro(logits, target) == pytest.approx(
        sk.f1_score(target, metrics.decide(logits), average="macro")
    )
    assert math.isnan(metrics.auroc(logits, target))
    assert metrics.auroc_undefined(target, range(4)) == "no sample of class 2"
    lone = torch.zeros(3, dtype=torch.int64)
    assert metrics.auroc_undefined(lone, range(9)) == "no sample of class 1, 2, 3, 4, 5 and 3 more"
    assert metrics.auroc_undefined(torch.arange(4), range(4)) is None
    never = torch.where(target[:, None] == 1, logits, logits - torch.tensor([0.0, 0.0, 1e3, 0.0]))
    assert score("f1_macro", outcome(never[target != 2], target[target != 2])).value < 1


@pytest.mark.parametrize("weighted", [False, True])
def test_the_confusion_matrix_and_its_table(weighted):
    logits, target, weight = samples(5)
    weight = weight if weighted else None
    label = metrics.decide(logits)
    found = metrics.confusion_matrix(label, target, 6, weight)
    expected = sk.confusion_matrix(target, label, sample_weight=weight, labels=range(6))
    assert found.numpy() == pytest.approx(expected)
    table = per_class(found[:5, :5])
    precision, recall, f1, samples_ = sk.precision_recall_fscore_support(target, label, sample_weight=weight)
    for name, values in {"precision": precision, "recall": recall, "f1": f1, "samples": samples_}.items():
        assert getattr(table, name).numpy() == pytest.approx(values), name


def test_probabilities_are_logits_too():
    logits, target, _ = samples(3)
    p = logits.softmax(1)
    binary, answer, _ = samples(2, 1)
    for name in METRICS:
        metric = getattr(metrics, name)
        rounding = 1e-3 if name == "auroc" else 1e-9  # parts samples of equal rank
        assert metric(p.log(), target) == pytest.approx(metric(logits, target), rel=rounding)
        assert metric(binary.sigmoid().logit(), answer) == pytest.approx(metric(binary, answer), rel=rounding)


def test_sure_logits_keep_a_finite_loss():
    logits = torch.tensor([[200.0], [-200.0], [200.0]])
    assert metrics.loss(logits, torch.tensor([1, 0, 0])) == pytest.approx(200 / 3)
    assert metrics.loss(logits.half(), torch.tensor([1, 0, 0])) == pytest.approx(200 / 3)


@pytest.mark.parametrize("outputs", [1, 4])
def test_the_calibration_error_is_that_of_its_definition(outputs):
    logits, target, weight = samples(max(outputs, 2), outputs)
    p = metrics.log_probabilities(logits).exp().numpy()
    confidence, hit = p.max(1), p.argmax(1) == target.numpy()
    for weights, passed in ((np.ones(len(hit)), None), (weight.numpy(), weight)):
        expected = 0.0
        for b in range(15):
            inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
            if inside.any():
                gap = np.average(hit[inside], weights=weights[inside])
                gap -= np.average(confidence[inside], weights=weights[inside])
                expected += weights[inside].sum() / weights.sum() * abs(gap)
        assert metrics.expected_calibration_error(logits, target, passed) == pytest.approx(expected, rel=1e-12)
    curve = metrics.reliability_curve(logits, target, bins=10)
    assert curve.share.sum().item() == pytest.approx(1)
    filled = curve.share > 0
    assert (curve.share * curve.accuracy)[filled].sum().item() == pytest.approx(hit.mean())
    assert curve.confidence[~filled].isnan().all()


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("factor", [0.2, 1.0, 30.0])
def test_the_temperature_makes_the_loss_smallest(outputs, factor):
    logits, target, weight = samples(max(outputs, 2), outputs)
    for passed in (None, weight):
        found = metrics.fit_temperature(factor * logits, target, passed)
        best = minimize_scalar(
            lambda t: metrics.loss(factor * logits / math.exp(t), target, passed),  # noqa: B023
            bounds=(math.log(0.01), math.log(100)),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert found == pytest.approx(math.exp(best.x), rel=1e-6)
        assert metrics.loss(factor * logits / found, target, passed) <= best.fun + 1e-13


def test_a_temperature_without_optimum_ends_at_its_bounds():
    right = torch.eye(3, dtype=torch.float64)
    assert metrics.fit_temperature(right, torch.arange(3)) == pytest.approx(1 / 100, rel=1e-6)
    assert metrics.fit_temperature(right, torch.tensor([1, 2, 0])) == pytest.approx(100, rel=1e-6)
    assert metrics.fit_temperature(torch.zeros(3, 3), torch.arange(3)) == 1


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_average_precision_is_that_of_scikit_learn(weighted):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(150, 6, generator=generator, dtype=torch.float64).mul(3).round()
    target = (torch.rand(150, 6, generator=generator) < logits.sigmoid() * 0.4).long()
    weight = torch.rand(150, generator=generator, dtype=torch.float64) if weighted else None
    expected = sk.average_precision_score(target, logits, average="macro", sample_weight=weight)
    assert metrics.mean_average_precision(logits, target, weight) == pytest.approx(expected, rel=1e-12)
    target[:, 3] = 0
    kept = [0, 1, 2, 4, 5]
    expected = sk.average_precision_score(target[:, kept], logits[:, kept], average="macro", sample_weight=weight)
    assert metrics.mean_average_precision(logits, target, weight) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(metrics.average_precision(logits[:, 3], target[:, 3]))
