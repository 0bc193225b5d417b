"""Each classifier is stopped by its own checks, and a resumed run goes on counting."""

from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.utilities.data import AttributeDict

from handgrad.callbacks.checkpointing import Checkpointing
from handgrad.callbacks.early_stopping import PathEarlyStopping
from handgrad.runs.folder import LAST
from tests.callbacks.test_checkpointing import toy_fit


class Path:
    """A made-up path of classifiers and its trainer, with a check after every update."""

    def __init__(self, paths: int) -> None:
        self.model = SimpleNamespace(
            hparams=AttributeDict(l2=[0.5 * path for path in range(paths)]),
            active=torch.ones(paths),
            steps=torch.zeros(paths, dtype=torch.int64),
            best_step=torch.zeros(paths, dtype=torch.int64),
        )
        self.trainer = SimpleNamespace(should_stop=False, global_step=0)

    def check(self, callback: PathEarlyStopping, *improved: bool) -> list[int]:
        """Makes an update and a check; returns which classifiers still train."""
        self.trainer.global_step += 1
        self.model.steps += self.model.active.to(torch.int64)
        better = torch.tensor(improved) & (self.model.active > 0)
        self.model.best_step[better] = self.model.steps[better]
        callback.on_validation_end(self.trainer, self.model)
        return self.model.active.tolist()


def begun(patience: int | None, paths: int) -> tuple[PathEarlyStopping, Path]:
    callback, path = PathEarlyStopping(patience), Path(paths)
    callback.on_train_start(path.trainer, path.model)
    return callback, path


def test_checks_without_a_smaller_loss_are_counted_per_classifier():
    callback, path = begun(2, 3)
    assert path.check(callback, True, True, True) == [1, 1, 1]
    assert path.check(callback, False, True, False) == [1, 1, 1]
    assert path.check(callback, True, False, False) == [1, 1, 0]  # the first one's count began anew
    assert not path.trainer.should_stop
    assert path.check(callback, False, False, False) == [1, 0, 0]
    assert path.check(callback, False, True, True) == [0, 0, 0]
    assert path.trainer.should_stop
    assert path.model.steps.tolist() == [5, 4, 3]


def test_a_stopped_one_does_not_come_back():
    callback, path = begun(1, 2)
    assert path.check(callback, True, False) == [1, 0]
    for _ in range(3):
        assert path.check(callback, True, True) == [1, 0]
    assert not path.trainer.should_stop


def test_patience_of_one_stops_at_the_first_check_without_a_smaller_loss():
    callback, path = begun(1, 1)
    assert path.check(callback, True) == [1]
    assert path.check(callback, False) == [0]
    assert path.trainer.should_stop


def test_without_patience_nothing_is_stopped():
    callback, path = begun(None, 2)
    for _ in range(100):
        assert path.check(callback, False, False) == [1, 1]
    assert not path.trainer.should_stop


def test_the_log_tells_who_stopped_when(caplog):
    caplog.set_level("INFO")
    callback, path = begun(2, 2)
    for improved in ((True, True), (True, False), (True, False), (False, False)):
        path.check(callback, *improved)
    assert [record.getMessage() for record in caplog.records] == [
        "l2=0.5 stopped after 3 updates; its validation loss was best after 1"
    ]


def test_the_counts_are_saved_and_resumed():
    callback, path = begun(3, 2)
    for improved in ((True, True), (False, True), (False, True)):
        path.check(callback, *improved)
    state = callback.state_dict()
    assert state["wait"].tolist() == [2, 0]
    resumed = PathEarlyStopping(3)
    resumed.load_state_dict(state)
    resumed.on_train_start(path.trainer, path.model)
    assert path.check(resumed, False, False) == [0, 1]


def test_a_resumed_run_may_have_stopped_already():
    callback, path = begun(1, 2)
    path.model.active[:] = 0
    path.trainer.should_stop = False  # Lightning's is new
    callback.on_train_start(path.trainer, path.model)
    assert path.trainer.should_stop


def test_a_run_stops_each_at_its_own_update():
    rows = toy_fit([PathEarlyStopping(2)]).rows
    assert [(row["steps"], row["best_step"]) for row in rows] == [(8, 4), (18, 14)]
    never = toy_fit([PathEarlyStopping(100)]).rows
    assert [(row["steps"], row["best_step"]) for row in never] == [(30, 4), (30, 30)]


@pytest.mark.parametrize("step", [6, 8, 16])
def test_a_resumed_run_goes_on_counting(step, tmp_path):
    """It is stopped between checks that count: before the first classifier's stop, at it, and before the second's."""

    class Killed(Checkpointing):
        def on_validation_end(self, trainer, pl_module):
            super().on_validation_end(trainer, pl_module)
            if trainer.global_step == step:
                raise KeyError

    expected = toy_fit([PathEarlyStopping(2)])
    with pytest.raises(KeyError):
        toy_fit([PathEarlyStopping(2), Killed(every_seconds=0)], tmp_path)
    assert (tmp_path / LAST).exists()
    found = toy_fit([PathEarlyStopping(2), Checkpointing()], tmp_path)
    assert [row["steps"] for row in found.rows] == [row["steps"] for row in expected.rows] == [8, 18]
    assert torch.equal(found.model.weight, expected.model.weight)
