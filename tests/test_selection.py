"""Which l2 values suit the data, and where the choice among them says little."""

import pytest
import torch

from handgrad.data.base import LinearDataModule
from handgrad.errors import InputError
from handgrad.models.logistic_regression import LogisticRegression
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.selection import automatic_l2, warn_of_edge
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
    rows = [{"l2": l2, "val_loss": 1.0 - (i == best)} for i, l2 in enumerate((1.0, 0.1, 0.01))]
    warn_of_edge(rows)
    if told is None:
        assert not caplog.messages
    else:
        assert caplog.messages == [
            f"l2={rows[best]['l2']:g} is selected, at the edge of those that were tried: a better one may lie {told}"
        ]
