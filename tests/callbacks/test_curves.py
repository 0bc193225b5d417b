"""Which curves are written, at which update, and of which classifiers."""

import csv
import math
import re
from types import SimpleNamespace

import pytest
import torch

from handgrad.callbacks.checkpointing import Checkpointing
from handgrad.callbacks.curves import Curves
from handgrad.callbacks.early_stopping import PathEarlyStopping
from handgrad.cli.configuration import CONF
from handgrad.loggers.tensorboard import TensorBoardPathLogger
from handgrad.runs.signals import Interrupted, stopping
from tests.callbacks.test_checkpointing import BATCHES, EPOCHS, INTERVAL, Signal, signals, toy_fit  # noqa: F401
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


def test_the_file_of_a_run_holds_the_same_points(tmp_path):
    result = toy_fit([Curves(), PathEarlyStopping(2)], tmp_path, logger=TensorBoardPathLogger(tmp_path, [0, 0.5]))
    with open(tmp_path / "curves.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for l2 in (0, 0.5):
        for name in ("loss/train", "loss/val", "accuracy/val", "penalty"):
            ours = [
                (int(row["step"]), float(row["value"]))
                for row in rows
                if (row["metric"], row["l2"]) == (name, f"{l2:.1f}")
            ]
            theirs = scalars(tmp_path / f"l2={l2}", name)
            assert [*sum(ours, ())] == pytest.approx([*sum(theirs, ())]), "which TensorBoard rounds to float32"
    best = min(
        (float(row["value"]), int(row["step"])) for row in rows if row["metric"] == "loss/val" and row["l2"] == "0.5"
    )
    assert best == (result.rows[1]["val_loss"], result.rows[1]["best_step"])


def test_the_lines_of_the_readme_draw_it(tmp_path, monkeypatch):
    toy_fit([Curves()], tmp_path / "outputs/my_run")
    (lines,) = re.findall(r"```python\n(import matplotlib.*?)```", (CONF.parent / "README.md").read_text(), re.DOTALL)
    assert sum(map(bool, lines.splitlines())) == 5
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    found: dict = {}
    exec(lines, found)
    train, val = found["plt"].gca().lines
    found["plt"].close()
    assert (train.get_label(), val.get_label()) == ("loss/train", "loss/val")
    assert sorted(set(train.get_xdata())) == [*range(1, UPDATES + 1)]
    assert sorted(set(val.get_xdata())) == [*range(INTERVAL, UPDATES + 1, INTERVAL)]
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize("step", [8, 30])
def test_a_stopped_run_goes_on_to_the_same_file(step, tmp_path):
    toy_fit([Curves(), Checkpointing()], tmp_path / "unbroken")
    with pytest.raises(Interrupted):
        toy_fit([Curves(), Signal(step), Checkpointing(every_seconds=0)], tmp_path / "stopped")
    stopped = (tmp_path / "stopped/curves.csv").read_bytes()
    stopping.signal = None
    toy_fit([Curves(), Checkpointing()], tmp_path / "stopped")
    whole = (tmp_path / "unbroken/curves.csv").read_bytes()
    assert (tmp_path / "stopped/curves.csv").read_bytes() == whole
    assert whole.startswith(stopped), "what there was when it stopped could be drawn, too"


def test_without_a_folder_there_is_no_file():
    curves = Curves()
    toy_fit([curves])
    assert curves.file is None


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
