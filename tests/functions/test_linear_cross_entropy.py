"""Softmax regression on cases that were computed by hand; random ones are in test_contract.py."""

import math

import pytest
import torch
from torch import Tensor

from handgrad.functions.linear_cross_entropy import linear_cross_entropy

LN2 = math.log(2)


def exact(*values, gradient: bool = True) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=gradient)


def close(found: Tensor, expected: list) -> None:
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-15)


def test_one_sample():
    """z = ln 1, ln 2, ln 5, hence p = 1/8, 2/8, 5/8; x = 2."""
    input, bias = exact([2.0]), exact([0.0, 0.0, math.log(5 / 2)])
    weight = exact([[0.0], [LN2 / 2], [LN2 / 2]])
    loss, logits = linear_cross_entropy(input, weight, torch.tensor([2]), bias)
    close(logits, [[[0, LN2, math.log(5)]]])
    close(loss, [math.log(8 / 5)])
    loss.sum().backward()
    close(bias.grad, [[1 / 8, 2 / 8, -3 / 8]])  # p - y
    close(weight.grad, [[[2 / 8], [4 / 8], [-6 / 8]]])  # (p - y) x
    close(input.grad, [[-LN2 / 16]])  # sum of (p - y) w = (2/8 - 3/8) ln(2)/2


def test_the_mean_over_two_samples_and_two_features():
    """z = (0, ln 3) and (ln 3, 0): the loss is the mean of ln 4, where class 0 was wanted, and ln(4/3) twice over."""
    input = exact([1.0, 0.0], [0.0, 1.0])
    weight = exact([[0.0, math.log(3)], [math.log(3), 0.0]])
    loss, _ = linear_cross_entropy(input, weight, torch.tensor([0, 0]))
    close(loss, [(math.log(4) + math.log(4 / 3)) / 2])
    loss.sum().backward()
    close(weight.grad, [[[-3 / 8, -1 / 8], [3 / 8, 1 / 8]]])  # a column per sample: (p - y) / 2
    close(input.grad, [[3 / 8 * math.log(3), -3 / 8 * math.log(3)], [1 / 8 * math.log(3), -1 / 8 * math.log(3)]])


def test_a_weighted_mean():
    """The same with shares of 3/4 and 1/4, and a sample that does not count however wrong it is."""
    input = exact([1.0, 0.0], [0.0, 1.0], [1e3, 0.0])
    weight = exact([[0.0, math.log(3)], [math.log(3), 0.0]])
    shares = exact(6.0, 2.0, 0.0, gradient=False)
    loss, _ = linear_cross_entropy(input, weight, torch.tensor([0, 0, 0]), None, shares)
    close(loss, [0.75 * math.log(4) + 0.25 * math.log(4 / 3)])
    loss.sum().backward()
    close(weight.grad, [[[-9 / 16, -1 / 16], [9 / 16, 1 / 16]]])
    assert input.grad[2].tolist() == [0, 0]


def test_the_gradient_that_arrives_for_each_classifier_scales_its_own():
    """Two classifiers, p = (1/2, 1/2) and (1/4, 3/4); 3 arrives for the first and -2 for the second."""
    input, weight = exact([1.0]), torch.zeros(2, 2, 1, dtype=torch.float64, requires_grad=True)
    bias = exact([0.0, 0.0], [0.0, math.log(3)])
    loss, _ = linear_cross_entropy(input, weight, torch.tensor([0]), bias)
    close(loss, [LN2, math.log(4)])
    loss.backward(exact(3.0, -2.0, gradient=False))
    close(bias.grad, [[-3 / 2, 3 / 2], [3 / 2, -3 / 2]])
    close(weight.grad, [[[-3 / 2], [3 / 2]], [[3 / 2], [-3 / 2]]])


def test_a_gradient_that_arrives_for_the_logits_passes_the_linear_map_alone():
    input, weight = exact([2.0, 3.0]), exact([[1.0, 0.0], [0.0, 1.0]])
    loss, logits = linear_cross_entropy(input, weight, torch.tensor([0]))
    grads = torch.autograd.grad(logits, (input, weight), exact([[5.0, 7.0]], gradient=False), retain_graph=True)
    assert [grad.tolist() for grad in grads] == [[[5, 7]], [[[10, 15], [14, 21]]]]
    ones = torch.ones_like(loss), exact([[5.0, 7.0]], gradient=False)
    (both,) = torch.autograd.grad((loss, logits), weight, ones, retain_graph=True)
    (loss_alone,) = torch.autograd.grad(loss, weight, ones[0])
    close(both, (loss_alone + grads[1]).tolist())


@pytest.mark.parametrize(("target", "loss"), [(0, 0.0), (1, 1000.0), (2, 2000.0)])
def test_extreme_logits_are_exact(target, loss):
    bias = exact([1000.0, 0.0, -1000.0])
    found, _ = linear_cross_entropy(
        torch.zeros(1, 0).double(), torch.zeros(1, 3, 0).double(), torch.tensor([target]), bias
    )
    found.sum().backward()
    assert found.tolist() == [loss]
    y = [float(k == target) for k in range(3)]
    assert bias.grad.tolist() == [[1 - y[0], 0 - y[1], 0 - y[2]]]


def test_a_class_that_is_ruled_out_costs_nothing_unless_it_is_the_one():
    bias = exact([0.0, -math.inf, math.log(3)])
    empty = torch.zeros(1, 0).double(), torch.zeros(1, 3, 0).double()
    loss, _ = linear_cross_entropy(*empty, torch.tensor([0]), bias)
    close(loss, [math.log(4)])
    loss.sum().backward()
    close(bias.grad, [[-3 / 4, 0, 3 / 4]])
    assert linear_cross_entropy(*empty, torch.tensor([1]), bias)[0].item() == math.inf


def test_one_class_is_always_right():
    weight = exact([[7.0]])
    loss, _ = linear_cross_entropy(exact([3.0]), weight, torch.tensor([0]))
    loss.sum().backward()
    assert loss.item() == weight.grad.item() == 0
