"""A loss that is no longer finite ends the run, and the line says which, of whom and when."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.utilities.data import AttributeDict

from handgrad.callbacks.divergence_check import DivergenceCheck
from handgrad.errors import InputError
from tests.callbacks.test_checkpointing import toy_fit

MODEL = SimpleNamespace(hparams=AttributeDict(l2=[0.0, 0.02, 2.0]))


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
    model = SimpleNamespace(hparams=MODEL.hparams, metrics={"loss/val": torch.tensor([1.0, math.nan, 1.0])})
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
