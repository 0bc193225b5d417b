"""Which curves are written, at which update, and of which classifiers."""

import math
from types import SimpleNamespace

import pytest
import torch

from handgrad.callbacks.curves import Curves
from handgrad.callbacks.early_stopping import PathEarlyStopping
from handgrad.loggers.tensorboard import TensorBoardPathLogger
from tests.callbacks.test_checkpointing import BATCHES, EPOCHS, INTERVAL, toy_fit
from tests.loggers.test_tensorboard import scalars

UPDATES = BATCHES * EPOCHS


class Logger:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list = []

    def log_path(self, step, curves, running) -> None:
        self.told.append((step, {name: values.tolist() for name, values in curves.items()}, running.tolist()))

    def resume(self, step, step_of_path=None) -> None:
        self.told.append((step, step_of_path))


def made_up(global_step: int = 6):
    model = SimpleNamespace(
        steps=torch.tensor([6, 4]),
        moved=torch.tensor([True, False]),  # the second one has stopped
        metrics={"loss/val": torch.tensor([0.5, 0.25]), "penalty": torch.tensor([0.0, 1.0])},
    )
    return SimpleNamespace(logger=Logger(), global_step=global_step), model


def test_a_block_is_logged_from_the_update_after_its_first_on():
    trainer, model = made_up()
    losses = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    Curves().on_train_batch_end(trainer, model, {"loss": losses}, SimpleNamespace(first=4), 0)
    assert trainer.logger.told == [(5, {"loss/train": [[1, 2], [3, 4]]}, [True, False])]


def test_a_check_is_logged_at_its_update():
    trainer, model = made_up()
    Curves().on_validation_end(trainer, model)
    assert trainer.logger.told == [(6, {"loss/val": [[0.5, 0.25]], "penalty": [[0, 1]]}, [True, False])]


def test_a_resumed_run_tells_where_it_goes_on():
    for step, one_at_a_time, told in ((0, False, []), (6, False, [(6, None)]), (6, True, [(6, -1)])):
        trainer, model = made_up(step)
        model.pipeline = SimpleNamespace(one_at_a_time=one_at_a_time)
        Curves().on_train_start(trainer, model)
        assert trainer.logger.told == told
    trainer, model = made_up(0)
    Curves().on_test_start(trainer, model)
    assert trainer.logger.told == [(0, 6)]


def test_without_a_logger_nothing_happens():
    trainer, model = made_up()
    trainer.logger = None
    curves = Curves()
    curves.on_train_start(trainer, model)
    curves.on_train_batch_end(trainer, model, {"loss": torch.zeros(1, 2)}, SimpleNamespace(first=0), 0)
    curves.on_validation_end(trainer, model)
    curves.on_test_start(trainer, model)


def test_a_runs_curves(tmp_path):
    result = toy_fit([Curves()], tmp_path, logger=TensorBoardPathLogger(tmp_path, [0, 0.5]))
    for l2, row in zip(("0", "0.5"), result.rows, strict=True):
        train, val = (scalars(tmp_path / f"l2={l2}", name) for name in ("loss/train", "loss/val"))
        assert [step for step, _ in train] == [*range(1, UPDATES + 1)]
        assert [step for step, _ in val] == [*range(INTERVAL, UPDATES + 1, INTERVAL)]
        assert train[0][1] == pytest.approx(math.log(3))  # before the first update all classes are as likely
        assert min((value, step) for step, value in val) == (pytest.approx(row["val_loss"]), row["best_step"])


def test_a_stopped_classifiers_curves_end(tmp_path):
    callbacks = [Curves(), PathEarlyStopping(2)]
    result = toy_fit(callbacks, tmp_path, logger=TensorBoardPathLogger(tmp_path, [0, 0.5]))
    assert [row["steps"] for row in result.rows] == [8, 18]
    for l2, steps in (("0", 8), ("0.5", 18)):
        for name in ("loss/train", "loss/val"):
            assert scalars(tmp_path / f"l2={l2}", name)[-1][0] == steps
