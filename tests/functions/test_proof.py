"""Right Functions are proven; each planted mistake of each argument is refused and named."""

import importlib

import pytest
import torch

from handgrad.functions.objective import LOGISTIC, MULTILABEL, SOFTMAX, Objective
from handgrad.functions.proof import Term, central_difference, terms

L2 = torch.tensor([0.0, 0.5], dtype=torch.float64)
LOSSES = {
    "linear_cross_entropy": (SOFTMAX, 3),
    "linear_binary_cross_entropy": (LOGISTIC, 1),
    "linear_binary_cross_entropy of labels": (MULTILABEL, 3),
}
ACCEPTED = 1e-8


def called(name: str) -> str:
    """Returns what the Function is called, as is its module."""
    return name.partition(" ")[0]


def found(name: str, penalize_bias: bool = True, hessian: bool = False) -> dict[str, float]:
    """Returns the error of each term that is compared."""
    loss, outputs = LOSSES[name]
    generator = torch.Generator().manual_seed(1)
    input, target = torch.rand(20, 6, generator=generator), torch.arange(20) % max(outputs, 2)
    if loss.sigmoids and outputs > 1:
        target = torch.randint(2, (20, outputs), generator=generator)
    objective = Objective(loss, L2, penalize_bias)
    compared = terms(objective, outputs, input, target, directions=2, hessian=hessian)
    return {f"{term.subject} {term.part}": term.relative_error() for term in compared}


def refused(name: str, hessian: bool = False) -> set[str]:
    return {subject for subject, error in found(name, hessian=hessian).items() if not error <= ACCEPTED}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("penalize_bias", [False, True])
def test_what_is_right_is_proven(name, penalize_bias):
    errors = found(name, penalize_bias, hessian=True)
    assert max(errors.values()) < 1e-10
    assert {
        *(f"derived gradient of {called(name)} for {argument}" for argument in ("input", "weight", "bias")),
        *(f"derived gradient of l2_penalty for {argument}" for argument in ("parameter", "l2")),
        *(f"value of {function}" for function in (called(name), f"the logits of {called(name)}", "l2_penalty")),
        "derived gradient of the objective at l2=0",
        "derived gradient of the objective at l2=0.5",
        "value of the objective at l2=0.5",
        f"value with sample weights of {called(name)}",
        *(
            f"derived gradient with sample weights of {called(name)} for {argument}"
            for argument in ("input", "weight", "bias")
        ),
        "Hessian-vector product of the objective at l2=0.5",
    } <= errors.keys()


def plant(monkeypatch, name: str, kind: str, change) -> None:
    """Lets ``change`` spoil what ``forward`` or ``backward`` of the Functions called ``name`` return."""
    module = importlib.import_module(f"handgrad.functions.{called(name)}")
    for function in [item for item in vars(module).values() if isinstance(item, type)]:
        if issubclass(function, torch.autograd.Function) and kind in vars(function):
            right = getattr(function, kind)
            monkeypatch.setattr(function, kind, staticmethod(lambda *args, right=right: change(*right(*args))))


BACKWARD = {
    "input negated": (lambda x, w, t, b, s: (None if x is None else -x, w, t, b, s), "input"),
    "input of one feature": (lambda x, w, t, b, s: (None if x is None else x * spoiled(x), w, t, b, s), "input"),
    "weight doubled": (lambda x, w, t, b, s: (x, None if w is None else 2 * w, t, b, s), "weight"),
    "bias doubled": (lambda x, w, t, b, s: (x, w, t, None if b is None else 2 * b, s), "bias"),
    "bias lost": (lambda x, w, t, b, s: (x, w, t, None if b is None else 0 * b, s), "bias"),
}


def spoiled(x):
    factor = torch.ones_like(x)
    factor[..., 2:3] = 1.001
    return factor


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("change", "argument"), BACKWARD.values(), ids=BACKWARD)
def test_a_wrong_backward_is_named_by_its_argument(name, change, argument, monkeypatch):
    plant(monkeypatch, name, "backward", change)
    wrong = {subject for subject in refused(name) if called(name) in subject}
    weighted = f"derived gradient with sample weights of {called(name)} for {argument}"
    assert wrong == {f"derived gradient of {called(name)} for {argument}", weighted}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "change",
    [lambda s: None, lambda s: s.flip(0), lambda s: s.square()],
    ids=["left out", "of other samples", "squared"],
)
def test_wrong_sample_weights_are_seen(name, change, monkeypatch):
    loss, outputs = LOSSES[name]

    def weighing(input, weight, target, bias, sample_weight=None):
        changed = None if sample_weight is None else change(sample_weight)
        return loss.function(input, weight, target, bias, changed)

    weighing.__name__ = called(name)
    monkeypatch.setitem(LOSSES, name, (loss._replace(function=weighing), outputs))
    wrong = refused(name)
    assert f"value with sample weights of {called(name)}" in wrong
    assert f"derived gradient with sample weights of {called(name)} for weight" in wrong
    assert all("with sample weights" in subject for subject in wrong)


@pytest.mark.parametrize("name", LOSSES)
def test_a_backward_that_forgets_the_sample_weights_is_seen(name, monkeypatch):
    module = importlib.import_module(f"handgrad.functions.{called(name)}")
    right = module._logit_gradient
    monkeypatch.setattr(module, "_logit_gradient", lambda z, target, shares, *more: right(z, target, None, *more))
    arguments = ("input", "weight", "bias")
    assert refused(name) == {
        f"derived gradient with sample weights of {called(name)} for {argument}" for argument in arguments
    }


HESSIAN = {f"Hessian-vector product of the objective at l2={l2:g}" for l2 in L2.tolist()}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("factor", [2.0, -1.0, 0.0, 1 + 1e-6])
def test_a_wrong_hessian_is_seen_where_it_is_asked_for(name, factor, monkeypatch):
    loss, outputs = LOSSES[name]
    wrong = loss._replace(curvature=lambda z, u: factor * loss.curvature(z, u))
    monkeypatch.setitem(LOSSES, name, (wrong, outputs))
    assert refused(name) == set()
    assert refused(name, hessian=True) == HESSIAN


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("factor", [2.0, -1.0, 0.0, 1 + 1e-6])
@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_wrong_data_term_is_seen_where_it_is_asked_for(name, factor, part, monkeypatch):
    loss, outputs = LOSSES[name]

    def wrong(z, target):
        losses, residual = loss.residual(z, target)
        return (factor * losses, residual) if part == "loss" else (losses, factor * residual)

    monkeypatch.setitem(LOSSES, name, (loss._replace(residual=wrong), outputs))
    assert refused(name) == set()
    subject = "data term" if part == "loss" else "data term's gradient"
    assert refused(name, hessian=True) == {f"{subject} of the objective at l2={l2:g}" for l2 in L2.tolist()}


PENALTY = {
    "parameter doubled": (lambda p, l2: (None if p is None else 2 * p, l2), "parameter"),
    "l2 negated": (lambda p, l2: (p, None if l2 is None else -l2), "l2"),
}


@pytest.mark.parametrize(("change", "argument"), PENALTY.values(), ids=PENALTY)
def test_a_wrong_penalty_is_named_by_its_argument(change, argument, monkeypatch):
    plant(monkeypatch, "l2_penalty", "backward", change)
    assert refused("linear_cross_entropy") == {f"derived gradient of l2_penalty for {argument}"}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("factor", [2.0, 20 / 19, 1 + 1e-6], ids=["doubled", "mean over N - 1", "slightly off"])
def test_a_loss_that_is_wrong_as_its_gradient_is_differs_from_its_formula(name, factor, monkeypatch):
    """Differences of a wrong loss agree with its gradient: the formula alone tells."""
    loss, outputs = LOSSES[name]

    def scaled(*arguments, **more):
        value, logits = loss.function(*arguments, **more)
        return value * factor, logits

    scaled.__name__ = called(name)
    monkeypatch.setitem(LOSSES, name, (loss._replace(function=scaled), outputs))
    wrong = refused(name)
    assert f"value of {called(name)}" in wrong
    assert not [subject for subject in wrong if "derived" in subject and "with sample weights" not in subject]


@pytest.mark.parametrize("name", LOSSES)
def test_another_target_is_seen(name, monkeypatch):
    loss, outputs = LOSSES[name]
    classes = 2 if loss.sigmoids else outputs

    def shifted(input, weight, target, bias, *more):
        return loss.function(input, weight, (target + 1) % classes, bias, *more)

    shifted.__name__ = called(name)
    monkeypatch.setitem(LOSSES, name, (loss._replace(function=shifted), outputs))
    assert f"value of {called(name)}" in refused(name)


def test_a_gradient_that_is_no_number_is_an_error_that_is_no_number():
    term = Term("x", "y", "z", torch.tensor([float("nan")]), torch.tensor([1.0]))
    assert not term.relative_error() <= ACCEPTED


# --- the finite difference -------------------------------------------------------------------------------------------


def along(power: int, step: float) -> float:
    """Returns the difference of w^power + b at w = 1, b = 5 along (1, 2)."""
    point, direction = ([torch.tensor(x, dtype=torch.float64) for x in pair] for pair in ((1.0, 5.0), (1.0, 2.0)))
    return central_difference(lambda w, b: w**power + b, point, direction, step).item()


@pytest.mark.parametrize("power", [0, 1, 2, 3, 4])
def test_it_is_exact_for_polynomials_up_to_degree_four(power):
    assert along(power, 1.0) == power + 2
    assert along(power, 2e-3) == pytest.approx(power + 2, rel=1e-12)


@pytest.mark.parametrize("step", [1.0, 0.5, 0.25])
def test_its_error_is_of_the_fourth_order(step):
    """f - step^4 f^(5) / 30, which for w^5 is all there is: 120 / 30."""
    assert along(5, step) - (5 + 2) == -4 * step**4
