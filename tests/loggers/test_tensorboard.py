"""What TensorBoard reads of a run."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from handgrad.loggers.tensorboard import TensorBoardPathLogger
from handgrad.runs.results import COLUMNS
from report.events import read_scalars
from tests.conftest import results


def scalars(folder, tag):
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]


def test_a_resumed_run_has_no_gaps_or_duplicates(tmp_path):
    values = torch.arange(6.0)[:, None]
    first = TensorBoardPathLogger(tmp_path, [0.0])
    first.log_path(1, {"loss/train": values}, torch.tensor([True]))
    first.save()  # the run was killed after update 6, but its checkpoint is of update 4
    second = TensorBoardPathLogger(tmp_path, [0.0])
    second.resume(4)
    second.log_path(5, {"loss/train": 10 + values}, torch.tensor([True]))
    second.save()
    assert scalars(tmp_path, "loss/train") == [(1, 0), (2, 1), (3, 2), (4, 3)] + [(5 + i, 10 + i) for i in range(6)]


@pytest.mark.parametrize("now", [1_700_000_000.0, 5.0], ids=["a day", "no battery"])
def test_a_clock_that_was_set_back_hides_no_curve(now, tmp_path, monkeypatch):
    """TensorBoard reads the files of a run in the order of their names."""
    for session, clock in enumerate((1_700_086_400.0, now, now)):
        monkeypatch.setattr("handgrad.loggers.tensorboard.time.time_ns", lambda clock=clock: int(clock * 1e9))
        monkeypatch.setattr("handgrad.loggers.tensorboard.os.getpid", lambda session=session: 100 - session)
        logger = TensorBoardPathLogger(tmp_path, [0.0])
        logger.resume(2 * session)
        logger.log_path(2 * session + 1, {"loss/train": torch.full((3, 1), session)}, torch.tensor([True]))
        logger.save()
    steps = [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 2)]
    assert scalars(tmp_path, "loss/train") == steps
    curve = read_scalars(tmp_path)["loss/train"]
    assert list(zip(curve.step, curve.value, strict=True)) == steps, "the report reads the same"


def test_a_stopped_classifier_is_logged_no_more(tmp_path):
    logger = TensorBoardPathLogger(tmp_path, [0.0, 0.5])
    logger.log_path(0, {"loss/val": torch.tensor([[1.0, 2.0]])}, torch.tensor([True, True]))
    logger.log_path(1, {"loss/val": torch.tensor([[3.0, 4.0]])}, torch.tensor([True, False]))
    logger.save()
    assert scalars(tmp_path / "l2=0.0", "loss/val") == [(0, 1.0), (1, 3.0)]
    assert scalars(tmp_path / "l2=0.5", "loss/val") == [(0, 2.0)]


def test_hparams_have_the_real_metrics(run):
    folder = run("experiment=report_l2", "l2=[0,2]", "epochs=1")
    metadata = EventAccumulator(str(folder / "l2=2.0")).Reload().summary_metadata
    content = {tag: data.plugin_data.content for tag, data in metadata.items()}
    start = plugin_data_pb2.HParamsPluginData.FromString(content["_hparams_/session_start_info"])
    shown = {name: value.number_value or value.string_value for name, value in start.session_start_info.hparams.items()}
    row = {name: value or "" for name, value in results(folder)[1].items()}
    assert shown == {name: row[name] for name in row if name not in COLUMNS or name == "l2"}, "those of results.csv"
    assert shown["l2"] == 2
    ((_, value),) = scalars(folder / "l2=2.0", "final/val_accuracy")
    assert value == pytest.approx(results(folder)[1]["val_accuracy"])


def test_a_librarys_settings_without_the_penalty_are_shown_with_it(tmp_path):
    logger = TensorBoardPathLogger(tmp_path, [0.0, 0.5])
    logger.log_end({"lr": 0.1}, [{"lr": 0.1, "l2": l2, "val_loss": 1.0} for l2 in (0.0, 0.5)])
    metadata = EventAccumulator(str(tmp_path / "l2=0.5")).Reload().summary_metadata
    content = metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert {name: value.number_value for name, value in hparams.items()} == {"lr": 0.1, "l2": 0.5}


def test_train_and_val_share_a_chart(tmp_path):
    logger = TensorBoardPathLogger(tmp_path, [0.0])
    logger.log_metrics({"x": 1.0}, step=0)
    logger.save()
    assert "custom_scalars__config__" in EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]


def test_a_thousand_values_need_no_thousand_open_files(tmp_path):
    logger = TensorBoardPathLogger(tmp_path, [i / 1000 for i in range(1200)])
    logger.log_path(0, {"loss/val": torch.zeros(1, 1200)}, torch.ones(1200, dtype=torch.bool))
    logger.save()
    assert len(list(tmp_path.glob("l2=*/events.*"))) == 1200
