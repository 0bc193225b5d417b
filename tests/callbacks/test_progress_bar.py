"""The bar counts updates and shows the best classifier; without a terminal there is none."""

import io
import logging
import multiprocessing
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tqdm import tqdm

from handgrad.callbacks import progress_bar
from handgrad.callbacks.progress_bar import UpdateProgressBar
from tests.callbacks.test_checkpointing import toy_fit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show_on(stream: io.StringIO, monkeypatch) -> None:
    """Makes ``stream`` what tqdm writes to, in place of pytest's stderr."""
    monkeypatch.setattr(progress_bar, "tqdm", partial(tqdm, file=stream))


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    terminal = Terminal()
    show_on(terminal, monkeypatch)
    return terminal


@pytest.fixture
def trainer() -> SimpleNamespace:
    data = SimpleNamespace(total_updates=30, batches=10, epochs=3, one_at_a_time=False)
    return SimpleNamespace(datamodule=data, global_step=0, is_global_zero=True)


MODEL = SimpleNamespace(
    pipeline=SimpleNamespace(one_at_a_time=False),
    metrics={"loss/val": torch.tensor([0.75, 0.25, 0.5]), "accuracy/val": torch.tensor([0.125, 0.875, 0.9375])},
)


def trained(bar: UpdateProgressBar, trainer: SimpleNamespace, updates: int) -> None:
    trainer.global_step += updates
    bar.on_train_batch_end(trainer, MODEL, None, range(updates), 0)
    bar.on_validation_end(trainer, MODEL)


def last(terminal: Terminal) -> str:
    """Returns what a terminal shows at the end."""
    return terminal.getvalue().rstrip("\n").rpartition("\r")[2]


def test_updates_are_counted_and_the_best_classifier_is_shown(terminal, trainer):
    bar = UpdateProgressBar()
    bar.on_train_start(trainer, MODEL)
    for _ in range(3):
        trained(bar, trainer, 4)
    assert (bar.bar.n, bar.bar.total) == (12, 30)
    bar.on_train_end(trainer, MODEL)
    assert last(terminal).startswith("Epoch 2/3:  40%|")
    assert " 12/30 [" in last(terminal)
    assert "val loss 0.2500, accuracy 0.8750" in last(terminal)


@pytest.mark.parametrize(("updates", "epoch"), [(2, 1), (9, 1), (10, 2), (19, 2), (20, 3), (30, 3)])
def test_the_epoch_is_the_one_that_is_next_and_no_more_than_there_are(updates, epoch, terminal, trainer):
    bar = UpdateProgressBar()
    bar.on_train_start(trainer, MODEL)
    trained(bar, trainer, updates)
    bar.on_train_end(trainer, MODEL)
    assert last(terminal).startswith(f"Epoch {epoch}/3:")


def test_a_resumed_run_begins_where_it_stopped(terminal, trainer):
    trainer.global_step = 16
    bar = UpdateProgressBar()
    bar.on_train_start(trainer, MODEL)
    trained(bar, trainer, 2)
    bar.on_train_end(trainer, MODEL)
    assert " 18/30 [" in last(terminal)


@pytest.mark.parametrize("hidden", ["no terminal", "disabled", "another process", "a worker"])
def test_it_is_hidden(hidden, trainer, monkeypatch):
    stream = io.StringIO() if hidden == "no terminal" else Terminal()
    show_on(stream, monkeypatch)
    trainer.is_global_zero = hidden != "another process"
    if hidden == "a worker":
        monkeypatch.setattr(multiprocessing.current_process(), "name", "LokyProcess-1")
    bar = UpdateProgressBar()
    if hidden == "disabled":
        bar.disable()
    bar.on_train_start(trainer, MODEL)
    trained(bar, trainer, 4)
    bar.on_train_end(trainer, MODEL)
    assert stream.getvalue() == ""


def test_an_error_ends_the_line(terminal, trainer):
    bar = UpdateProgressBar()
    bar.on_exception(trainer, MODEL, KeyError())  # before training there is no bar
    bar.on_train_start(trainer, MODEL)
    bar.on_exception(trainer, MODEL, KeyError())
    assert terminal.getvalue().endswith("\n")
    assert bar.bar.disable


def shown(written: str) -> list[str]:
    """Returns the lines of a terminal that got ``written``, where a return leads back to where the line begins."""
    lines = []
    for line in written.split("\n"):
        seen: list[str] = []
        for part in line.split("\r"):
            seen[: len(part)] = part
        lines.append("".join(seen).rstrip())
    return lines


def test_lines_of_the_log_stand_above_it(trainer, tmp_path, monkeypatch):
    """And not in its first line, or behind it; afterwards the log is as it was."""
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    log, handler, bar = logging.getLogger(), logging.StreamHandler(), UpdateProgressBar()
    later = logging.FileHandler(tmp_path / "log", delay=True)
    monkeypatch.setattr(log, "handlers", [handler, later])
    log.warning("before")
    bar.on_train_start(trainer, MODEL)
    log.warning("the first")
    trained(bar, trainer, 4)
    log.warning("the second")
    bar.on_train_end(trainer, MODEL)
    log.warning("after")
    later.close()
    *lines, drawn, after, end = shown(stderr.getvalue())
    assert lines == ["before", "the first", "the second"]
    assert drawn.startswith("Epoch 1/3:  13%|")
    assert (after, end) == ("after", "")
    assert handler.stream is stderr


@pytest.mark.parametrize(("columns", "has_rate"), [(60, False), (80, False), (140, True)])
def test_the_rate_makes_room_for_the_loss(columns, has_rate, terminal, trainer, monkeypatch):
    monkeypatch.setattr(progress_bar, "tqdm", partial(tqdm, file=terminal, ncols=columns))
    bar = UpdateProgressBar()
    bar.on_train_start(trainer, MODEL)
    trained(bar, trainer, 4)
    bar.on_train_end(trainer, MODEL)
    assert ("updates/s" in last(terminal), "val loss" in last(terminal)) == (has_rate, True)
    assert len(last(terminal)) <= columns


def test_a_run_fills_it(terminal):
    toy_fit([UpdateProgressBar()])
    assert last(terminal).startswith("Epoch 3/3: 100%|")
    assert " 30/30 [" in last(terminal)


def test_values_of_l2_are_counted_where_they_are_solved_one_by_one(terminal, trainer):
    pipeline = SimpleNamespace(one_at_a_time=True, report=lambda: {"gap": torch.tensor([torch.nan, 3e-7])})
    model = SimpleNamespace(pipeline=pipeline, moved=torch.tensor([False, True]), hparams={"l2": [0.1, 0.02]})
    trainer.datamodule.one_at_a_time = True
    bar = UpdateProgressBar()
    bar.on_train_start(trainer, model)
    bar.on_train_batch_end(trainer, model, None, range(1), 0)
    bar.on_validation_end(trainer, model)
    bar.on_train_end(trainer, model)
    assert " 1/30 [" in last(terminal)
    assert "l2 values" in last(terminal)
    assert "l2=0.02, gap 3.0e-07" in last(terminal)
