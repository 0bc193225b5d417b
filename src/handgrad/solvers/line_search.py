"""How far to go along a direction."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from handgrad.solvers.centred import CentredProblem, Point

DESCENT, SLOPE, TRIALS = 1e-4, 0.9, 30


class Found(NamedTuple):
    """Where a search ended: the point, J's gradient there (K, D + 1), and how much of the step was taken."""

    point: Point
    gradient: Tensor
    size: float


def search(
    problem: CentredProblem,
    l2: float,
    start: Found,
    direction: Tensor,
    noise: float,
    evaluate: Callable[[Tensor], Point],
) -> Found | None:
    """Looks for a point along ``-direction`` where J is lower and its slope flatter; None: none is found.

    A step of 1 is tried first. Where the slope is still steep the next is twice as long; between a point before the
    minimum and one beyond it the secant of the slopes decides: near an optimum differences of J are rounding, slopes
    are not. Conditions: Wolfe's, as in Nocedal and Wright, Numerical Optimization (2006), section 3.1.

    Args:
        noise: of J, relative: a rise by that counts as none.
        evaluate: one pass over the data.
    """
    J, slope = problem.value(start.point, l2), -(start.gradient * direction).sum().item()
    size, low, high = 1.0, (0.0, slope), None
    for _ in range(TRIALS if slope < 0 else 0):
        point = evaluate(start.point.parameters - size * direction)
        gradient = problem.gradient(point, l2)
        here = -(gradient * direction).sum().item()
        too_far = not problem.value(point, l2) <= J + DESCENT * size * slope + noise * abs(J)
        if not too_far and abs(here) <= SLOPE * abs(slope):
            return Found(point, gradient, size)
        if too_far or here > 0:
            high = size, here
        else:
            low = size, here
        size = 2 * size if high is None else between(low, high)
    return None


def between(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Returns where the line through two slopes, each at its size, is 0; the middle where both fall."""
    (a, fall), (b, rise) = low, high
    found = a - fall * (b - a) / (rise - fall) if rise > 0 else (a + b) / 2
    return min(max(found, a + 0.1 * (b - a)), b - 0.1 * (b - a))
