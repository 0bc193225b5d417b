import numpy as np
import pytest
import torch

from handgrad.loggers.tensorboard import TensorBoardPathLogger
from handgrad.runs.results import number, read_results
from report.events import Curve, Run, block_mean, read_scalars


def log(logger: TensorBoardPathLogger, first: int, values: list[float]) -> None:
    logger.log_path(first, {"loss/train": torch.tensor(values, dtype=torch.float64)[:, None]}, torch.tensor([True]))
    logger.save()


def test_reads_what_was_written(tmp_path):
    values = [0.5, 0.25, 0.125, 1e-3]
    log(TensorBoardPathLogger(tmp_path, [0.0]), 7, values)
    curve = read_scalars(tmp_path)["loss/train"]
    assert curve.step.tolist() == [7, 8, 9, 10]
    assert curve.value.tolist() == np.float32(values).tolist()
    assert curve.at(9) == 0.125


def test_a_resumed_session_makes_later_steps_void(tmp_path):
    log(TensorBoardPathLogger(tmp_path, [0.0]), 0, [1, 2, 3, 4, 5])
    resumed = TensorBoardPathLogger(tmp_path, [0.0])
    resumed.resume(2)
    log(resumed, 3, [30, 40])
    curve = read_scalars(tmp_path)["loss/train"]
    assert curve.step.tolist() == [0, 1, 2, 3, 4]
    assert curve.value.tolist() == [1, 2, 3, 30, 40]


def test_a_run_of_several_l2_values_is_read_from_its_folders(splits):
    curves = splits["report"].path.curves(0.02)
    assert set(curves) == {"loss/train", "loss/val", "accuracy/train", "accuracy/val"}
    assert len(curves["loss/train"].step) == 240


def test_block_mean_and_standard_deviation_leave_nothing_out():
    values = np.arange(25, dtype=float)
    step, mean, spread = block_mean(Curve(np.arange(25), values), 10)
    assert step.tolist() == [4.5, 14.5, 22]
    assert mean.tolist() == [4.5, 14.5, 22]
    assert spread == pytest.approx([8.25**0.5, 8.25**0.5, 2**0.5])


def test_results_are_numbers_and_what_is_missing_is_none(tmp_path):
    (tmp_path / "results.csv").write_text("task,l2,test_loss,val_loss\nsoftmax,0.0,,0.25\nsoftmax,2.0,,1.5\n")
    assert read_results(tmp_path / "results.csv")[1] == {
        "task": "softmax",
        "l2": 2.0,
        "test_loss": None,
        "val_loss": 1.5,
    }
    assert Run(tmp_path).row(2.0)["val_loss"] == 1.5
    assert [number("1e-3"), number("x"), number("")] == [0.001, "x", None]
