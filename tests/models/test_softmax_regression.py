"""Softmax regression: an output for each class, the largest wins."""

import pytest
import torch

from handgrad.functions.objective import SOFTMAX
from handgrad.models.softmax_regression import SoftmaxRegression


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_an_output_for_each_class(classes):
    assert SoftmaxRegression.num_outputs(classes) == classes
    model = SoftmaxRegression(num_features=7, num_classes=classes, l2=[0, 1])
    assert model.weight.shape == (2, classes, 7)
    assert model.bias.shape == (2, classes)
    assert model(torch.ones(4, 7)).shape == (2, 4, classes)


def test_it_is_the_softmax_task():
    assert SoftmaxRegression.task == "softmax"
    assert SoftmaxRegression.criterion is SOFTMAX


def test_the_largest_logit_wins():
    logits = torch.tensor([[[0.0, 2, 1], [-1, -3, -2]], [[5, 5.5, 6], [1, 2, 1]]])
    assert SoftmaxRegression.decide(logits).tolist() == [[1, 0], [2, 1]]
    logits = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0))
    decided = SoftmaxRegression.decide(logits.transpose(1, 2).contiguous().transpose(1, 2))  # as forward lays them out
    assert torch.equal(decided, torch.softmax(logits, 2).argmax(2))
    assert decided.dtype == torch.int64


def test_forward_and_decision_of_known_weights():
    """Class k is the sign and the axis that a point lies along."""
    model = SoftmaxRegression(num_features=2, num_classes=4, l2=[0])
    model.weight.data[0] = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    points = torch.tensor([[3.0, 1], [-3, 1], [1, 3], [1, -3]])
    assert model.decide(model(points)).tolist() == [[0, 1, 2, 3]]
    model.bias.data[0, 3] = 10
    assert model.decide(model(points)).tolist() == [[3, 3, 3, 3]]
