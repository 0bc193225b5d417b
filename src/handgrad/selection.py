"""Which l2 values are tried."""

import logging
import math
from collections.abc import Sequence

from handgrad.data.base import LinearDataModule
from handgrad.errors import InputError
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.runs.results import Row, selected
from handgrad.solvers.centred import CentredProblem
from handgrad.solvers.protocol import Solver

log = logging.getLogger(__name__)
VALUES, DECADES, NULL_GAP = 20, 8, 0.01


def automatic_l2(data: LinearDataModule, model: LinearClassifier, solver: Solver) -> list[float]:
    """Returns 20 l2 values that suit the training set, evenly spaced on a log scale over 8 decades, the largest first.

    At the largest one the classifier without weights, which knows no more than how frequent the classes are, is at most
    1 % from the optimum: its duality gap is ``|G|^2 / (2 l2)``, with G its gradient (see ``Certificate``).

    Args:
        data: is set up, as ``solver`` wants it.
        model: of any l2.

    Raises:
        InputError: no feature tells anything of the classes.
    """
    if solver.one_at_a_time:
        data.serve_whole(VALUES)
    data.setup()
    assert data.train is not None
    problem = CentredProblem(model.objective(), *data.train, data.sample_weight, model.bias.shape[1])
    point = problem.at(problem.start())
    largest = (point.gradient * problem.penalized).square().sum().item() / (2 * NULL_GAP * point.loss)
    if not largest > 1e-30:
        raise InputError("l2=auto: no feature tells anything of the classes; accepted are features that differ")
    step = DECADES / (VALUES - 1)
    return [float(f"{10 ** (math.log10(largest) - step * i):.4g}") for i in range(VALUES)]


def warn_of_edge(rows: Sequence[Row]) -> None:
    """Says where the selected value is the first or the last of those that were tried: a better one may lie beyond."""
    values = sorted(row["l2"] for row in rows)
    if (chosen := selected(rows)["l2"]) in (values[0], values[-1]):
        way = "below" if chosen == values[0] else "above"
        told = "l2=%g is selected, at the edge of those that were tried: a better one may lie %s"
        log.warning(told, chosen, way)
