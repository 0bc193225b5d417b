"""Logistic regression: one output, the logit of class 1."""

import pytest
import torch

from handgrad.errors import InputError
from handgrad.functions.objective import LOGISTIC
from handgrad.models.logistic_regression import LogisticRegression


def test_one_output_for_two_classes():
    assert LogisticRegression.num_outputs(2) == 1
    model = LogisticRegression(num_features=7, num_classes=2, l2=[0, 1, 2])
    assert model.weight.shape == (3, 1, 7)
    assert model.bias.shape == (3, 1)
    assert model(torch.ones(4, 7)).shape == (3, 4, 1)


@pytest.mark.parametrize("classes", [1, 3, 10])
def test_other_numbers_of_classes_are_refused_in_one_line(classes):
    with pytest.raises(InputError, match=rf"^task=logistic: {classes} classes; accepted are exactly 2, or"):
        LogisticRegression(num_features=7, num_classes=classes, l2=[0])


def test_it_is_the_logistic_task():
    assert LogisticRegression.task == "logistic"
    assert LogisticRegression.criterion is LOGISTIC


def test_class_1_is_where_its_probability_exceeds_a_half():
    logits = torch.tensor([[[-2.0], [0], [1e-30]], [[3], [-1e-30], [torch.inf]]])
    decided = LogisticRegression.decide(logits)
    assert decided.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert decided.dtype == torch.int64
    logits = torch.randn(3, 50, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(LogisticRegression.decide(logits), (torch.sigmoid(logits[:, :, 0]) > 0.5).long())


def test_forward_and_decision_of_known_weights():
    """Class 1 lies above the line x + y = 1."""
    model = LogisticRegression(num_features=2, num_classes=2, l2=[0])
    model.weight.data[0] = torch.tensor([[1.0, 1]])
    model.bias.data[0] = -1
    points = torch.tensor([[0.0, 0], [1, 1], [2, -0.5], [0.25, 0.5]])
    assert model(points).flatten().tolist() == [-1, 1, 0.5, -0.25]
    assert model.decide(model(points)).tolist() == [[0, 1, 1, 0]]
