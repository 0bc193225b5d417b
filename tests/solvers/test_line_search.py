"""Steps end where J is lower and flatter; where none does, none is taken."""

from types import SimpleNamespace

import pytest
import torch

from handgrad.solvers.line_search import SLOPE, Found, between, search


class Along:
    """A function of one number, as the search asks for it."""

    def __init__(self, function) -> None:
        self.function, self.asked = function, 0

    def at(self, parameters):
        self.asked += 1
        x = parameters.clone().requires_grad_()
        value = self.function(x).sum()
        (gradient,) = torch.autograd.grad(value, x)
        return SimpleNamespace(parameters=parameters, loss=value.item(), gradient=gradient)

    def value(self, point, l2):
        return point.loss

    def gradient(self, point, l2):
        return point.gradient

    def found(self, start: float, direction: float) -> Found | None:
        point = self.at(torch.tensor([[start]], dtype=torch.float64))
        self.asked = 0
        step = torch.tensor([[direction]], dtype=torch.float64)
        return search(self, 0.0, Found(point, point.gradient, 0.0), step, 0.0, self.at)


@pytest.mark.parametrize("direction", [1.0, 0.5, 1e-3, 30.0, 2000.0])
def test_on_a_parabola_it_ends_near_the_minimum(direction):
    along = Along(lambda x: (x - 3) ** 2 / 2)
    found = along.found(4.0, direction)
    assert found is not None
    assert abs(found.point.parameters.item() - 3) <= SLOPE
    assert found.size * direction == pytest.approx(4 - found.point.parameters.item())
    assert found.gradient.item() == pytest.approx(found.point.parameters.item() - 3)


def test_a_step_of_one_is_tried_first_and_taken_if_it_is_good():
    along = Along(lambda x: x**2 / 2)
    found = along.found(1.0, 1.2)
    assert found is not None
    assert (found.size, along.asked) == (1.0, 1)


def test_what_overflows_is_too_far():
    found = Along(lambda x: torch.exp(x) + torch.exp(-x)).found(1.0, 1e4)
    assert found is not None
    assert abs(found.point.parameters.item()) < 1.0


def test_a_direction_that_does_not_fall_is_refused_at_once():
    along = Along(lambda x: x**2 / 2)
    assert along.found(1.0, -1.0) is None
    assert along.asked == 0


def test_the_secant_stays_within_the_bracket():
    assert between((0.0, -1.0), (1.0, 1.0)) == 0.5
    assert between((0.0, -1.0), (1.0, 1e9)) == pytest.approx(0.1)
    assert between((0.0, -1.0), (1.0, -0.5)) == 0.5
