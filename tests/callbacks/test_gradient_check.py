"""The check proves the right gradient and refuses a wrong one, of the weight, the bias and the penalty each."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from handgrad.callbacks.gradient_check import GradientCheck
from handgrad.errors import GradientError
from handgrad.functions.objective import LOGISTIC, SOFTMAX, Objective
from handgrad.functions.proof import terms
from tests.callbacks.test_checkpointing import toy_fit

L2 = [0.0, 0.02, 2.0]
TOLERANCE = 1e-8  # that of conf/callbacks/default.yaml


class Logger:
    def __init__(self) -> None:
        self.told: list = []

    def log_metrics(self, metrics, step) -> None:
        self.told.append((metrics, step))


def first_batch(classes: int, features: int = 6, samples: int = 20):
    generator = torch.Generator().manual_seed(1)
    input = torch.rand(samples, features, generator=generator)  # float32, as a run's; the check is in float64
    return input, torch.arange(samples) % classes


def run(
    objective: Objective, outputs: int, callback: GradientCheck | None = None, logger: Logger | None = None
) -> None:
    """Lets the check look at a made-up model and trainer."""
    batch = first_batch(max(outputs, 2))
    model = SimpleNamespace(objective=lambda: objective, bias=torch.zeros(len(objective.l2), outputs))
    trainer = SimpleNamespace(train_dataloader=[[batch]], logger=logger, global_step=0)
    (callback or GradientCheck(TOLERANCE, directions=4, classifiers=16)).on_train_start(trainer, model)


LOSSES = pytest.mark.parametrize(("loss", "outputs"), [(SOFTMAX, 3), (LOGISTIC, 1)], ids=["softmax", "logistic"])
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


@pytest.mark.parametrize("path", [0, 1, 2])
def test_the_worst_classifier_is_named(path):
    wrong = Wrong(SOFTMAX, torch.tensor(L2), change=lambda dw, db, w, b, l2: dw[path].mul_(1.5))
    with pytest.raises(GradientError, match=f"^the derived gradient of the objective at l2={L2[path]:g} differs"):
        run(wrong, 3)


def test_the_tolerance_is_the_largest_error_accepted():
    wrong = Wrong(SOFTMAX, torch.tensor([0.0]), change=lambda dw, db, w, b, l2: (dw.mul_(1.001), db.mul_(1.001)))
    run(wrong, 3, GradientCheck(1.01e-3, 4, 16))
    with pytest.raises(GradientError, match=r"by 1\.0e-03 \(relative\); at most 1e-03 is accepted"):
        run(wrong, 3, GradientCheck(0.99e-3, 4, 16))


# --- what is checked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "classifiers", "chosen"),
    [(3, 16, [0, 1, 2]), (5, 2, [0, 4]), (5, 3, [0, 2, 4]), (4, 3, [0, 2, 3]), (5, 1, [0]), (1, 3, [0])],
)
def test_of_a_long_path_evenly_spread_classifiers_are_checked(paths, classifiers, chosen):
    objective = Objective(SOFTMAX, torch.arange(float(paths)), True, total=lambda tensor: tensor)
    checked = GradientCheck(TOLERANCE, 4, classifiers).checked(objective)
    assert checked.l2.tolist() == chosen
    assert checked.l2.dtype == torch.float64
    assert checked.total is None
    assert (checked.loss, checked.penalize_bias) == (SOFTMAX, True)


def test_a_run_is_checked_before_its_first_update(monkeypatch):
    seen = []

    def watched(objective, outputs, input, target, directions):
        seen.append((tuple(input.shape), outputs, objective.l2.tolist(), directions))
        return terms(objective, outputs, input, target, directions)

    monkeypatch.setattr("handgrad.callbacks.gradient_check.terms", watched)
    result = toy_fit([GradientCheck(TOLERANCE, 4, 16)])
    assert seen == [((10, 4), 3, [0, 0.5], 4)]
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
