"""The chosen classifier: by any metric, refitted or not, on raw features; and that the test set has no say."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Theirs

from handgrad import metrics
from handgrad.callbacks.figures import pictures
from handgrad.classifier import Classifier
from handgrad.data.features import FeatureDataModule
from handgrad.errors import InputError
from handgrad.fit import fit
from handgrad.models.logistic_regression import LogisticRegression
from handgrad.models.multilabel_regression import MultilabelRegression
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.selection import Selection
from handgrad.solvers.exact import Exact
from handgrad.solvers.sgd import SGD
from tests.data.test_base import Clouds, clouds

L2 = (1.0, 0.1, 0.01, 0.001)
EXACT = Exact(1e-8, 200)


def fitted(metric="loss", rule="best", refit=False, *, data=None, l2=L2, solver=EXACT, model=SoftmaxRegression, **how):
    """Fits a path to the clouds, exactly if not told otherwise."""
    data = data or clouds()
    model = model(num_features=data.num_features, num_classes=data.num_classes, l2=l2)
    select = Selection(metric, rule, refit)
    return fit(data, model, solver, select=select, threads=1, accelerator="cpu", **how)


def logits(result, entry, input):
    return input.double() @ result.model.best_weight[entry].double().t() + result.model.best_bias[entry].double()


@pytest.mark.parametrize("metric", metrics.METRICS)
def test_each_metric_stands_in_the_rows_and_its_best_is_selected(metric):
    data = clouds()
    result = fitted(metric, data=data)
    input, target = data.val
    for entry, row in enumerate(result.rows):
        z = logits(result, entry, input)
        assert row[f"val_{metric}"] == pytest.approx(getattr(metrics, metric)(z, target), rel=1e-6)
        expected = metrics.score(metric, metrics.outcome(z, target)).standard_error
        assert row[f"val_{metric}_se"] == pytest.approx(expected, rel=1e-6)
    best = (min if metric == "loss" else max)(row[f"val_{metric}"] for row in result.rows)
    assert result.selected[f"val_{metric}"] == best
    assert [row["selected"] for row in result.rows].count("true") == 1
    assert result.rows[result.chosen.entry] is result.selected


def test_one_standard_error_prefers_a_larger_l2():
    best, larger = fitted("accuracy"), fitted("accuracy", "one_standard_error")
    assert larger.selected["l2"] > best.selected["l2"]
    least = best.selected["val_accuracy"] - best.selected["val_accuracy_se"]
    assert larger.selected["val_accuracy"] >= least - 1e-9


def test_the_test_set_has_no_say():
    data = clouds()
    data.setup()
    ours = fitted("accuracy", refit=True, data=data)
    other = clouds()
    other.setup()
    other.test = (-other.test[0], other.test[1])
    theirs = fitted("accuracy", refit=True, data=other)
    assert ours.chosen.entry == theirs.chosen.entry
    assert torch.equal(ours.chosen.weight, theirs.chosen.weight)
    assert ours.selected["temperature"] == theirs.selected["temperature"]
    assert ours.selected["refit_test_accuracy"] != theirs.selected["refit_test_accuracy"]


def test_the_refit_is_scikit_learns_on_both_sets():
    data = clouds()
    result = fitted(refit=True, data=data)
    row, both = result.selected, [torch.cat((data.train[i], data.val[i])).numpy() for i in range(2)]
    theirs = Theirs(C=1 / (row["l2"] * 260), tol=1e-9, max_iter=1000).fit(*both)
    assert row["refit_C"] == pytest.approx(1 / (row["l2"] * 260))
    centred = result.chosen.bias - result.chosen.bias.mean()
    assert result.chosen.weight.numpy() == pytest.approx(theirs.coef_, abs=1e-4)
    assert centred.numpy() == pytest.approx(theirs.intercept_ - theirs.intercept_.mean(), abs=1e-4)
    assert row["refit_converged"] == "true"
    assert 0 < row["refit_gap"] <= 1e-8
    z = data.test[0].double() @ result.chosen.weight.t() + result.chosen.bias
    assert row["refit_test_loss"] == pytest.approx(metrics.loss(z, data.test[1]), rel=1e-9)
    assert row["refit_test_accuracy"] == pytest.approx(metrics.accuracy(z, data.test[1]))
    assert row["refit_weight_norm_squared"] == pytest.approx(result.chosen.weight.square().sum().item())
    assert [other["refit_objective"] for other in result.rows if other is not row] == [None] * 3
    assert torch.equal(result.chosen.report.confusion, metrics.confusion_matrix(metrics.decide(z), data.test[1], 3))
    before = logits(result, result.chosen.entry, data.val[0])
    assert row["temperature"] == pytest.approx(metrics.fit_temperature(before, data.val[1]), rel=1e-6)
    ece = metrics.expected_calibration_error(z / row["temperature"], data.test[1])
    assert row["test_ece_scaled"] == pytest.approx(ece, rel=1e-6)


def test_the_refit_leaves_the_path_as_it_was():
    without, refitted = fitted(), fitted(refit=True)
    assert torch.equal(without.model.best_weight, refitted.model.best_weight)
    assert [row["test_loss"] for row in without.rows] == [row["test_loss"] for row in refitted.rows]
    assert torch.equal(without.chosen.weight, without.model.best_weight[without.chosen.entry])
    assert without.selected["refit_objective"] is None


def test_without_a_test_set_the_report_is_of_the_validation_set_before_the_refit():
    data = clouds(("train", "val"))
    result = fitted(refit=True, data=data)
    row, z = result.selected, logits(result, result.chosen.entry, data.val[0])
    assert result.chosen.report.split == "val"
    assert torch.equal(result.chosen.report.confusion, metrics.confusion_matrix(metrics.decide(z), data.val[1], 3))
    assert row["val_ece"] == pytest.approx(metrics.expected_calibration_error(z, data.val[1]), rel=1e-6)
    assert row["test_ece"] is row["refit_test_loss"] is None
    assert row["refit_objective"] > 0


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("normalize", ["none", "standardize"])
def test_the_chosen_weights_are_for_raw_features(normalize, refit, tmp_path):
    generator = np.random.default_rng(0)
    x, y = generator.normal(5, 3, (120, 4)), np.arange(120) % 2
    x[:, 0] += 3 * y
    np.savez(tmp_path / "train.npz", x=x, y=y)
    np.savez(tmp_path / "test.npz", x=x[:30] + 0.1, y=y[:30])
    shared = dict(holdout=0.25, normalize=normalize, shuffle=True, batch_size=1, seed=0, epochs=1)
    data = FeatureDataModule(train=tmp_path / "train.npz", test=tmp_path / "test.npz", **shared)
    result = fitted(data=data, model=LogisticRegression, refit=refit)
    z = torch.from_numpy(x[:30] + 0.1) @ result.chosen.weight.t() + result.chosen.bias
    name = "refit_test_loss" if refit else "test_loss"
    assert result.selected[name] == pytest.approx(metrics.loss(z, torch.from_numpy(y[:30])), rel=1e-9)


def test_what_can_not_be_chosen_so_is_refused_before_training():
    data = clouds()
    with pytest.raises(
        InputError, match=r"^select.refit=true: accepted with optimizer=exact; others stop by the valid"
    ):
        fitted(refit=True, solver=SGD(lr=0.1), data=data)
    assert data.reads == 0
    data.setup()
    data.val[1][:] = 1
    with pytest.raises(InputError, match=r"^select.metric=auroc: no sample of class left, top in the validation set;"):
        fitted("auroc", data=data)


def test_sgd_chooses_by_any_metric_and_keeps_its_best_weights_by_the_loss():
    by_loss, by_accuracy = (fitted(metric, solver=SGD(lr=0.1)) for metric in ("loss", "accuracy"))
    assert torch.equal(by_loss.model.best_weight, by_accuracy.model.best_weight)
    assert by_accuracy.selected["val_accuracy"] == max(row["val_accuracy"] for row in by_accuracy.rows)
    assert by_accuracy.chosen.weight.shape == (3, 2)


class Labels(Clouds):
    """The clouds with two labels a sample: whether it lies right, and whether it lies high."""

    classes = ("right", "high")
    multilabel = True

    def read(self):
        sets = super().read().items()
        return {name: (x, torch.stack((x[:, 0] > y / 5, x[:, 1] > y / 2), 1).long()) for name, (x, y) in sets}


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_of_several_labels_the_loss_or_the_whole_samples_choose(metric):
    data = Labels(shuffle=False, batch_size=8, seed=0, epochs=1)
    result = fitted(metric, refit=True, data=data, model=MultilabelRegression)
    row, (input, target) = result.selected, data.test
    best = (min if metric == "loss" else max)(row[f"val_{metric}"] for row in result.rows)
    assert row[f"val_{metric}"] == best
    z = input.double() @ result.chosen.weight.t() + result.chosen.bias
    assert row["refit_test_accuracy"] == pytest.approx(((z > 0) == target).all(1).double().mean().item())
    assert row["refit_test_loss"] == pytest.approx(
        torch.nn.functional.binary_cross_entropy_with_logits(z, target.double(), reduction="none").sum(1).mean().item()
    )
    right = ((logits(result, result.chosen.entry, data.val[0]) > 0) == data.val[1]).all(1).double()
    if metric == "accuracy":
        assert row["val_accuracy_se"] == pytest.approx(right.std().item() / 60**0.5)
    assert (row["temperature"], result.chosen.report.confusion) == (None, None)
    assert pictures(result.chosen, L2, data.classes).keys() == {"validation_curve"}


def test_of_several_labels_other_metrics_are_refused():
    data = Labels(shuffle=False, batch_size=8, seed=0, epochs=1)
    with pytest.raises(InputError, match=r"^select.metric=auroc: accepted of several labels is one of loss, accuracy$"):
        fitted("auroc", data=data, model=MultilabelRegression)


@pytest.mark.parametrize("refit", [False, True])
def test_the_saved_classifier_is_the_chosen_one(refit, tmp_path):
    result = fitted(refit=refit, folder=tmp_path)
    saved, row = Classifier.load(tmp_path / "model.safetensors"), result.selected
    assert torch.equal(saved.weight, result.chosen.weight)
    assert (saved.gap, saved.C) == ((row["refit_gap"], row["refit_C"]) if refit else (row["gap"], row["C"]))
    name = "refit_test_loss" if refit else "test_loss"
    assert saved.measures[name] == row[name]
