"""Which l2 values suit the data, and where the choice among them says little."""

import pytest
import torch

from handgrad.data.base import LinearDataModule
from handgrad.errors import InputError
from handgrad.fit import automatic_l2
from handgrad.metrics import METRICS, Score
from handgrad.models.logistic_regression import LogisticRegression
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.selection import RULES, Selection, automatic_values, warn_of_edge
from handgrad.solvers.centred import CentredProblem
from handgrad.solvers.certificate import certified_weights
from handgrad.solvers.exact import Exact
from handgrad.solvers.sgd import SGD


class Made(LinearDataModule):
    """100 samples of as many classes as are asked for, features of a given size."""

    num_features = 4

    def __init__(self, classes: int, size: float) -> None:
        super().__init__(shuffle=True, batch_size=10, seed=0, epochs=3)
        self.classes, self.size = list(range(classes)), size

    def read(self):
        generator = torch.Generator().manual_seed(0)
        y = torch.arange(100) % len(self.classes)
        x = torch.randn(100, 4, generator=generator) + torch.nn.functional.one_hot(y, 4)
        return {"train": (self.size * x, y), "val": (self.size * x[:20], y[:20])}


@pytest.mark.parametrize("penalize_bias", [False, True])
@pytest.mark.parametrize(("model", "classes"), [(SoftmaxRegression, 3), (LogisticRegression, 2)])
def test_at_the_largest_the_null_model_is_one_percent_from_the_optimum(model, classes, penalize_bias):
    data = Made(classes, size=3.0)
    found = model(num_features=4, num_classes=classes, l2=[1.0], penalize_bias=penalize_bias)
    values = automatic_l2(data, found, SGD(lr=0.1))
    assert len(values) == 20
    assert values[0] / values[-1] == pytest.approx(1e8, rel=1e-3)
    assert values == sorted(values, reverse=True)
    assert data.batches == 10, "the data are ready for the solver"
    found = model(num_features=4, num_classes=classes, l2=values[:1], penalize_bias=penalize_bias)
    (proof,) = certified_weights(found.objective(), found.weight.detach(), found.bias.detach(), *data.train)
    start = certified_weights(found.objective(), *start_of(found, data), *data.train)[0]
    assert start.gap == pytest.approx(0.01, rel=1e-3)
    assert proof.gap >= 0.009, "with a bias of 0 it is no nearer"


def start_of(model, data) -> tuple[torch.Tensor, torch.Tensor]:
    shares = data.train[1].bincount().double() / len(data.train[1])
    logs = shares.log()[None] if model.bias.shape[1] > 1 else (shares[1] / shares[0]).log()[None, None]
    return model.weight.detach().double(), torch.zeros_like(logs) if model.penalize_bias else logs


def test_they_follow_from_the_problem_alone():
    data, model = Made(3, size=3.0), SoftmaxRegression(num_features=4, num_classes=3, l2=[1.0])
    found = automatic_l2(data, model, Exact(1e-6, 10))
    assert automatic_values(CentredProblem(model.objective(), *data.train, None, 3)) == found
    assert data.batches == 20, "an update for each of the values"


def test_values_follow_the_size_of_the_features():
    values = [
        automatic_l2(Made(3, size), SoftmaxRegression(num_features=4, num_classes=3, l2=[1]), Exact(1e-6, 10))[0]
        for size in (1.0, 10.0)
    ]
    assert values[1] / values[0] == pytest.approx(100, rel=1e-3)


def test_features_that_tell_nothing_are_refused():
    with pytest.raises(InputError, match=r"^l2=auto: no feature tells anything of the classes"):
        automatic_l2(Made(3, size=0.0), SoftmaxRegression(num_features=4, num_classes=3, l2=[1]), SGD(lr=0.1))


@pytest.mark.parametrize(("best", "told"), [(0, "above"), (2, "below"), (1, None)])
def test_a_choice_at_the_edge_is_told(best, told, caplog):
    values = [1.0, 0.1, 0.01]
    warn_of_edge(values, values[best])
    if told is None:
        assert not caplog.messages
    else:
        assert caplog.messages == [
            f"l2={values[best]:g} is selected, at the edge of those that were tried: a better one may lie {told}"
        ]


# --- which one is chosen ----------------------------------------------------------------------------------------------

L2 = [0.1, 10.0, 1.0, 0.0]


def scores(*values: float, error: float = 0.05) -> list[Score]:
    return [Score(value, error) for value in values]


@pytest.mark.parametrize("metric", METRICS)
def test_the_best_is_chosen_and_of_equal_ones_the_larger_l2(metric):
    selection, sign = Selection(metric, "best"), -1 if metric == "loss" else 1
    assert selection.choose(L2, scores(*(sign * value for value in (0.5, 0.4, 0.7, 0.6)))) == 2
    assert selection.choose(L2, scores(*(sign * value for value in (0.7, 0.4, 0.6, 0.7)))) == 0
    assert selection.choose(L2, scores(*(sign * value for value in (0.7, 0.7, 0.7, 0.7)))) == 1
    assert selection.choose([1.0], scores(0.3)) == 0


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ((0.70, 0.66, 0.69, 0.60), 1),  # the largest l2, 0.04 below the best, is within 0.05
        ((0.70, 0.64, 0.66, 0.60), 2),
        ((0.70, 0.64, 0.64, 0.69), 0),
        ((0.70, 0.65, 0.60, 0.60), 1),  # just one standard error
        ((0.50, 0.50, 0.50, 0.70), 3),
    ],
)
def test_one_standard_error_from_the_best_the_largest_l2_is_chosen(metric, values, chosen):
    sign = -1 if metric == "loss" else 1
    assert Selection(metric, "one_standard_error").choose(L2, scores(*(sign * value for value in values))) == chosen


def test_it_is_the_error_of_the_best_that_counts():
    found = [Score(0.7, 0.01), Score(0.65, 1.0), Score(0.695, 1.0), Score(0.6, 1.0)]
    assert Selection("accuracy", "one_standard_error").choose(L2, found) == 2
    found[0] = Score(0.7, float("nan"))  # of a single sample
    assert Selection("accuracy", "one_standard_error").choose(L2, found) == 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("metric", ["loss", "auroc"])
def test_what_is_not_defined_is_chosen_last(metric, rule):
    nan = float("nan")
    assert Selection(metric, rule).choose(L2, scores(nan, nan, 0.5, nan)) == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("f1", "best"), "select.metric=f1: accepted is one of loss, accuracy, mean_per_class, f1_macro, auroc"),
        (("loss", "one_se"), "select.rule=one_se: accepted is one of best, one_standard_error"),
    ],
)
def test_other_words_are_refused(arguments, line):
    with pytest.raises(InputError, match=f"^{line}"):
        Selection(*arguments)


def test_it_tells_how():
    assert Selection("loss", "best").told == "by its validation loss"
    told = "by its validation f1 macro: the largest l2 within one standard error of the best"
    assert Selection("f1_macro", "one_standard_error").told == told
