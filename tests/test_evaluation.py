"""What classifiers give on a set, part by part, is what the whole set gives at once."""

from types import SimpleNamespace

import pytest
import torch

from handgrad import evaluation, metrics
from handgrad.data.rows import Rows
from handgrad.errors import InputError
from handgrad.functions.objective import SOFTMAX, in_turn
from handgrad.metrics import METRICS
from handgrad.models.logistic_regression import LogisticRegression
from handgrad.models.softmax_regression import SoftmaxRegression


def made(kind=SoftmaxRegression, classes: int = 3, entries: int = 2):
    """A model with best weights, and a set of 90 samples."""
    generator = torch.Generator().manual_seed(0)
    model = kind(num_features=4, num_classes=classes, l2=[10.0**-i for i in range(entries)]).double()
    model.best_weight.copy_(torch.randn(model.weight.shape, generator=generator))
    model.best_bias.copy_(torch.randn(model.bias.shape, generator=generator))
    model.pipeline = SimpleNamespace(run=in_turn)
    target = torch.arange(90) % classes
    return model, (torch.randn(90, 4, generator=generator), target)


def logits(model, entry, input):
    return input.double() @ model.best_weight[entry].t() + model.best_bias[entry]


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("kind", "classes"), [(SoftmaxRegression, 3), (SoftmaxRegression, 2), (LogisticRegression, 2)])
def test_each_entry_is_scored_as_its_logits_say(kind, classes, metric, on_disk, monkeypatch):
    monkeypatch.setattr(evaluation, "NUMBERS_AT_ONCE", 4 * 7)  # parts of seven samples
    model, (input, target) = made(kind, classes)
    found = evaluation.scores(model, (Rows([input]) if on_disk else input, target), metric)
    for entry, score in enumerate(found):
        assert score.value == pytest.approx(getattr(metrics, metric)(logits(model, entry, input), target), rel=1e-12)
        whole = metrics.score(metric, metrics.outcome(logits(model, entry, input), target))
        assert score.standard_error == pytest.approx(whole.standard_error, rel=1e-12)


def test_a_loss_is_that_of_the_models_own_criterion():
    model, samples = made()
    model.criterion = SOFTMAX._replace(plain=lambda z, target: z[:, 0])
    (score, _) = evaluation.scores(model, samples, "loss")
    assert score.value == pytest.approx(logits(model, 0, samples[0])[:, 0].mean().item())


def test_half_precision_is_evaluated_in_single():
    model, (input, target) = made()
    model.to(torch.bfloat16)
    found = evaluation.outcome_of(model, model.best_weight[0], model.best_bias[0], (input, target))
    z = input @ model.best_weight[0].float().t() + model.best_bias[0].float()
    assert found.loss.mean().item() == pytest.approx(metrics.loss(z, target), rel=1e-6)
    assert found.log_probability is None


def test_a_metric_without_a_class_is_refused_and_says_which():
    target = torch.tensor([0, 2, 2])
    evaluation.check_metric("loss", target, ["a", "b", "c"])
    evaluation.check_metric("auroc", torch.arange(3), ["a", "b", "c"])
    line = (
        "select.metric=auroc: no sample of class b in the validation set; accepted are loss, accuracy, "
        "mean_per_class, f1_macro"
    )
    with pytest.raises(InputError) as refused:
        evaluation.check_metric("auroc", target, ["a", "b", "c"])
    assert str(refused.value) == line


@pytest.mark.parametrize(("kind", "classes"), [(SoftmaxRegression, 3), (LogisticRegression, 2)])
def test_the_report_of_the_chosen_classifier(kind, classes):
    model, samples = made(kind, classes)
    weights, z = (model.best_weight[1], model.best_bias[1]), logits(model, 1, samples[0])
    T = evaluation.temperature_of(model, *weights, samples)
    assert pytest.approx(metrics.fit_temperature(z, samples[1]), rel=1e-9) == T
    found = evaluation.report(model, weights, "val", samples, T)
    assert found.split == "val"
    assert torch.equal(found.confusion, metrics.confusion_matrix(metrics.decide(z), samples[1], classes))
    error, scaled = (metrics.expected_calibration_error(z / t, samples[1]) for t in (1, T))
    assert (found.calibration.error, found.calibration.scaled_error) == pytest.approx((error, scaled), rel=1e-9)
    assert found.calibration.temperature == T
    assert evaluation.report(model, weights, "val", samples, float("nan")).calibration is None


def test_of_many_samples_evenly_spread_ones_give_the_temperature(monkeypatch):
    monkeypatch.setattr(evaluation, "NUMBERS_OF_TEMPERATURE", 3 * 10)
    model, (input, target) = made()
    index = torch.linspace(0, 89, 10, dtype=torch.float64).long()
    T = evaluation.temperature_of(model, model.best_weight[0], model.best_bias[0], (input, target))
    assert pytest.approx(metrics.fit_temperature(logits(model, 0, input[index]), target[index]), rel=1e-9) == T
    on_disk = evaluation.temperature_of(model, model.best_weight[0], model.best_bias[0], (Rows([input]), target))
    assert on_disk == T
