"""The exact solver: each optimum is proven, whatever the problem, the order of the path and where it was stopped."""

import io
import math
from dataclasses import replace

import pytest
import torch
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

from handgrad.functions.objective import CACHED, SOFTMAX, Objective
from handgrad.solvers.exact import NUMBERS, EntryRun, Exact, Solution, extrapolated
from handgrad.solvers.newton import NewtonMetric
from handgrad.solvers.quasi_newton import QuasiNewtonMetric
from handgrad.solvers.solve import WholeSet, solve
from tests.pretended_device import DEVICE, pretended
from tests.solvers.optima import Optimum, begun, check_bound, drawn, drawn_labels, label_of, numbers, plain_one
from tests.solvers.problems import Batches

SOLVER = Exact(tolerance=1e-6, max_iterations=1000)
PATH = [1.0, 0.1, 0.01, 1e-3, 1e-4]


@pytest.fixture
def large(monkeypatch):
    """Makes every problem count as large."""
    monkeypatch.setattr(NewtonMetric, "suits", staticmethod(lambda *shape: False))


def bundled(name: str, standardized: bool = False) -> Optimum:
    data = getattr(datasets, f"load_{name}")()
    x, y = torch.from_numpy(data.data).double(), torch.from_numpy(data.target).long()
    if standardized:
        x = (x - x.mean(0)) / x.std(0).clamp_min(1e-12)
    return Optimum(x, y, None, 0.01, False, int(y.max()) + 1)


@pytest.mark.parametrize("seed", range(50))
def test_the_gap_is_never_below_the_true_one(seed):
    check_bound(drawn(seed), SOLVER)


@pytest.mark.parametrize("seed", range(50))
def test_several_labels_are_as_many_problems_of_one(seed):
    """J is the sum of the labels' own minima, and no further above it than its gap says."""
    problem = drawn_labels(seed)
    state = problem.solved(SOLVER)
    parameters = torch.cat((state.weight[0], state.bias[0][:, None]), 1)
    J, found = problem.value(parameters).item(), numbers(state)
    alone = [label_of(problem, label).solved(Exact(1e-9, 1000)) for label in range(problem.outputs)]
    lowest = sum(numbers(each)["objective"] for each in alone)
    assert math.isclose(J, found["objective"], rel_tol=1e-11, abs_tol=1e-12)
    assert J - lowest <= 1e-6 * J + 1e-15
    assert (J - lowest) / J - 1e-9 <= found["gap"] <= 1e-6


@pytest.mark.parametrize("seed", [6, 22])
def test_several_labels_of_a_large_problem(seed, large):
    problem = drawn_labels(seed)
    state = problem.solved(SOLVER, PATH)
    assert isinstance(state.metric, QuasiNewtonMetric)
    for label in range(problem.outputs):
        alone = label_of(problem, label).solved(Exact(1e-9, 1000), PATH)
        torch.testing.assert_close(state.weight[:3, label], alone.weight[:3, 0], rtol=0.02, atol=0.02)
    assert (state.numbers[:, NUMBERS.index("gap")] <= 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wine", "breast_cancer", "digits"])
@pytest.mark.parametrize("method", ["newton", "quasi-newton"])
def test_real_data_end_where_scikit_learn_does(name, method, request):
    if method == "quasi-newton":
        request.getfixturevalue("large")
    problem = bundled(name, standardized=True)
    state = problem.solved(SOLVER, PATH)
    assert isinstance(state.metric, NewtonMetric if method == "newton" else QuasiNewtonMetric)
    assert (state.numbers[:, NUMBERS.index("gap")] <= 1e-6).all()
    for entry, l2 in enumerate(PATH[:3]):
        C = (2 if problem.outputs == 2 else 1) / (l2 * len(problem.y))
        theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(problem.x, problem.y)
        logits = problem.x @ state.weight[entry].t() + state.bias[entry]
        found, expected = torch.softmax(logits, 1), torch.from_numpy(theirs.predict_proba(problem.x))
        assert (found - expected).abs().max() < 2e-3


@pytest.mark.parametrize("method", ["newton", "quasi-newton"])
def test_it_begins_at_the_parameters_that_it_is_given(method, request):
    if method == "quasi-newton":
        request.getfixturevalue("large")
    problem = bundled("digits", standardized=True)
    state = problem.solved(SOLVER, [0.01])
    objective = Objective(SOFTMAX, torch.tensor([0.01], dtype=torch.float64))
    again = solve(SOLVER, objective, state.weight, state.bias, [WholeSet(problem.x, problem.y, None)]).state
    iterations, passes, gap = (again.numbers[0, NUMBERS.index(name)] for name in ("iterations", "passes", "gap"))
    assert (iterations, gap <= 1e-6) == (0, True)
    assert passes <= 3
    torch.testing.assert_close(again.weight, state.weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_raw_features_of_any_scale_converge(name):
    state = bundled(name).solved(SOLVER, [10.0**-i for i in range(-1, 7)])
    assert (state.numbers[:, NUMBERS.index("gap")] <= 1e-6).all()


def test_a_tolerance_that_float32_does_not_reach_is_reached(large):
    problem = replace_l2(bundled("digits", standardized=True), 1e-3)
    state = problem.solved(Exact(tolerance=1e-11, max_iterations=1000))
    assert numbers(state)["gap"] <= 1e-11


def replace_l2(problem: Optimum, l2: float) -> Optimum:
    return problem._replace(l2=l2)


@pytest.mark.parametrize("method", ["newton", "quasi-newton"])
def test_entries_are_solved_from_the_largest_l2_down_and_stay_in_their_order(method, request):
    if method == "quasi-newton":
        request.getfixturevalue("large")
    problem, order = bundled("wine", standardized=True), [3, 0, 4, 2, 1]
    expected = problem.solved(SOLVER, PATH)
    found = problem.solved(SOLVER, [PATH[i] for i in order])
    assert torch.equal(found.weight, expected.weight[order])
    assert torch.equal(found.numbers, expected.numbers[order])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["newton", "quasi-newton"])
def test_a_saved_state_goes_on_bit_for_bit(method, request):
    if method == "quasi-newton":
        request.getfixturevalue("large")
    problem = bundled("digits", standardized=True)
    objective, active = problem.objective(PATH), torch.ones(len(PATH))
    whole = problem.solved(SOLVER, PATH)
    for stop in (1, 3):
        first = begun(SOLVER, objective, problem.outputs, problem.x.shape[1])
        for _ in range(stop):
            SOLVER.step(objective, first, problem.block(), active)
        file = io.BytesIO()
        torch.save(first.tensors(), file)
        file.seek(0)
        second = begun(SOLVER, objective, problem.outputs, problem.x.shape[1])
        for name, tensor in torch.load(file, weights_only=True).items():
            second.tensors()[name].copy_(tensor)
        for _ in range(len(PATH) - stop):
            SOLVER.step(objective, second, problem.block(), active)
        for name, tensor in whole.tensors().items():
            assert (
                torch.equal(
                    second.tensors()[name],
                    tensor,
                )
                or tensor.isinf().any()
            ), name


def test_a_step_tells_of_one_entry(large):
    problem = bundled("wine", standardized=True)
    objective = problem.objective([0.01, 0.1])
    state = begun(SOLVER, objective, 3, problem.x.shape[1])
    progress = SOLVER.step(objective, state, problem.block(), torch.ones(2))
    assert progress.moved.tolist() == [False, True]
    assert progress.made[0] == 0
    assert len(progress.curves["gap"]) == progress.made[1] + 1
    objective_curve = progress.curves["objective"][:, 1]
    assert (objective_curve.diff() <= 1e-6).all()
    assert progress.curves["gap"][-1, 1] == numbers(state, 1)["gap"] <= 1e-6
    assert SOLVER.done(state).tolist() == [False, True]
    report = SOLVER.report(state)
    assert report["converged"].tolist() == [False, True]
    assert report["iterations"][1] == progress.made[1]


def test_an_entry_that_was_stopped_is_passed_over():
    problem = bundled("wine", standardized=True)
    objective = problem.objective([1.0, 0.1])
    state = begun(SOLVER, objective, 3, problem.x.shape[1])
    SOLVER.step(objective, state, problem.block(), torch.tensor([0.0, 1.0]))
    assert SOLVER.done(state).tolist() == [False, True]
    assert not state.weight[0].any()


def test_too_few_iterations_are_told(large):
    state = replace_l2(bundled("digits"), 1e-5).solved(Exact(tolerance=1e-6, max_iterations=2))
    assert numbers(state)["iterations"] == 2
    assert numbers(state)["gap"] > 1e-6
    assert not Exact(1e-6, 2).report(state)["converged"].any()


def test_without_penalty_there_is_an_optimum_and_no_certificate():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (200,), generator=generator)
    state = Optimum(x, y, None, 0.0, False, 3).solved(SOLVER)
    found = numbers(state)
    assert math.isnan(found["gap"])
    assert found["gradient_norm"] < 1e-4
    assert not SOLVER.report(state)["converged"].any()


def test_on_separable_data_without_penalty_it_ends():
    x = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]], dtype=torch.float64)
    state = Optimum(x, torch.tensor([0, 0, 1, 1]), None, 0.0, False, 1).solved(Exact(1e-6, 50))
    assert numbers(state)["objective"] < 1e-6


def test_weights_count_like_rows_that_repeat():
    problem = bundled("wine", standardized=True)
    count = torch.arange(len(problem.y)) % 3
    weighted = problem._replace(sample_weight=count.double()).solved(SOLVER, PATH)
    x, y = problem.x.repeat_interleave(count, 0), problem.y.repeat_interleave(count)
    repeated = problem._replace(x=x, y=y).solved(SOLVER, PATH)
    torch.testing.assert_close(weighted.numbers[:, 0], repeated.numbers[:, 0], rtol=1e-6, atol=0)


def test_two_processes_find_what_one_does(large):
    """Both see the sums of both: here the second process's are those of the first, whose rows it has too."""
    problem = bundled("digits", standardized=True)
    alone = problem.solved(SOLVER, PATH[:3])
    objective = replace(problem.objective(PATH[:3]), total=lambda tensor: tensor * 2)
    state = begun(SOLVER, objective, problem.outputs, problem.x.shape[1])
    for _ in PATH[:3]:
        SOLVER.step(objective, state, problem.block(), torch.ones(3))
    torch.testing.assert_close(state.numbers[:, 0], alone.numbers[:, 0], rtol=1e-6, atol=0)


def test_a_step_that_is_expected_to_do_is_taken_in_float64(large, monkeypatch):
    """Of the second entry the last step: no pass is made in float32 where the certificate looks."""
    made, data_term = [], Objective.data_term

    def watched(self, *args, dtype, **more):
        made.append(dtype)
        return data_term(self, *args, dtype=dtype, **more)

    monkeypatch.setattr(Objective, "data_term", watched)
    state = bundled("digits", standardized=True).solved(SOLVER, [10.0, 5.0])
    iterations, passes = (state.numbers[:, NUMBERS.index(name)].int().tolist() for name in ("iterations", "passes"))
    assert made[passes[0] :] == [torch.float32, torch.float64]
    assert iterations[1] == passes[1] == 2


@pytest.mark.slow
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_on_a_device_it_finds_the_same_bits_and_waits_for_a_pass_alone(small, weighted, monkeypatch):
    """On a device that is none: the parameters' own algebra stays on the CPU, and the samples where they are."""
    monkeypatch.setattr(NewtonMetric, "suits", staticmethod(lambda *shape: small))
    monkeypatch.setattr("handgrad.functions.objective.ON_DEVICE", CACHED)
    problem = bundled("digits", standardized=True)
    s = torch.linspace(0.5, 2, len(problem.y), dtype=torch.float64) if weighted else None
    alone = problem._replace(sample_weight=s).solved(SOLVER, PATH[:3])
    zeros = torch.zeros(3, problem.outputs, problem.x.shape[1], dtype=torch.float64)
    with pretended() as device:
        x, y = problem.x.to(DEVICE), problem.y.to(DEVICE)
        block = WholeSet(x, y, None if s is None else s.to(DEVICE))
        objective = Objective(SOFTMAX, torch.tensor(PATH[:3], dtype=torch.float64).to(DEVICE))
        state = solve(SOLVER, objective, zeros.to(DEVICE), zeros[:, :, 0].to(DEVICE), [block] * 3).state
        weight = state.weight.cpu()
        waits, passes = sum(device.waits.values()), state.numbers[:, NUMBERS.index("passes")].sum().item()
    assert torch.equal(weight, alone.weight)
    assert torch.equal(state.numbers, alone.numbers)
    assert waits < 60 + (0 if small else 3 * passes)  # the results, the weights' sum and perhaps a spread a pass


def test_extrapolation_is_exact_for_a_parabola():
    def solution(l2: float) -> torch.Tensor:
        t = math.log(l2)
        return torch.tensor([[1 + 2 * t - 3 * t**2, t]], dtype=torch.float64)

    past = [Solution(l2, solution(l2), 1) for l2 in (1.0, 0.3, 0.1)]
    torch.testing.assert_close(extrapolated(past, 0.02), solution(0.02))


@pytest.mark.parametrize("large", [False, True], ids=["newton", "quasi-newton"])
@pytest.mark.parametrize("seed", range(6))
def test_after_an_entry_that_the_null_model_solves_it_goes_on_with_the_same_bits(seed, large, monkeypatch):
    if large:
        monkeypatch.setattr(NewtonMetric, "suits", staticmethod(lambda *shape: False))
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(400, 8, generator=generator), torch.randint(3, (400,), generator=generator)
    problem = Optimum(x, y, None, 1.0, False, 3)
    objective = problem.objective([1e7, 1e-2])
    whole = begun(SOLVER, objective, 3, 8)
    SOLVER.step(objective, whole, problem.block(), torch.ones(2))
    resumed = begun(SOLVER, objective, 3, 8)
    for name, tensor in resumed.tensors().items():
        tensor.copy_(whole.tensors()[name])
    for state in (whole, resumed):
        SOLVER.step(objective, state, problem.block(), torch.ones(2))
    assert whole.numbers[0, NUMBERS.index("passes")] <= 1
    assert all(torch.equal(tensor, whole.tensors()[name]) for name, tensor in resumed.tensors().items())


def test_the_last_certificate_is_no_looser_than_the_first():
    """What is refused once asks for more, and then for products in float64."""
    problem = bundled("digits", standardized=True)
    run = object.__new__(EntryRun)
    run.tolerance, run.refusals, run.enough, run.dtype = 1e-6, 0, 5e-7, torch.float32
    run.be_stricter(gap=1e-7)
    assert (run.enough, run.dtype) == (2.5e-7, torch.float32)
    run.be_stricter(gap=1e-7)
    assert run.dtype == torch.float64
    assert problem.l2 == 0.01


def test_batches_are_those_of_the_whole_set():
    problem = bundled("wine")
    ((input, target, weight),) = problem.block()
    assert (input is problem.x, target is problem.y, weight) == (True, True, None)
    assert isinstance(problem.block(), Batches)


def test_a_process_may_have_one_class_alone():
    """What a logistic loss says of the bias is right by parts, too."""
    x, y = torch.zeros(6, 1, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1])
    objective = Optimum(x, y, None, 0.1, False, 1).objective()
    at = torch.zeros(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    halves = [objective.data_term(*at, x[rows], y[rows], every=1) for rows in (slice(0, 3), slice(3, 6))]
    whole = objective.data_term(*at, x, y, every=1)
    assert [half.bend.item() for half in halves] == [whole.bend.item()] * 2 == [0.25] * 2


def test_values_close_to_one_another_take_a_few_iterations_each():
    problem = bundled("wine")
    state = problem.solved(SOLVER, [10 ** (-0.005 * i) for i in range(60)])
    assert state.numbers[:, NUMBERS.index("iterations")].max() < 20


@pytest.mark.parametrize("large", [False, True], ids=["newton", "quasi-newton"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_without_a_bias_it_is_scikit_learns_optimum_without_one(outputs, large, monkeypatch):
    if large:
        monkeypatch.setattr(NewtonMetric, "suits", staticmethod(lambda *shape: False))
    generator = torch.Generator().manual_seed(0)
    x = 1 + torch.randn(200, 4, generator=generator, dtype=torch.float64)
    y = (x[:, : max(outputs, 2)] + torch.randn(200, max(outputs, 2), generator=generator)).argmax(1)
    problem = Optimum(x, y, None, 0.01, False, outputs)
    state = problem.solved(Exact(1e-10, 1000, fit_bias=False))
    theirs = LogisticRegression(C=1 / (0.01 * 200), fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, y)
    assert not state.bias.any()
    torch.testing.assert_close(state.weight[0], torch.from_numpy(theirs.coef_), rtol=1e-4, atol=1e-5)
    assert numbers(state)["gap"] <= 1e-10


def test_refined_it_is_nearer_to_the_optimum_by_orders():
    problem = plain_one(outputs=3)
    best = problem.solved(Exact(1e-13, 100, refine=2))
    far, near = (problem.solved(Exact(1e-3, 100, refine=steps)) for steps in (0, 2))
    distance = [(state.weight - best.weight).norm() / best.weight.norm() for state in (far, near)]
    assert distance[1] < distance[0] / 1e3


@pytest.mark.parametrize(("scale", "l2"), [(1e80, 1e-2), (1.0, 1e-160), (1e45, 1.0), (1e160, 1e-2)])
def test_numbers_without_measure_end_without_an_error(scale, l2, large):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 5, generator=generator, dtype=torch.float64) * scale
    y = torch.randint(3, (100,), generator=generator)
    state = Optimum(x, y, None, l2, False, 3).solved(Exact(1e-8, 30))
    assert not numbers(state)["gap"] <= 1e-8
