"""Numbers get the name of the mistake that gives them; of several that do, all; of none, none."""

import pytest
import torch

from handgrad.diagnosis.mistakes import (
    Sizes,
    explained,
    factor_text,
    factors_between,
    gradient_of_losses,
    named,
)
from handgrad.functions.objective import MULTILABEL, SOFTMAX

SIZES = Sizes(samples=20, outputs=5, classifiers=3)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


RIGHT = normal(3, 5, 4)
AXES = ("classifier", "class", "feature")


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (2, "twice what it should be"),
        (-1, "the sign is wrong"),
        (-2, "twice what it should be, and the sign is wrong"),
        (20, "the 1/N is missing (20 times what it should be)"),
        (1 / 20, "divided by N once too often (0.05 times what it should be)"),
        (20 / 19, "divided by N - 1 in place of N (1.052631579 times what it should be)"),
        (1 / 5, "divided by K, the number of classes (0.2 times what it should be)"),
        (1.5, "1.5 times what it should be"),
        (-1.5, "1.5 times what it should be, and the sign is wrong"),
        (1 + 1e-7, "1.0000001 times what it should be"),
    ],
)
def test_factors_have_names(factor, text):
    assert factor_text(factor, SIZES) == text
    assert named(factor * RIGHT, RIGHT, SIZES) == text


def test_where_sizes_coincide_both_names_are_told():
    assert factor_text(2, SIZES._replace(samples=2)) == "twice what it should be or the 1/N is missing"


def wrong(found: torch.Tensor, guesses=()) -> str:
    return explained(found, RIGHT, SIZES, lambda: iter(guesses), AXES)


def test_a_guess_is_told_where_its_numbers_are_found_and_nowhere_else():
    one, other = ("this", normal(3, 5, 4, seed=1)), ("that", normal(3, 5, 4, seed=2))
    assert wrong(one[1], [one, other]) == "this"
    assert wrong(one[1], [one, ("too", one[1]), other]) == "this or too"
    assert wrong(-one[1], [one, other]) == "this, and the sign is wrong"
    assert wrong(1.5 * one[1], [one, other]) == "wrong, by no constant ratio"
    assert wrong(one[1] + 1e-6 * RIGHT, [one, other]) == "wrong, by no constant ratio"


def test_what_is_wrong_in_a_part_is_told_with_the_part():
    found = RIGHT.clone()
    found[1, :, 2] *= 2
    assert wrong(found) == "twice what it should be in classifier 1, feature 2 alone"
    found[1, :, 2] = normal(5)
    assert wrong(found) == "wrong, by no constant ratio in classifier 1, feature 2 alone"
    found = RIGHT.clone()
    found[:, [0, 2, 4]] *= 0
    assert wrong(found) == "zero in 3 of 5 classes alone"


def test_other_orders_are_named():
    assert wrong(RIGHT[:, [3, 1, 2, 0, 4]]) == "classes 0 and 3 are swapped"
    assert wrong(RIGHT.flip(2)) == "the order of the features is reversed"
    assert wrong(RIGHT.roll(-1, 1)) == "the classes are shifted by one"


def test_of_one_number_only_factors_with_a_name_are_told():
    """It is some multiple of any other."""
    one = torch.tensor([3.0])
    assert named(2 * one, one, SIZES) == "twice what it should be"
    assert named(1.7 * one, one, SIZES) is None


def test_what_should_be_zero_and_what_is_no_number():
    zero = torch.zeros_like(RIGHT)
    assert explained(RIGHT, zero, SIZES, tuple, AXES) == "not zero, as it should be"
    assert wrong(zero) == "zero"
    assert wrong(RIGHT / 0) == "not a number in 60 of 60"


def test_both_parts_of_a_sum_are_found():
    one, other = normal(40, seed=1), 1e-6 * normal(40, seed=2)
    assert factors_between(3 * one - other, one, other) == pytest.approx((3, -1))
    assert factors_between(one + other.square(), one, other) is None
    assert factors_between(one[:2], other[:2], normal(2)) is None, "two numbers are some sum of any"


@pytest.mark.parametrize("loss", [SOFTMAX, MULTILABEL])
def test_the_gradient_of_the_losses_is_p_minus_y(loss):
    z, target = normal(2, 4, 6), torch.arange(6) % 4
    p = z.softmax(1) if loss is SOFTMAX else z.sigmoid()
    y = torch.nn.functional.one_hot(target, 4).t()
    found = gradient_of_losses(loss, z, target if loss is SOFTMAX else y.t())
    assert torch.allclose(found, p - y, rtol=0, atol=1e-14)
