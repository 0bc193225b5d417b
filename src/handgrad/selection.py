"""Which l2 values are tried, and which of them is chosen."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from handgrad.errors import InputError, nearest
from handgrad.metrics import LOWER_IS_BETTER, METRICS, Score
from handgrad.solvers.centred import CentredProblem

log = logging.getLogger(__name__)
VALUES, DECADES, NULL_GAP = 20, 8, 0.01
ROUNDING = 1e-9
SUMS = 1e-12  # of the features' length: what rounding may leave of a gradient that is 0
RULES = ("best", "one_standard_error")


@dataclass(frozen=True)
class Selection:
    """How one l2 value is chosen by what its classifier gives on the validation set.

    Args:
        metric: of ``handgrad.metrics.METRICS``.
        rule: ``best``, or ``one_standard_error``: the largest l2 whose metric is at most one standard error, that of
            the best, worse than the best (Breiman et al. 1984; of a metric that is no mean, see ``handgrad.metrics``).
        refit: whether the chosen l2 is fitted once more on the training and the validation set together.

    Raises:
        InputError: an argument is not as described.
    """

    metric: str
    rule: str
    refit: bool = False

    def __post_init__(self) -> None:
        for name, accepted in (("metric", METRICS), ("rule", RULES)):
            if (found := getattr(self, name)) not in accepted:
                hint = nearest(str(found), accepted)
                raise InputError(f"select.{name}={found}: accepted is one of {', '.join(accepted)}{hint}")

    def choose(self, l2: Sequence[float], scores: Sequence[Score]) -> int:
        """Returns the index of the value that is chosen: of equal ones the larger, what is not defined last of all.

        Args:
            l2: the values; ``scores``: what each gives, by ``metric``.
        """
        sign = -1 if self.metric in LOWER_IS_BETTER else 1
        worth = [-math.inf if math.isnan(score.value) else sign * score.value for score in scores]
        best = max(range(len(l2)), key=lambda i: (worth[i], l2[i]))
        if self.rule == "best" or not math.isfinite(error := scores[best].standard_error):
            return best
        least = worth[best] - error * (1 + ROUNDING)  # accuracies of few samples differ by just that
        return max((i for i in range(len(l2)) if worth[i] >= least), key=lambda i: l2[i])

    @property
    def told(self) -> str:
        """How it was chosen, in words that follow 'selected'."""
        name = self.metric.replace("_", " ")
        within = ": the largest l2 within one standard error of the best" if self.rule != "best" else ""
        return f"by its validation {name}{within}"


def automatic_values(problem: CentredProblem) -> list[float]:
    """Returns 20 l2 values that suit a training set, evenly spaced on a log scale over 8 decades, the largest first.

    At the largest one the classifier without weights, which knows no more than how frequent the classes are, is at most
    1 % from the optimum: its duality gap is ``|G|^2 / (2 l2)``, with G its gradient (see ``Certificate``).

    Raises:
        InputError: no feature tells anything of the classes.
    """
    point = problem.null_model()
    squares = (point.gradient * problem.penalized).square().sum().item()
    if not squares > SUMS**2 * problem.mean_square:
        raise InputError("l2=auto: no feature tells anything of the classes; accepted are features that differ")
    largest = squares / (2 * NULL_GAP * point.loss)
    step = DECADES / (VALUES - 1)
    return [float(f"{10 ** (math.log10(largest) - step * i):.4g}") for i in range(VALUES)]


def edge(values: Sequence[float], chosen: float) -> str:
    """Says where the chosen value is the first or the last of those that were tried: a better one may lie beyond."""
    if chosen not in (min(values), max(values)):
        return ""
    way = "below" if chosen == min(values) else "above"
    return f"l2={chosen:g} is selected, at the edge of those that were tried: a better one may lie {way}"


def warn_of_edge(values: Sequence[float], chosen: float) -> None:
    """Logs what ``edge`` says."""
    if told := edge(values, chosen):
        log.warning(told)
