"""When a run saves its state, that it goes on from there as if nothing had been, and how it obeys a signal."""

import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from handgrad.callbacks import checkpointing
from handgrad.callbacks.checkpointing import Checkpointing
from handgrad.data.base import LinearDataModule
from handgrad.fit import Result, fit
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.runs.checkpoint import WholeCheckpointIO
from handgrad.runs.folder import BEST, LAST
from handgrad.runs.signals import Interrupted, stopping
from handgrad.solvers.sgd import SGD

BATCHES, INTERVAL, EPOCHS = 10, 2, 3  # of the toy: updates per epoch, updates between two checks


class Toy(LinearDataModule):
    """100 training and 40 validation samples of three classes that overlap."""

    classes, num_features = [0, 1, 2], 4

    def read(self):
        generator = torch.Generator().manual_seed(0)
        sets = {}
        for name, samples in (("train", 100), ("val", 40)):
            target = torch.arange(samples) % 3
            noise = torch.randn(samples, 4, generator=generator)
            sets[name] = noise + torch.eye(3, 4)[target], target
        return sets


def toy_fit(callbacks: Sequence[pl.Callback], folder: Path | None = None, lr: float = 0.1, **more) -> Result:
    """Trains a path of two classifiers for 30 updates, with a check after every second one.

    The first one's validation loss is smallest after update 4, the second one's after 14 and again after 30.
    """
    data = Toy(shuffle=True, batch_size=10, seed=0, epochs=EPOCHS)
    model = SoftmaxRegression(num_features=4, num_classes=3, l2=[0, 0.5])
    return fit(data, model, SGD(lr, momentum=0.9), callbacks, folder, threads=1, accelerator="cpu", **more)


@pytest.fixture(autouse=True)
def signals(monkeypatch):
    """No signal has come, and the handlers are not the program's."""
    for name, value in (("installed", False), ("put_off", False), ("signal", None)):
        monkeypatch.setattr(stopping, name, value)


class Signal(pl.Callback):
    """Sends the run a signal in the update that makes ``global_step`` this; notes whether it was told to wait."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            self.put_off = stopping.put_off
            stopping.signal = signal.SIGTERM


# --- toy runs --------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_last_state_and_its_best_weights(tmp_path):
    model = toy_fit([Checkpointing()], tmp_path, lr=0.5).model
    assert (model.best_step < BATCHES * EPOCHS).all(), "else the best weights are the last ones"
    last = WholeCheckpointIO().load_checkpoint(tmp_path / LAST)
    assert last["global_step"] == BATCHES * EPOCHS
    assert torch.equal(last["state_dict"]["weight"], model.weight)
    best = WholeCheckpointIO().load_checkpoint(tmp_path / BEST)
    assert torch.equal(best["state_dict"]["weight"], model.best_weight)
    assert torch.equal(best["state_dict"]["bias"], model.best_bias)
    assert "callbacks" not in best
    assert not torch.equal(model.best_weight, model.weight)
    assert best["handgrad"]["data"]["num_features"] == 4
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "best.ckpt",
        "last.ckpt",
        "model.json",
        "model.safetensors",
        "results.csv",
    ]


@pytest.mark.parametrize("step", [2, 8, 10, 16, 30])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(step, tmp_path):
    sent = Signal(step)
    with pytest.raises(Interrupted) as caught:
        toy_fit([sent, Checkpointing(every_seconds=1e9)], tmp_path)
    assert (caught.value.number, caught.value.folder, caught.value.done) == (
        signal.SIGTERM,
        tmp_path,
        f"{step} updates",
    )
    assert sent.put_off
    assert not stopping.put_off
    saved = WholeCheckpointIO().load_checkpoint(tmp_path / LAST)
    assert saved["global_step"] == step
    assert saved["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] == step // BATCHES
    assert not (tmp_path / "results.csv").exists()
    stopping.signal = None
    found, expected = toy_fit([Checkpointing()], tmp_path), toy_fit([])
    for row, wanted in zip(found.rows, expected.rows, strict=True):
        assert row | {"seconds": 0} == wanted | {"seconds": 0}
    assert torch.equal(found.model.weight, expected.model.weight)
    assert torch.equal(found.model.best_weight, expected.model.best_weight)


def test_a_signal_is_obeyed_at_the_next_check(tmp_path):
    class Early(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 4:
                stopping.signal = signal.SIGINT

    with pytest.raises(Interrupted) as caught:
        toy_fit([Early(), Checkpointing(every_seconds=1e9)], tmp_path)
    assert (caught.value.number, caught.value.done) == (signal.SIGINT, f"{4 + INTERVAL} updates")


def test_without_it_nothing_is_saved(tmp_path):
    toy_fit([], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors", "results.csv"]


# --- when ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def trainer(tmp_path):
    """A made-up trainer that writes down what is asked of it; ``others`` is what other processes say of a signal, and
    of a save."""
    calls: list = []
    others = [0, 0]

    def reduce(mine, reduce_op):
        assert reduce_op == "max"
        return torch.maximum(mine, torch.tensor(others))

    def save_checkpoint(path, weights_only):
        calls.append((Path(path).relative_to(tmp_path), weights_only))

    yield SimpleNamespace(
        calls=calls,
        others=others,
        is_global_zero=True,
        strategy=SimpleNamespace(reduce=reduce, root_device=torch.device("cpu"), launcher=None),
        save_checkpoint=save_checkpoint,
        logger=None,
        default_root_dir=str(tmp_path),
        global_step=6,
        datamodule=SimpleNamespace(total_updates=30, batches=10, one_at_a_time=False, normalization=None),
    )
    stopping.signal = None


def saves(trainer) -> list:
    found = [*trainer.calls]
    trainer.calls.clear()
    return found


def test_it_saves_when_its_time_has_come(trainer, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now[0])
    callback = Checkpointing(every_seconds=5)
    callback.on_train_start(trainer, None)
    for time, due in ((104.9, False), (105.0, True), (109.0, False), (110.0, True), (114.9, False), (200.0, True)):
        now[0] = time
        callback.on_validation_end(trainer, None)
        assert saves(trainer) == ([(LAST, False)] if due else []), time
    callback.on_train_end(trainer, None)
    assert saves(trainer) == [(LAST, False)]  # whatever the time


def test_zero_seconds_are_every_check(trainer, monkeypatch):
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: 1.0)
    callback = Checkpointing(every_seconds=0)
    callback.on_train_start(trainer, None)
    for _ in range(3):
        callback.on_validation_end(trainer, None)
        assert saves(trainer) == [(LAST, False)]


def test_the_curves_are_on_disk_before_the_checkpoint(trainer):
    trainer.logger = SimpleNamespace(save=lambda: trainer.calls.append(("curves", None)))
    Checkpointing().on_train_end(trainer, None)
    assert saves(trainer) == [("curves", None), (LAST, False)]


@pytest.mark.parametrize("own", [None, signal.SIGINT], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_all_processes_obey_a_signal_that_any_of_them_has_got(own, first, trainer):
    """One that has heard of no signal, and whose clock says no, saves and stops when another one does."""
    trainer.is_global_zero, trainer.others[0] = first, signal.SIGTERM
    stopping.signal = own
    callback = Checkpointing(every_seconds=1e9)
    callback.on_train_start(trainer, None)
    with pytest.raises(Interrupted) as caught:
        callback.on_validation_end(trainer, None)
    assert (caught.value.number, caught.value.done) == (signal.SIGTERM, "6 updates")
    assert saves(trainer) == [(LAST, False)]
    trainer.others[0] = 0
    stopping.signal = signal.SIGINT
    with pytest.raises(Interrupted):
        callback.on_train_end(trainer, None)


def test_the_first_ones_clock_counts(trainer):
    callback = Checkpointing(every_seconds=0)
    callback.on_train_start(trainer, None)
    trainer.is_global_zero = False
    callback.on_validation_end(trainer, None)
    assert saves(trainer) == [], "this one's own says that a save is due"
    trainer.others[1] = 1
    callback.on_validation_end(trainer, None)
    assert saves(trainer) == [(LAST, False)]


def test_signals_wait_in_training_alone(trainer):
    callback = Checkpointing()
    for stage, waits in (("fit", True), ("test", False), ("validate", False)):
        callback.setup(trainer, None, stage)
        assert stopping.put_off is waits
    callback.setup(trainer, None, "fit")
    callback.teardown(trainer, None, "fit")
    assert not stopping.put_off


def test_an_error_ends_the_other_processes_and_lets_signals_through(trainer):
    ended = []
    process = SimpleNamespace(kill=lambda: ended.append("killed"), wait=lambda: ended.append("waited"))
    trainer.strategy.launcher = SimpleNamespace(procs=[process, process])
    callback = Checkpointing()
    callback.setup(trainer, None, "fit")
    callback.on_exception(trainer, None, KeyError())
    assert ended == ["killed", "waited"] * 2
    assert trainer.strategy.launcher.procs == []  # Lightning's watchman has nobody left to watch
    assert not stopping.put_off
