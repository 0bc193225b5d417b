"""Newton's Hessian is that of the objective, and its step solves with it."""

from dataclasses import replace

import pytest
import torch

from handgrad import LinearProbe
from handgrad.errors import GradientError, InputError
from handgrad.solvers.centred import CentredProblem
from handgrad.solvers.exact import Exact
from handgrad.solvers.newton import LARGEST, NewtonMetric, factorized
from tests.solvers.optima import Optimum, drawn, drawn_labels, plain_one

ONE_SIGMOID = [seed for seed in range(30) if drawn(seed).outputs == 1][:2]
GIVEN = [
    *((drawn, seed) for seed in (0, 3, 4, 5, 8, 11, 20, 21, *ONE_SIGMOID)),
    *((drawn_labels, s) for s in (0, 1, 7)),
]


@pytest.mark.parametrize(("draw", "seed"), GIVEN)
def test_the_hessian_is_the_derived_product_for_every_direction(draw, seed):
    given = draw(seed)
    problem = CentredProblem(given.objective(), given.x, given.y, given.sample_weight, given.outputs)
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.randn(given.outputs, given.x.shape[1] + 1, generator=generator, dtype=torch.float64)
    parameters = parameters / (1 + given.x.abs().mean())
    metric = NewtonMetric(problem)
    metric.at(parameters)
    H = torch.block_diag(*metric.data_hessian())
    direction = torch.randn(parameters.shape, generator=generator, dtype=torch.float64)
    weight, bias = problem.uncentred(parameters)
    v, c = problem.uncentred(direction)  # linear: a direction moves as parameters do
    at = weight[None], bias[None], v[None], c[None]
    Hv, Hc = problem.objective.hessian_vector_product(*at, given.x, given.sample_weight)
    penalty = given.l2 * torch.cat((v, c[:, None] * given.penalize_bias), 1)
    expected = torch.cat((Hv[0] - torch.outer(Hc[0] - penalty[:, -1], problem.mean), Hc[0][:, None]), 1) - penalty
    found = (H @ direction.flatten()).view_as(expected)
    scale = found.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-9)


def test_a_singular_matrix_is_factorized_with_a_little_more():
    ones = torch.ones(3, 3, dtype=torch.float64)
    factor = factorized(ones)
    assert (factor @ factor.t() - ones).abs().max() < 1e-9


@pytest.mark.parametrize(("shape", "suits"), [((178, 13, 3), True), ((1797, 64, 10), True), ((50_000, 512, 10), False)])
def test_it_suits_small_problems(shape, suits):
    assert NewtonMetric.suits(*shape) is suits
    assert not NewtonMetric.suits(10, LARGEST, 2)
    assert NewtonMetric.suits(10, LARGEST - 1, 2, True)  # sigmoids: by label
    assert not NewtonMetric.suits(10, LARGEST, 2, True)


def test_numbers_that_overflow_end_it():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 2, generator=generator, dtype=torch.float64) * 1e160
    state = Optimum(x, torch.arange(50) % 2, None, 0.1, False, 2).solved(Exact(1e-6, 20))
    assert not Exact(1e-6, 20).report(state)["converged"].any()


@pytest.mark.parametrize("seed", [0, 3, 4, 5, 8, 11, 20, 21])
def test_its_evaluation_is_the_proven_pass(seed):
    given = drawn(seed)
    problem = CentredProblem(given.objective(), given.x, given.y, given.sample_weight, given.outputs)
    parameters = torch.randn(
        given.outputs, given.x.shape[1] + 1, generator=torch.Generator().manual_seed(seed)
    ).double()
    parameters = parameters / (1 + given.x.abs().mean())
    found, proven = NewtonMetric(problem).exactly(parameters), problem.at(parameters, coupling=True)
    assert found.loss == pytest.approx(proven.loss, rel=1e-10)
    scale = proven.gradient.abs().max()
    torch.testing.assert_close(found.gradient / scale, proven.gradient / scale, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.coupling, proven.coupling, rtol=0, atol=1e-12)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_wrong_evaluation_is_refused(outputs, monkeypatch):
    at = NewtonMetric.at

    def wrong(self, parameters):
        point = at(self, parameters)
        found = replace(point, gradient=point.gradient * 1.001)
        self.latest = found, self.latest[1]
        return found

    monkeypatch.setattr(NewtonMetric, "at", wrong)
    problem = plain_one(outputs=outputs)
    with pytest.raises(GradientError, match="Newton's gradient differs from the proven one by"):
        problem._replace(l2=10.0).solved(Exact(0.5, 100))


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_wrong_coupling_is_refused(outputs, monkeypatch):
    coupling = NewtonMetric._coupling
    monkeypatch.setattr(NewtonMetric, "_coupling", lambda self, residual: coupling(self, residual) * 1.001)
    for path in ([10.0], [1e9, 1e8, 1e7, 10.0]):  # of which the null model solves all but the last
        with pytest.raises(GradientError, match="Newton's coupling differs from the proven one by"):
            LinearProbe(path).fit(plain_one(outputs).x.numpy(), plain_one(outputs).y.numpy())


@pytest.mark.parametrize("classes", [2, 3])
def test_a_column_of_which_few_digits_are_left_is_named(classes):
    """As seconds since 1970 are; centred before, they are features like others."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    y = ((x[:, 1] + torch.randn(300, generator=generator)).argsort().argsort() * classes // 300).numpy()
    x[:, 1] += 1.7e9
    with pytest.raises(InputError, match=r"^column 1 of the features: its mean, 1.7e\+09, is .* normalize=center$"):
        LinearProbe(1e-6).fit(x, y)
    assert LinearProbe(1e-6, normalize="center").fit(x, y).gap_ < 1e-6
