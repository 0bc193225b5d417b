"""A refit goes on from the chosen solution, and counts weights as the training does."""

from types import SimpleNamespace

import pytest
import torch

from handgrad.functions.objective import in_turn
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.solvers.exact import Exact
from handgrad.solvers.solve import WholeSet, solve
from handgrad.training.refit import refit
from tests.data.test_base import clouds

EXACT = Exact(1e-10, 200)


def solved(data, weight=None):
    """A model of two entries whose second one is solved on the training set."""
    model = SoftmaxRegression(num_features=2, num_classes=3, l2=[1.0, 0.01]).double()
    model.pipeline = SimpleNamespace(run=in_turn)
    start = model.weight.detach(), model.bias.detach()
    state = solve(EXACT, model.objective(), *start, [WholeSet(*data.train, weight)] * 2).state
    model.best_weight, model.best_bias = state.weight, state.bias
    return model


@pytest.fixture
def data():
    found = clouds()
    found.setup()
    return found


def test_it_is_the_optimum_of_both_sets_and_begins_at_the_chosen_one(data):
    model = solved(data)
    found = refit(model, data, EXACT, 1)
    assert found.samples == 260
    assert found.proof["gap"] <= 1e-10
    both = [torch.cat((data.train[i], data.val[i])) for i in range(2)]
    weight, bias = found.weight[None], found.bias[None]
    objective = SoftmaxRegression(num_features=2, num_classes=3, l2=[0.01]).double().objective()
    _, dweight, dbias = objective.gradient(weight, bias, both[0].double(), both[1])
    assert max(dweight.abs().max(), dbias.abs().max()) < 1e-6
    assert objective.value(weight, bias, both[0].double(), both[1]).item() == pytest.approx(found.proof["objective"])
    model.best_weight, model.best_bias = torch.zeros_like(model.best_weight), torch.zeros_like(model.best_bias)
    cold = refit(model, data, EXACT, 1)
    assert found.proof["iterations"] < cold.proof["iterations"]
    torch.testing.assert_close(found.weight, cold.weight, rtol=1e-4, atol=1e-5)


def test_weights_count_as_often_as_samples(data):
    count = torch.arange(200) % 3
    data.sample_weight, data.val_weight = count.double(), torch.full((60,), 2.0, dtype=torch.float64)
    weighted = refit(solved(data, data.sample_weight), data, EXACT, 1)
    repeated = clouds()
    repeated.setup()
    repeated.train = tuple(part.repeat_interleave(count, 0) for part in data.train)
    repeated.val = tuple(part.repeat_interleave(2, 0) for part in data.val)
    plain = refit(solved(repeated), repeated, EXACT, 1)
    assert weighted.samples == plain.samples
    torch.testing.assert_close(weighted.weight, plain.weight, rtol=1e-4, atol=1e-6)
