"""The check proves the right gradient and refuses a wrong one, of the weight, the bias and the penalty each."""

import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from handgrad.callbacks.gradient_check import GradientCheck
from handgrad.errors import GradientError
from handgrad.functions.objective import LOGISTIC, MULTILABEL, SOFTMAX, Loss, Objective
from handgrad.functions.proof import terms
from handgrad.training.processes import total
from tests.callbacks.test_checkpointing import toy_fit
from tests.functions.test_objective import in_processes

L2 = [0.0, 0.02, 2.0]
TOLERANCE = 1e-8  # that of conf/callbacks/default.yaml


class Logger:
    def __init__(self) -> None:
        self.told: list = []

    def log_metrics(self, metrics, step) -> None:
        self.told.append((metrics, step))


def first_batch(loss: Loss, outputs: int, features: int = 6, samples: int = 20):
    generator = torch.Generator().manual_seed(1)
    input = torch.rand(samples, features, generator=generator)  # float32, as a run's; the check is in float64
    if loss.sigmoids and outputs > 1:
        return input, torch.randint(2, (samples, outputs), generator=generator)
    return input, torch.arange(samples) % max(outputs, 2)


class FirstBlock(list):
    share = 1.0


def run(
    objective: Objective,
    outputs: int,
    callback: GradientCheck | None = None,
    logger: Logger | None = None,
    block: list | None = None,
    total: Callable | None = None,
) -> list:
    """Lets the check look at a made-up model and trainer, in one process of several if there is a ``total``."""
    block = block or FirstBlock([first_batch(objective.loss, outputs)])
    model = SimpleNamespace(
        objective=lambda total: replace(objective, total=total),
        pipeline=SimpleNamespace(total=total, one_at_a_time=False),
        bias=torch.zeros(len(objective.l2), outputs),
    )
    trainer = SimpleNamespace(train_dataloader=[block], logger=logger, global_step=0)
    (callback or GradientCheck(TOLERANCE, directions=4, classifiers=16)).on_train_start(trainer, model)
    return []


LOSSES = pytest.mark.parametrize(
    ("loss", "outputs"), [(SOFTMAX, 3), (LOGISTIC, 1), (MULTILABEL, 2)], ids=["softmax", "logistic", "multilabel"]
)
OF_ONE_LABEL = pytest.mark.parametrize(("loss", "outputs"), [(SOFTMAX, 3), (LOGISTIC, 1)], ids=["softmax", "logistic"])
BIAS = pytest.mark.parametrize("penalize_bias", [False, True], ids=["bias free", "bias penalized"])


@LOSSES
@BIAS
def test_the_right_gradient_is_proven(loss, outputs, penalize_bias, caplog):
    caplog.set_level("INFO")
    logger = Logger()
    run(Objective(loss, torch.tensor(L2), penalize_bias), outputs, logger=logger)
    ((metrics, step),) = logger.told
    assert (metrics.keys(), step) == ({"gradient_error"}, 0)
    error = metrics["gradient_error"]
    assert 0 < error < TOLERANCE
    assert f"relative error {error:.1e} against finite differences" in caplog.text


# --- wrong gradients -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Wrong(Objective):
    """An objective whose gradient is changed by ``change(dweight, dbias, weight, bias, l2)``, in place."""

    change: object = None

    def gradient(self, weight, bias, *arguments, **more):
        loss, dweight, dbias = super().gradient(weight, bias, *arguments, **more)
        self.change(dweight, dbias, weight, bias, self.l2)
        return loss, dweight, dbias


CHANGES = {
    "weight scaled": lambda dw, db, w, b, l2: dw.mul_(1 + 1e-6),
    "one weight": lambda dw, db, w, b, l2: dw[:, -1, 3].mul_(1.001),
    "one weight of one classifier": lambda dw, db, w, b, l2: dw[1, 0, 0].mul_(1.001),
    "bias scaled": lambda dw, db, w, b, l2: db.mul_(1 + 1e-6),
    "one bias": lambda dw, db, w, b, l2: db[:, -1].mul_(1.001),
    "bias forgotten": lambda dw, db, w, b, l2: db.zero_(),
    "sign": lambda dw, db, w, b, l2: dw.neg_(),
    "penalty forgotten": lambda dw, db, w, b, l2: dw.sub_(l2[:, None, None] * w),
    "penalty without 1/2": lambda dw, db, w, b, l2: dw.add_(l2[:, None, None] * w),
    "penalty slightly off": lambda dw, db, w, b, l2: dw.add_(1e-5 * l2[:, None, None] * w),
    "bias's penalty forgotten": lambda dw, db, w, b, l2: db.sub_(l2[:, None] * b),
    "not a number": lambda dw, db, w, b, l2: dw[0, 0, 0].mul_(float("nan")),
}


@LOSSES
@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_gradient_is_refused(name, loss, outputs):
    logger = Logger()
    wrong = Wrong(loss, torch.tensor(L2), penalize_bias=True, change=CHANGES[name])
    with pytest.raises(
        GradientError,
        match=r"gradient of the objective at l2=.* differs from finite differences by .* \(relative\); at most 1e-08",
    ):
        run(wrong, outputs, logger=logger)
    assert logger.told == []


def test_a_penalty_on_a_bias_that_has_none_is_refused():
    wrong = Wrong(SOFTMAX, torch.tensor(L2), False, change=lambda dw, db, w, b, l2: db.add_(l2[:, None] * b))
    with pytest.raises(GradientError):
        run(wrong, 3)


def test_a_gradient_that_training_asks_for_with_other_factors_is_refused(monkeypatch):
    """An entry's factor is 0 once it has stopped."""
    right = Objective.gradient
    monkeypatch.setattr(Objective, "gradient", lambda *arguments, active, **more: right(*arguments, **more))
    with pytest.raises(GradientError, match="derived gradient of the objective at l2="):
        run(Objective(SOFTMAX, torch.tensor(L2)), 3)


@LOSSES
def test_the_hessian_is_checked_where_it_is_asked_for(loss, outputs):
    curved = loss._replace(curvature=lambda z, u: 1.001 * loss.curvature(z, u))
    objective = Objective(curved, torch.tensor(L2))
    run(objective, outputs)
    with pytest.raises(GradientError, match="the Hessian-vector product of the objective at l2=0 differs from finite"):
        run(objective, outputs, GradientCheck(TOLERANCE, 4, 16, hessian=True))


@pytest.mark.parametrize("path", [0, 1, 2])
def test_the_worst_classifier_is_named(path):
    wrong = Wrong(SOFTMAX, torch.tensor(L2), change=lambda dw, db, w, b, l2: dw[path].mul_(1.5))
    named = f"^weight: 1.5 times what it should be at l2={L2[path]:g} alone, in the gradient that trains; "
    with pytest.raises(GradientError, match=f"{named}the derived gradient of the objective at l2={L2[path]:g} differs"):
        run(wrong, 3)


def test_what_is_wrong_is_told_in_a_line_and_the_rest_in_notes(monkeypatch):
    module = importlib.import_module("handgrad.functions.linear_cross_entropy")
    right = module._logit_gradient
    monkeypatch.setattr(module, "_logit_gradient", lambda z, *more: right(z, *more) * z.shape[2])
    with pytest.raises(GradientError) as caught:
        run(Objective(SOFTMAX, torch.tensor(L2)), 3)
    told = str(caught.value)
    assert told.startswith(
        "weight, bias, input: the 1/N is missing (20 times what it should be); the derived gradient of"
    )
    assert "\n" not in told
    place, rest = caught.value.__notes__
    assert re.fullmatch(
        r"    see src/.*/linear_cross_entropy\.py:\d+ and docs/derivation\.md#softmax-regression-.*", place
    )
    assert rest == "  logits, loss, l2: right"


@pytest.mark.parametrize(("argument", "told"), [(1, "weight"), (3, "bias")])
def test_a_gradient_that_is_not_returned_is_told(argument, told, monkeypatch):
    """What trains cannot even be called then."""
    module = importlib.import_module("handgrad.functions.linear_cross_entropy")
    right = module._LinearCrossEntropy.backward

    def forgetful(*arguments):
        return tuple(None if i == argument else gradient for i, gradient in enumerate(right(*arguments)))

    monkeypatch.setattr(module._LinearCrossEntropy, "backward", staticmethod(forgetful))
    with pytest.raises(GradientError, match=f"^{told}: backward returns None; "):
        run(Objective(SOFTMAX, torch.tensor(L2)), 3)


def test_what_is_right_is_not_diagnosed(monkeypatch):
    """It would take as long as the proof once more."""

    def refused(*arguments):
        raise AssertionError("a diagnosis of what is right")

    monkeypatch.setattr("handgrad.callbacks.gradient_check.diagnosed", refused)
    run(Objective(SOFTMAX, torch.tensor(L2)), 3)


def test_the_tolerance_is_the_largest_error_accepted():
    wrong = Wrong(SOFTMAX, torch.tensor([0.0]), change=lambda dw, db, w, b, l2: (dw.mul_(1.001), db.mul_(1.001)))
    run(wrong, 3, GradientCheck(1.01e-3, 4, 16))
    with pytest.raises(GradientError, match=r"by 1\.0e-03 \(relative\); at most 1e-03 is accepted"):
        run(wrong, 3, GradientCheck(0.99e-3, 4, 16))


# --- several processes -----------------------------------------------------------------------------------------------


def run_in_processes(objective: Objective, outputs: int, in_place: bool = True, share: Callable = lambda x: x) -> None:
    """Lets three processes check their shares of a mini-batch of 20, of which they are told what ``share`` makes."""
    input, target = first_batch(objective.loss, outputs)
    blocks = []
    for rows in (slice(0, 7), slice(7, 14), slice(14, 20)):
        block = FirstBlock([(input[rows], target[rows])])
        block.share = share(len(block[0][1]) / len(target))
        blocks.append(block)
    in_processes([lambda total, b=b: run(objective, outputs, block=b, total=total) for b in blocks], in_place)


@pytest.mark.slow
@OF_ONE_LABEL
@BIAS
@pytest.mark.parametrize("in_place", [False, True])
def test_the_right_gradient_is_proven_over_several_processes(loss, outputs, penalize_bias, in_place):
    run_in_processes(Objective(loss, torch.tensor(L2), penalize_bias), outputs, in_place)


@pytest.mark.slow
@OF_ONE_LABEL
@pytest.mark.parametrize("fault", ["doubled", "of one process alone", "penalty in each"])
def test_a_wrong_sum_over_processes_is_refused(fault, loss, outputs, monkeypatch):
    def spoiled(self, *terms):
        if fault == "of one process alone":
            right(self, *terms)
            return terms
        return [2 * term for term in right(self, *terms)]

    def penalized(self, *arguments):
        of_penalty(self, *arguments)
        return of_penalty(self, *arguments)

    right, of_penalty = Objective._over_processes, Objective._add_penalty_gradient
    if fault == "penalty in each":
        monkeypatch.setattr(Objective, "_add_penalty_gradient", penalized)
    else:
        monkeypatch.setattr(Objective, "_over_processes", spoiled)
    told = (
        "^l2: twice" if fault == "penalty in each" else "^each part is right by itself, the sum over the processes is"
    )
    with pytest.raises(GradientError, match=f"{told} .*of the objective"):
        run_in_processes(Objective(loss, torch.tensor(L2), True), outputs)


@pytest.mark.slow
@OF_ONE_LABEL
@pytest.mark.parametrize("share", [lambda x: 1.0, lambda x: 1 / 3, lambda x: x * 1.001], ids=["1", "1/3", "off"])
def test_a_wrong_share_of_the_mini_batch_is_refused(share, loss, outputs):
    with pytest.raises(GradientError, match="of the objective"):
        run_in_processes(Objective(loss, torch.tensor(L2), True), outputs, share=share)


@pytest.mark.slow
def test_of_a_large_mini_batch_all_processes_leave_samples_out(monkeypatch):
    """Also those whose own share is not too large: each asks for the same sums."""
    monkeypatch.setattr("handgrad.callbacks.gradient_check.SAMPLES", 6)
    run_in_processes(Objective(SOFTMAX, torch.tensor(L2), True), 3, share=lambda x: x)
    monkeypatch.setattr(Objective, "_over_processes", lambda self, *terms: [2 * self.total(term) for term in terms])
    with pytest.raises(GradientError, match="of the objective"):
        run_in_processes(Objective(SOFTMAX, torch.tensor(L2), True), 3)


# --- what is checked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "classifiers", "chosen"),
    [(3, 16, [0, 1, 2]), (5, 2, [0, 4]), (5, 3, [0, 2, 4]), (4, 3, [0, 2, 3]), (5, 1, [0]), (1, 3, [0])],
)
def test_of_a_long_path_evenly_spread_classifiers_are_checked(paths, classifiers, chosen):
    objective = Objective(SOFTMAX, torch.arange(float(paths)), True, total=total)
    checked = GradientCheck(TOLERANCE, 4, classifiers).checked(objective)
    assert checked.l2.tolist() == chosen
    assert checked.l2.dtype == torch.float64
    assert checked.total is total
    assert (checked.loss, checked.penalize_bias) == (SOFTMAX, True)


def test_a_run_is_checked_before_its_first_update(monkeypatch):
    seen = []

    def watched(objective, outputs, input, target, directions, share, hessian):
        seen.append((tuple(input.shape), outputs, objective.l2.tolist(), directions, share, hessian))
        return terms(objective, outputs, input, target, directions, share, hessian)

    monkeypatch.setattr("handgrad.callbacks.gradient_check.terms", watched)
    result = toy_fit([GradientCheck(TOLERANCE, 4, 16)])
    assert seen == [((10, 4), 3, [0, 0.5], 4, None, False)]
    assert torch.equal(result.model.weight, toy_fit([]).model.weight), "the check left a trace"


def test_a_run_with_a_wrong_gradient_trains_nothing(monkeypatch):
    def wrong(self, dweight, dbias, weight, bias, active) -> None:
        """Leaves the penalty's gradient out."""

    monkeypatch.setattr(Objective, "_add_penalty_gradient", wrong)
    steps = []
    monkeypatch.setattr("handgrad.training.pipeline.Pipeline.train", lambda self, block: steps.append(block))
    with pytest.raises(GradientError, match=r"at l2=0\.5 .*nothing was trained"):
        toy_fit([GradientCheck(TOLERANCE, 4, 16)])
    assert steps == []


def test_a_gradient_of_another_shape_names_the_argument_and_the_backward(monkeypatch):
    module = sys.modules["handgrad.functions.linear_cross_entropy"]

    right = module._LinearCrossEntropy.backward

    def wrong(ctx, *grad_outputs):
        dinput, dweight, *others = right(ctx, *grad_outputs)
        return dinput, dweight[:, :, :2], *others

    monkeypatch.setattr(module._LinearCrossEntropy, "backward", staticmethod(wrong))
    with pytest.raises(GradientError) as refused:
        run(Objective(SOFTMAX, torch.tensor(L2), False), 3)
    told = str(refused.value)
    assert told.startswith("weight: of another shape, got [")
    assert "in the backward of _LinearCrossEntropyEager" in told
    assert f"test_gradient_check.py:{wrong.__code__.co_firstlineno}; nothing" in told
