"""Points of several fits that are evaluated together are those of each fit by itself."""

from functools import partial

import pytest
import torch

from handgrad.functions.objective import MULTILABEL, SOFTMAX, Loss, Objective
from handgrad.solvers.centred import CentredProblem
from handgrad.solvers.joint import Joint

N, D, K, FITS = 60, 4, 3, 3


def samples():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(N, D, generator=generator), torch.randint(K, (N,), generator=generator)
    weights = torch.rand(FITS, N, generator=generator, dtype=torch.float64)
    fold = torch.arange(N) % FITS
    return x, y, weights * (fold != torch.arange(FITS)[:, None])


def objective(loss: Loss = SOFTMAX):
    return Objective(loss, torch.tensor([0.1], dtype=torch.float64))


@pytest.fixture
def passes(monkeypatch):
    """How many classifiers each pass over the samples had, and in which dtype."""
    made, data_term = [], Objective.data_term

    def watched(self, weight, *args, dtype, **more):
        made.append((len(weight), dtype))
        return data_term(self, weight, *args, dtype=dtype, **more)

    monkeypatch.setattr(Objective, "data_term", watched)
    return made


def points(fit: int, problem: CentredProblem, dtypes) -> list:
    generator = torch.Generator().manual_seed(fit)
    found = []
    for number, dtype in enumerate(dtypes):
        parameters = torch.randn(K, D + 1, generator=generator, dtype=torch.float64)
        found.append(problem.at(parameters, dtype, coupling=number == fit))
    return found


@pytest.mark.parametrize("loss", [SOFTMAX, MULTILABEL], ids=["softmax", "sigmoids"])
def test_each_fit_gets_its_own_points(passes, loss):
    x, y, weights = samples()
    y = y if loss is SOFTMAX else torch.nn.functional.one_hot(y, K)
    joint = Joint(objective(loss), x, y, weights)
    problems = [CentredProblem(joint.member(fit), x, y, weights[fit], K) for fit in range(FITS)]
    float64 = [torch.float64] * 4
    found = joint.run([partial(points, fit, problems[fit], float64) for fit in range(FITS)])
    assert passes == [(FITS, torch.float64)] * 4
    for fit in range(FITS):
        part = weights[fit] > 0
        alone = CentredProblem(objective(loss), x[part], y[part], weights[fit][part], K)
        for one, other in zip(found[fit], points(fit, alone, float64), strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-12)
            torch.testing.assert_close(one.gradient, other.gradient, rtol=1e-10, atol=1e-13)
            assert (one.coupling is None) == (other.coupling is None)
            if one.coupling is not None:
                torch.testing.assert_close(one.coupling, other.coupling, rtol=1e-10, atol=1e-13)


def test_products_in_float64_wait_until_all_fits_ask_for_them(passes):
    x, y, weights = samples()
    joint = Joint(objective(), x, y, weights)
    f32, f64 = torch.float32, torch.float64
    asked = [[f64, f32], [f32, f32, f64, f32], [f32, f64]]
    fits = [CentredProblem(joint.member(fit), x, y, weights[fit], K) for fit in range(FITS)]
    joint.run([partial(points, fit, problem, asked[fit]) for fit, problem in enumerate(fits)])
    assert passes == [(2, f32), (1, f32), (3, f64), (2, f32)]


@pytest.mark.parametrize("wrong", [ValueError, KeyboardInterrupt])
def test_an_error_of_one_fit_ends_them_all(wrong):
    x, y, weights = samples()
    joint = Joint(objective(), x, y, weights)
    asked = []

    def fit(number: int):
        problem = CentredProblem(joint.member(number), x, y, weights[number], K)
        for turn in range(5):
            if (number, turn) == (1, 2):
                raise wrong("of fit 1")
            asked.append(number)
            problem.at(torch.zeros(K, D + 1, dtype=torch.float64))

    with pytest.raises(wrong, match="of fit 1"):
        joint.run([partial(fit, number) for number in range(FITS)])
    assert [asked.count(number) for number in range(FITS)] in ([3, 2, 3], [2, 2, 3], [3, 2, 2], [2, 2, 2])


def test_fits_that_end_earlier_are_not_waited_for(passes):
    x, y, weights = samples()
    joint = Joint(objective(), x, y, weights)
    fits = [CentredProblem(joint.member(fit), x, y, weights[fit], K) for fit in range(FITS)]
    counts = (1, 3, 2)
    joint.run([partial(points, n, problem, [torch.float64] * counts[n]) for n, problem in enumerate(fits)])
    assert [count for count, _ in passes] == [3, 2, 1]
