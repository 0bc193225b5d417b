"""Logistic regression on cases that were computed by hand; random ones are in test_contract.py."""

import math

import pytest
import torch
from torch import Tensor

from handgrad.functions.linear_binary_cross_entropy import linear_binary_cross_entropy
from handgrad.functions.linear_cross_entropy import linear_cross_entropy

LN3 = math.log(3)


def exact(*values, gradient: bool = True) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=gradient)


def close(found: Tensor, expected: list) -> None:
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("target", "value", "slope"), [(1, math.log(4 / 3), -1 / 4), (0, math.log(4), 3 / 4)])
def test_one_sample(target, value, slope):
    """z = ln 3, hence p = 3/4; x = (2, -1)."""
    input, weight, bias = exact([2.0, -1.0]), exact([[1.0, 2.0]]), exact([LN3])
    loss, logits = linear_binary_cross_entropy(input, weight, torch.tensor([target]), bias)
    close(logits, [[[LN3]]])
    close(loss, [value])
    loss.sum().backward()
    close(bias.grad, [[slope]])  # p - y
    close(weight.grad, [[[2 * slope, -slope]]])  # (p - y) x
    close(input.grad, [[slope, 2 * slope]])  # (p - y) w


@pytest.mark.parametrize(
    ("shares", "value", "slopes"),
    [
        (None, (math.log(4) + math.log(4 / 3)) / 2, [3 / 8, 1 / 8]),
        ((6.0, 2.0, 0.0), 0.75 * math.log(4) + 0.25 * math.log(4 / 3), [9 / 16, 1 / 16]),
    ],
    ids=["equal", "weighted"],
)
def test_the_mean_over_samples(shares, value, slopes):
    """z = ln 3 and -ln 3, class 0 wanted of both; with weights there is a third sample, which does not count."""
    input = torch.eye(2, dtype=torch.float64)
    if shares:
        input = torch.cat((input, exact([1e3, 0.0], gradient=False)))
        shares = exact(*shares, gradient=False)
    weight = exact([[LN3, -LN3]])
    loss, _ = linear_binary_cross_entropy(input, weight, torch.zeros(len(input), dtype=torch.int64), None, shares)
    close(loss, [value])
    loss.sum().backward()
    close(weight.grad, [[slopes]])


def test_the_gradient_that_arrives_for_each_classifier_scales_its_own():
    """Two classifiers, p = 1/2 and 3/4, class 1 wanted; 3 arrives for the first and -2 for the second."""
    input, weight, bias = exact([1.0]), exact([[0.0]], [[0.0]]), exact([0.0], [LN3])
    loss, _ = linear_binary_cross_entropy(input, weight, torch.tensor([1]), bias)
    close(loss, [math.log(2), math.log(4 / 3)])
    loss.backward(exact(3.0, -2.0, gradient=False))
    close(bias.grad, [[-3 / 2], [1 / 2]])
    close(weight.grad, [[[-3 / 2]], [[1 / 2]]])


def test_a_gradient_that_arrives_for_the_logits_passes_the_linear_map_alone():
    input, weight = exact([2.0, 3.0]), exact([[1.0, -1.0]])
    loss, logits = linear_binary_cross_entropy(input, weight, torch.tensor([0]))
    grads = torch.autograd.grad(logits, (input, weight), exact([[5.0]], gradient=False), retain_graph=True)
    assert [grad.tolist() for grad in grads] == [[[5, -5]], [[[10, 15]]]]
    ones = torch.ones_like(loss), exact([[5.0]], gradient=False)
    (both,) = torch.autograd.grad((loss, logits), weight, ones, retain_graph=True)
    (loss_alone,) = torch.autograd.grad(loss, weight, ones[0])
    close(both, (loss_alone + grads[1]).tolist())


def test_two_labels_of_one_sample():
    """z = ln 3 and 0, the first label wanted and the second not: losses and gradients stand side by side."""
    input, weight, bias = exact([2.0]), exact([[0.0], [1.0]]), exact([LN3, -2.0])
    loss, logits = linear_binary_cross_entropy(input, weight, torch.tensor([[1, 0]]), bias)
    close(logits, [[[LN3, 0.0]]])
    close(loss, [math.log(4 / 3) + math.log(2)])
    loss.sum().backward()
    close(bias.grad, [[-1 / 4, 1 / 2]])
    close(weight.grad, [[[-1 / 2], [1.0]]])
    close(input.grad, [[1 / 2]])  # the first label's weight is 0


def test_labels_are_classifiers_of_one_label_each():
    generator = torch.Generator().manual_seed(0)
    input, weight = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((6, 4), (2, 3, 4)))
    target = torch.randint(0, 2, (6, 3), generator=generator)
    together, logits = linear_binary_cross_entropy(input, weight, target)
    alone = [linear_binary_cross_entropy(input, weight[:, k : k + 1], target[:, k]) for k in range(3)]
    close(together, sum(loss for loss, _ in alone).tolist())
    close(logits, torch.cat([z for _, z in alone], 2).tolist())


def by_bias(logit: float, target: int) -> tuple[float, float]:
    """Returns the loss of a logit, and its derivative."""
    bias = exact([logit])
    empty = torch.zeros(1, 0, dtype=torch.float64), torch.zeros(1, 1, 0, dtype=torch.float64)
    loss, _ = linear_binary_cross_entropy(*empty, torch.tensor([target]), bias)
    loss.sum().backward()
    return loss.item(), bias.grad.item()


def test_extreme_logits_are_exact():
    assert by_bias(1000.0, 1) == by_bias(-1000.0, 0) == (0, 0)
    assert by_bias(1000.0, 0) == (1000, 1)
    assert by_bias(-1000.0, 1) == (1000, -1)
    assert by_bias(0.0, 0) == (pytest.approx(math.log(2), rel=1e-15), 0.5)


@pytest.mark.parametrize("logit", [20.5, 25.0, 36.0, 49.0, 51.0, 700.0])
def test_a_far_logit_keeps_the_last_bit_of_its_loss(logit):
    """torch's own softplus would return the logit itself from 20 on; and p - 1 would be 0 from 37 on."""
    wrong, right = by_bias(logit, 0), by_bias(logit, 1)
    small = math.exp(-logit)
    last_bit = {"rel": 3e-16, "abs": 0}
    assert wrong == (pytest.approx(logit + math.log1p(small), **last_bit), pytest.approx(1 / (1 + small), **last_bit))
    exactly = {"rel": 1e-14, "abs": 0}
    assert right == (pytest.approx(math.log1p(small), **exactly), pytest.approx(-small / (1 + small), **exactly))


def test_it_is_the_softmax_of_two_logits_one_of_them_zero():
    generator = torch.Generator().manual_seed(0)
    input, weight = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((6, 4), (3, 1, 4)))
    target = torch.tensor([0, 1, 1, 0, 1, 0])
    one = weight.clone().requires_grad_()
    two = torch.cat((torch.zeros_like(weight), weight), 1).requires_grad_()
    binary, softmax = linear_binary_cross_entropy(input, one, target)[0], linear_cross_entropy(input, two, target)[0]
    close(binary, softmax.tolist())
    binary.sum().backward()
    softmax.sum().backward()
    close(two.grad[:, 1:], one.grad.tolist())
    close(two.grad[:, :1], (-one.grad).tolist())
