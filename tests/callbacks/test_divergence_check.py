"""A loss that is no longer finite ends the run, and the line says which, of whom and when."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.utilities.data import AttributeDict

from handgrad.callbacks.divergence_check import DivergenceCheck
from handgrad.errors import InputError
from handgrad.functions.objective import LOGISTIC, MULTILABEL, SOFTMAX
from tests.callbacks.test_checkpointing import toy_fit

MODEL = SimpleNamespace(
    hparams=AttributeDict(l2=[0.0, 0.02, 2.0]), active=torch.ones(3), moved=torch.ones(3, dtype=torch.bool), metrics={}
)


def told(name: str, value: str, l2: str, updates: int) -> str:
    return f"{name} is {value} at l2={l2} after {updates} updates: training diverged; try a smaller lr"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("row", "path", "l2"), [(0, 0, "0"), (1, 1, "0.02"), (2, 2, "2")])
def test_the_loss_the_classifier_and_the_update_are_named(value, row, path, l2):
    """The loss of row i of a block that begins after 40 updates was measured after 40 + i."""
    losses = torch.ones(3, 3, dtype=torch.float64)
    losses[row, path] = value
    with pytest.raises(InputError) as caught:
        DivergenceCheck().on_train_batch_end(None, MODEL, {"loss": losses}, SimpleNamespace(first=40), 0)
    assert str(caught.value) == told("loss/train", str(value), l2, 40 + row)


def test_of_several_the_first_update_is_named():
    losses = torch.ones(4, 3)
    losses[2:, 0] = math.nan
    losses[1, 2] = math.inf
    with pytest.raises(InputError) as caught:
        DivergenceCheck().on_train_batch_end(None, MODEL, {"loss": losses}, SimpleNamespace(first=0), 0)
    assert str(caught.value) == told("loss/train", "inf", "2", 1)


def test_the_validation_loss_is_of_the_updates_so_far():
    model = SimpleNamespace(
        hparams=MODEL.hparams, moved=MODEL.moved, metrics={"loss/val": torch.tensor([1.0, math.nan, 1.0])}
    )
    with pytest.raises(InputError) as caught:
        DivergenceCheck().on_validation_end(SimpleNamespace(global_step=6), model)
    assert str(caught.value) == told("loss/val", "nan", "0.02", 6)


def test_large_losses_are_finite():
    losses = torch.tensor([[torch.finfo(torch.float64).max, 0.0, 1e300]], dtype=torch.float64)
    DivergenceCheck().on_train_batch_end(None, MODEL, {"loss": losses}, SimpleNamespace(first=0), 0)


def test_a_run_that_diverges_is_ended():
    """With lr * l2 = 50 each update multiplies the second classifier's weights by -49; the first one's stay finite."""
    with pytest.raises(InputError, match=r"^loss/\w+ is (nan|inf) at l2=0\.5 after \d+ updates: training diverged"):
        toy_fit([DivergenceCheck()], lr=100)


# --- finite and yet diverged -----------------------------------------------------------------------------------------


def ended(*blocks, val, active=(1, 1, 1), check=None, best=(0.1, 0.1, 0.1), outputs=10, labels=False):
    """Lets the check see blocks of losses (B, 3) and the end of a training."""
    check, first = check or DivergenceCheck(), 0
    model = SimpleNamespace(**{**vars(MODEL), "metrics": {"loss/val": torch.tensor(val)}})
    model.best_loss, model.bias = torch.tensor(best, dtype=torch.float64), torch.zeros(3, outputs)
    model.criterion = MULTILABEL if labels else LOGISTIC if outputs == 1 else SOFTMAX
    for block in blocks:
        check.on_train_batch_end(None, model, {"loss": torch.tensor(block)}, SimpleNamespace(first=first), 0)
        model.active, first = torch.tensor(active), first + len(block)
    check.on_train_end(SimpleNamespace(is_global_zero=True), model)
    return check


def test_a_loss_that_ends_above_its_start_is_told(caplog):
    ended([[2.3, 2.3, 2.3], [9.0, 1.0, 1.0]], [[1e11, 1.0, 1.0], [3e11, 1.0, 1.0]], val=[1e11, 1.1, 1.1])
    assert caplog.messages == [
        "loss/train ended above its start: 2e+11 at l2=0 (2.3): training diverged; try a smaller lr"
    ]


@pytest.mark.parametrize(("last", "val"), [(9.0, 1.0), (1.0, 9.0)], ids=["noise of few mini-batches", "overfitting"])
def test_one_of_both_alone_is_no_divergence(last, val, caplog):
    ended([[2.3, 2.3, 2.3]], [[last, 1.0, 1.0]], val=[val, 1.0, 1.0])
    assert not caplog.messages


def test_what_samples_weigh_in_a_mini_batch_is_no_divergence(caplog):
    ended([[1.09] * 3], [[1.11] * 3], val=[1.2] * 3, best=(1.1,) * 3, outputs=3)
    assert not caplog.messages


def test_of_a_stopped_classifier_its_last_own_losses_count(caplog):
    ended([[2.0, 2.0, 2.0]], [[1.0, 1.0, 9.0]], val=[1.0, 1.0, 9.0], active=(1, 1, 0))
    assert not caplog.messages, "what is told of it after its stop has no meaning"


def test_a_resumed_run_knows_where_it_began(caplog):
    state = ended([[2.0, 2.0, 2.0]], val=[1.0, 1.0, 1.0]).state_dict()
    check = DivergenceCheck()
    check.load_state_dict(state)
    ended([[5.0, 4.0, 1.0]], val=[5.0, 5.0, 1.0], check=check)
    assert caplog.messages == [
        "loss/train ended above its start: 5 at l2=0 (2), 4 at l2=0.02 (2): training diverged; try a smaller lr"
    ]


FINE = {"val": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("outputs", "zero", "labels"),
    [
        (1, math.log(2), False),
        (2, math.log(2), False),
        (3, math.log(3), False),
        (10, math.log(10), False),
        (4, 4 * math.log(2), True),
    ],
)
def test_best_weights_that_are_worse_than_none_are_told(outputs, zero, labels, caplog):
    """The last mini-batches' loss may have shrunk meanwhile."""
    ended([[9.0] * 3], [[1.0] * 3], **FINE, best=(zero, 1.09 * zero, 1.11 * zero), outputs=outputs, labels=labels)
    assert caplog.messages == [
        f"the best loss/val is above that of weights that are zero: {1.11 * zero:.4g} at l2=2 ({zero:.4g}): "
        f"training diverged, or samples are too few; try a smaller lr"
    ]


def test_a_classifier_is_told_once(caplog):
    ended([[2.0] * 3], [[9.0, 1.0, 1.0]], val=[9.0, 1.0, 1.0], best=(8.0, 8.0, 1.0))
    assert [text.partition(":")[0] for text in caplog.messages] == [
        "loss/train ended above its start",
        "the best loss/val is above that of weights that are zero",
    ]
    assert "l2=0 " in caplog.messages[0]
    assert "8 at l2=0.02 (2.303): training" in caplog.messages[1]


@pytest.mark.parametrize("best", [math.inf, math.nan], ids=["before the first check", "of no classifier yet"])
def test_what_is_not_known_is_not_told(best, caplog):
    ended([[9.0] * 3], [[1.0] * 3], **FINE, best=(best,) * 3)
    assert not caplog.messages


def test_an_optimum_of_another_solver_may_overfit_as_it_likes(caplog):
    """Exact solvers tell no losses before updates, and their weights are not chosen by validation."""
    ended(val=[9.0] * 3, best=(9.0,) * 3)
    assert not caplog.messages


TOO_LARGE = ("experiment=report_logistic", "lr=1e9", "data.train_size=500", "batch_size=100", "epochs=100")


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (TOO_LARGE, True),
        (("experiment=report_softmax", "lr=1e6", "data.train_size=1000", "epochs=60"), True),
        (("experiment=report_l2", "epochs=2"), False),
        (("task=softmax", "l2=2.0", "epochs=1"), False),
        (("task=softmax", "batch_size=1", "data.train_size=5000", "epochs=1"), False),
        (("task=softmax", "optimizer=adam", "lr=0.001", "epochs=1"), False),
        (("task=softmax", "data.train_size=10", "batch_size=10", "epochs=20"), False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_runs_that_diverged_are_told_and_no_others(words, warned, run, caplog):
    run(*words, "logger=none")
    assert ("training diverged" in caplog.text) == warned


def test_a_run_of_its_own_is_warned_of(caplog):
    toy_fit([DivergenceCheck()], lr=3)
    assert "at l2=0 (1.099)" in caplog.text
    assert "training diverged; try a smaller lr" in caplog.text
    caplog.clear()
    toy_fit([DivergenceCheck()])
    assert "diverged" not in caplog.text
