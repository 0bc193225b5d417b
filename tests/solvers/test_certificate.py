"""The bound holds at any weights, is tight at the optimum, and is what the formulas of the dual say."""

import pytest
import torch

from handgrad.functions.objective import CACHED, Drawn
from handgrad.solvers.centred import CentredProblem
from handgrad.solvers.certificate import certificate, certified_weights, drift, mixed, small_step
from handgrad.solvers.exact import Exact
from tests.solvers.optima import Optimum, drawn, drawn_labels, lowest, numbers, plain_one

SEEDS = range(24)


@pytest.mark.parametrize("draw", [drawn, drawn_labels])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0])
def test_weights_from_anywhere_are_no_further_from_the_optimum_than_it_says(seed, size, draw):
    problem = draw(seed)
    state = problem.solved(Exact(1e-10, 1000))
    generator = torch.Generator().manual_seed(seed)
    weight, bias = (
        tensor + size * (tensor.abs().mean() + 1e-3) * torch.randn(tensor.shape, generator=generator).double()
        for tensor in (state.weight, state.bias)
    )
    (proof,) = certified_weights(problem.objective(), weight, bias, problem.x, problem.y, problem.sample_weight)
    parameters = torch.cat((weight[0], bias[0][:, None]), 1)
    J = problem.value(parameters).item()
    best = lowest(problem, torch.cat((state.weight[0], state.bias[0][:, None]), 1))
    assert proof.objective == pytest.approx(J, rel=1e-10, abs=1e-12)
    assert proof.gap >= (J - best) / J - 1e-12
    if size == 0:
        assert proof.gap * J <= 1e-9 * J + 1e-14


def test_it_is_the_duality_gap():
    """Primal minus dual, with the dual's entropies added up sample by sample."""
    problem = plain_one(outputs=3)._replace(l2=0.1)
    centred = CentredProblem(problem.objective(), problem.x, problem.y, None, 3)
    state = problem.solved(Exact(1e-8, 100))
    noise = torch.randn(state.weight[0].shape, generator=torch.Generator().manual_seed(0)).double()
    parameters = centred.centred(state.weight[0] * (1 + 1e-3 * noise), state.bias[0])
    point = centred.at(parameters, coupling=True)
    for _ in range(30):
        point = centred.at(point.with_bias_step(), coupling=True)
    assert point.gradient[:, -1].abs().max() < 1e-13, "the test wants a bias that is feasible"
    x = centred.rows(torch.arange(len(problem.y)))
    p = torch.softmax(x @ point.parameters.t(), 1)
    y = torch.eye(3, dtype=torch.float64)[problem.y]
    entropy = -torch.xlogy(p, p).sum(1).mean()
    dual = entropy - ((p - y).t() @ x[:, :-1] / len(y)).square().sum() / (2 * problem.l2)
    proof = certificate(centred, point, problem.l2)
    assert proof.gap < 1, "the test wants a gap that is not cut off"
    assert proof.gap * proof.objective == pytest.approx(proof.objective - dual.item(), rel=1e-6)


@pytest.mark.parametrize(("outputs", "every"), [(1, 1), (3, 1), (3, 4)])
@pytest.mark.parametrize("size", [1e-4, 1e-2, 0.3])
def test_a_bias_that_is_not_feasible_has_a_bound_of_second_order(outputs, every, size):
    """Not below the duality gap of the distribution that the proof names, and near it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=generator, dtype=torch.float64)
    y = (x[:, : max(outputs, 2)] + 1.0 * torch.randn(300, max(outputs, 2), generator=generator)).argmax(1)
    problem = Optimum(x, y, None, 0.1, False, outputs)
    centred = CentredProblem(problem.objective(), x, y, None, outputs)
    centred.every = every
    state = problem.solved(Exact(1e-12, 100))
    parameters = centred.centred(state.weight[0], state.bias[0])
    parameters[:, -1] += size * torch.linspace(-1, 1, outputs) if outputs > 1 else size
    point = centred.at(parameters, coupling=True)
    x = centred.rows(torch.arange(len(y)))
    p, step = centred.probabilities(x @ parameters.t()), small_step(point.step_of_few, outputs == 1)
    bent = p * (1 - p) * step if outputs == 1 else p * (step - (p @ step)[:, None])
    few = Drawn(CACHED // 5, every, torch.device("cpu")).rows(0, len(y))
    others = torch.ones(len(y), dtype=torch.bool)
    others[few] = False
    bent[others] = 0  # which take no step
    assert bent.any() or size == 0.3
    torch.testing.assert_close(bent.mean(0), point.moved(step))
    left = point.gradient[:, -1] + bent.mean(0)
    q = p + bent
    t = mixed(left, q.mean(0), outputs == 1)
    q = q * (1 - t) + (t * q.mean(0) - left if t else 0.0)
    y = torch.eye(max(outputs, 2), dtype=torch.float64)[y][:, -outputs:]
    assert (q - y).mean(0).abs().max() < 1e-15, "the test wants a q that is feasible"
    assert q.min() >= 0
    other = 1 - q if outputs == 1 else torch.zeros(1, 1)
    entropy = -(torch.xlogy(q, q).sum(1) + torch.xlogy(other, other).sum(1)).mean()
    G = (q - y).t() @ x[:, :-1] / len(y)
    dual = (entropy - G.square().sum() / (2 * problem.l2)).item()
    proof = certificate(centred, point, problem.l2)
    gap = proof.objective - dual
    assert gap <= proof.gap * proof.objective + 1e-14
    assert proof.gap < 12 * every * size**2, "of first order it would be above that for a small one"


@pytest.mark.parametrize("every", [1, 4])
def test_what_a_step_does_to_the_weights_gradient_is_bounded_and_no_more_than_that(every):
    """Where all probabilities are 1/2, and the samples that take the step lie at one place, it is the bound itself."""
    samples = 300
    few = torch.arange(samples)[Drawn(CACHED // 3, every, torch.device("cpu")).rows(0, samples)]
    x = torch.full((samples, 3), -1.0, dtype=torch.float64)
    x[few] = (samples - len(few)) / len(few) + float(every == 1)
    y = (torch.arange(samples) % 5 < 3).long()
    centred = CentredProblem(Optimum(x, y, None, 0.1, False, 2).objective(), x, y, None, 2)
    centred.mean, centred.every = torch.zeros(3, dtype=torch.float64), every
    centred.spread = 3.0  # around there
    point = centred.at(torch.zeros(2, 4, dtype=torch.float64), coupling=True)
    step = point.step_of_few
    bent = torch.zeros(samples, 2, dtype=torch.float64)
    bent[few] = 0.5 * (step - step.mean())
    moved = (bent.t() @ x / samples).norm().item()
    assert moved > 0
    assert drift((point.moved(step) @ step).item(), centred, point) == pytest.approx(moved, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("weighted", "noise", "l2"), [(False, 0.1, 1e-5), (True, 1.0, 1e-3)])
def test_of_many_classes_a_part_of_the_samples_is_enough(weighted, noise, l2, monkeypatch):
    """A stride of 4 would see a quarter of the classes, which come one after another, or samples of no weight alone."""
    outputs, samples = 72, 5000
    monkeypatch.setattr("handgrad.solvers.centred.MANY", 64)
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(samples) // (69 if weighted else 1) % outputs
    centre = torch.randn(outputs, 8, generator=generator, dtype=torch.float64)
    x = centre[y] + noise * torch.randn(samples, 8, generator=generator, dtype=torch.float64)
    weight = (torch.arange(samples) % 4 > 0).double() if weighted else None
    problem = Optimum(x, y, weight, l2, False, outputs)
    centred = CentredProblem(problem.objective(), x, y, weight, outputs)
    assert centred.every == 4
    state, best = (problem.solved(Exact(tolerance, 300)) for tolerance in (1e-6, 1e-11))
    found = numbers(state)
    assert problem.value(torch.cat((state.weight[0], state.bias[0][:, None]), 1)).item() == pytest.approx(
        found["objective"], rel=1e-12
    )
    assert 1 - numbers(best)["objective"] / found["objective"] <= found["gap"] <= 1e-6
    point = centred.at(centred.centred(state.weight[0], state.bias[0]), coupling=True)
    r = torch.ones(samples, dtype=torch.float64) if weight is None else weight
    few = Drawn(CACHED // (outputs // 2), centred.every, torch.device("cpu")).rows(0, samples)
    r = (r / r.sum())[few]
    assert point.spread == pytest.approx((r @ (x[few] - centred.mean).square().sum(1)).item(), rel=1e-9)
    centred.every = 1
    whole = centred.at(point.parameters, coupling=True)
    torch.testing.assert_close(point.coupling.diagonal(), whole.coupling.diagonal(), rtol=1e-9, atol=0)
    far = (torch.linalg.pinv(whole.coupling, rtol=1e-6, hermitian=True) @ (point.coupling - whole.coupling)).norm()
    assert far < 0.5 * outputs**0.5, "a step of the bias by it would not converge"


@pytest.mark.parametrize("step", [[-0.33, 0.33], [-0.44] * 5 + [0.44] * 5, [-0.63, *[0.07] * 9], [0.0, 3.0, 3.2, 9.0]])
def test_a_step_is_cut_where_it_is_too_long_alone(step):
    step = torch.tensor(step, dtype=torch.float64)
    cut = small_step(step, sigmoids=False)
    assert cut.max() - cut.min() <= 1 + 1e-15
    if step.max() - step.min() <= 1:
        torch.testing.assert_close(cut - cut[0], step - step[0])
    else:
        assert cut[2] - cut[1] == pytest.approx(0.2), "near the median nothing is cut"
    assert small_step(step, sigmoids=True).tolist() == step.clamp(-1, 1).tolist()


def test_without_penalty_there_is_none():
    problem = drawn(4)._replace(l2=0.0)
    weight = torch.zeros(1, problem.outputs, problem.x.shape[1], dtype=torch.float64)
    (proof,) = certified_weights(problem.objective(), weight, weight[:, :, 0], problem.x, problem.y)
    assert proof.gap != proof.gap
    assert proof.gradient_norm > 0


def test_no_objective_is_below_zero():
    """Hence no gap is above 1, however far the weights are."""
    problem = plain_one(outputs=3)
    weight = 1e3 * torch.ones(1, 3, problem.x.shape[1], dtype=torch.float64) * torch.arange(3)[:, None]
    (proof,) = certified_weights(problem.objective(), weight, weight[:, :, 0], problem.x, problem.y)
    assert proof.gap == 1
