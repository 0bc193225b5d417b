"""A fit on a part of the samples is the fit on a copy of that part."""

from dataclasses import replace

import pytest
import torch

from handgrad import cross_validation
from handgrad.cross_validation import PartialFits
from handgrad.data.normalization import shift_and_scale, statistics
from handgrad.data.rows import Rows
from handgrad.data.splits import fold_index
from handgrad.functions.objective import SOFTMAX, Objective
from handgrad.metrics import score
from handgrad.solvers import quasi_newton
from handgrad.solvers.exact import Exact
from handgrad.solvers.newton import NewtonMetric

L2 = torch.tensor([0.1, 0.001, 0.01], dtype=torch.float64)
NAMES = ["a", "b", "c"]


def samples(rows=240, features=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0]).repeat(features // 5)
    x = 3 + torch.randn(rows, features, generator=generator) * scales
    y = (x[:, :3] + torch.randn(rows, 3, generator=generator)).argmax(1)
    return x, y


def partial_fits(x, y, weights=lambda index: None, normalize="none"):
    return PartialFits(Exact(1e-9, 1000), Objective(SOFTMAX, L2), 3, x, y, weights, normalize)


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: Rows([x[:100], x[100:]])], ids=["memory", "disk"])
def test_a_fit_on_a_part_is_that_on_a_copy_of_it(kind):
    x, y = samples()
    weight = torch.rand(len(y), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fold = fold_index(y, NAMES, 5, 0)
    train, held = torch.where(fold != 2)[0], torch.where(fold == 2)[0]
    found = partial_fits(kind(x), y, weight.__getitem__).fit(train, held)
    whole = torch.arange(len(train))
    alone = partial_fits(x[train].clone(), y[train].clone(), weight[train].__getitem__).fit(whole, None)
    torch.testing.assert_close(found.weight, alone.weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.report["objective"], alone.report["objective"], rtol=1e-9, atol=0)
    assert alone.outcomes == []
    for weights, bias, outcome in zip(alone.weight, alone.bias, found.outcomes, strict=True):
        logits = x[held].double() @ weights.t() + bias
        assert score("accuracy", outcome).value == (logits.argmax(1) == y[held]).double().mean().item()
        expected = torch.nn.functional.cross_entropy(logits, y[held]).item()
        assert score("loss", outcome).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["center", "standardize"])
def test_a_part_is_normalized_by_its_own_training_samples(kind):
    x, y = samples()
    fold = fold_index(y, NAMES, 4, 0)
    train, held = torch.where(fold != 0)[0], torch.where(fold == 0)[0]
    found = partial_fits(x, y, normalize=kind).fit(train, held)
    shift, scale = shift_and_scale(kind, statistics([x[train]]), torch.float32)
    by_hand = (x[train] - shift.float()) / scale.float()
    alone = partial_fits(by_hand, y[train]).fit(torch.arange(len(train)), None)
    torch.testing.assert_close(found.weight * scale, alone.weight, rtol=1e-5, atol=1e-7)
    logits = x[held].double() @ found.weight[0].t() + found.bias[0]
    normalized = ((x[held] - shift.float()) / scale.float()).double() @ alone.weight[0].t() + alone.bias[0]
    torch.testing.assert_close(logits, normalized, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "standardize"])
def test_fits_that_are_guided_end_where_the_others_do_without_a_gram_matrix_of_their_own(monkeypatch, kind):
    monkeypatch.setattr(NewtonMetric, "suits", lambda *problem: False)
    x, y = samples()
    problem = partial_fits(x, y, normalize=kind)
    train = torch.where(fold_index(y, NAMES, 5, 0) != 2)[0]
    alone, whole = problem.fit(train, None), problem.fit(problem.all, None)
    monkeypatch.setattr(quasi_newton, "feature_gram", None)
    found = problem.guided_by(whole.weight, whole.bias).fit(train, None)
    assert found.report["converged"].all()
    torch.testing.assert_close(found.weight, alone.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.report["objective"], alone.report["objective"], rtol=2e-9, atol=0)


def folds(y, count):
    fold = fold_index(y, NAMES, count, 0)
    return [(torch.where(fold != number)[0], torch.where(fold == number)[0]) for number in range(count)]


def guided(monkeypatch, x, y, weights=lambda index: None):
    monkeypatch.setattr(NewtonMetric, "suits", lambda *problem: False)
    problem = partial_fits(x, y, weights)
    whole = problem.fit(problem.all, None)
    return problem.guided_by(whole.weight, whole.bias)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [lambda x: x, lambda x: Rows([x[:100], x[100:]])], ids=["memory", "disk"])
@pytest.mark.parametrize("weighted", [False, True])
def test_fits_that_share_their_passes_are_those_one_by_one(monkeypatch, weighted, kind):
    x, y = samples()
    weight = torch.rand(len(y), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    problem = guided(monkeypatch, kind(x), y, weight.__getitem__ if weighted else lambda index: None)
    parts = folds(y, 5)
    assert problem.together(parts) == 5
    ((first, found),) = problem.fits(parts)
    assert first == 0
    for part, of_part in zip(parts, found, strict=True):
        alone = problem.fit(*part)
        assert of_part.report["converged"].all()
        torch.testing.assert_close(of_part.weight, alone.weight, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(of_part.report["objective"], alone.report["objective"], rtol=2e-9, atol=0)
        for one, other in zip(of_part.outcomes, alone.outcomes, strict=True):
            assert score("loss", one).value == pytest.approx(score("loss", other).value, rel=1e-4)


def test_groups_of_fits_that_are_done_are_not_made_again(monkeypatch):
    x, y = samples()
    problem = guided(monkeypatch, x, y)
    monkeypatch.setattr(cross_validation, "TOGETHER", 2)
    assert [(first, len(found)) for first, found in problem.fits(folds(y, 5))] == [(0, 2), (2, 2), (4, 1)]
    assert [first for first, _ in problem.fits(folds(y, 5), done=3)] == [2, 4]
    assert list(problem.fits(folds(y, 5), done=5)) == []


def test_fits_share_passes_where_that_is_faster_and_possible(monkeypatch):
    x, y = samples()
    problem = guided(monkeypatch, x, y)
    assert problem.together(folds(y, 12)) == 6, "no more than 8, spread evenly"
    assert problem.together(folds(y, 2)) == 1, "each reads the half of the other's held out"
    assert problem.together([(part[:20], part) for part, _ in folds(y, 5)]) == 1, "most rows would be read for nothing"
    assert replace(problem, outputs=40).together(folds(y, 5)) == 3
    assert replace(problem, outputs=100).together(folds(y, 5)) == 1
    assert replace(problem, normalize="standardize").together(folds(y, 5)) == 1
    assert partial_fits(x, y).together(folds(y, 5)) == 1
    monkeypatch.undo()
    assert problem.together(folds(y, 5)) == 1, "Newton's method makes no passes"


def test_a_guided_fit_of_many_iterations_ends_too(monkeypatch):
    monkeypatch.setattr(NewtonMetric, "suits", lambda *problem: False)
    x, y = samples(features=40)
    problem = partial_fits(x, y)
    problem = replace(problem, objective=replace(problem.objective, l2=torch.tensor([1e-5], dtype=torch.float64)))
    whole = problem.fit(problem.all, None)
    found = problem.guided_by(whole.weight, whole.bias).fit(problem.all[:200], None)
    assert found.report["converged"].all()
    assert found.report["iterations"] > max(quasi_newton.REFRESH)
