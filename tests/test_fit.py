"""The library's entry, as a program without Hydra calls it."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from handgrad.callbacks.checkpointing import Checkpointing
from handgrad.callbacks.curves import Curves
from handgrad.callbacks.divergence_check import DivergenceCheck
from handgrad.callbacks.early_stopping import PathEarlyStopping
from handgrad.callbacks.gradient_check import GradientCheck
from handgrad.classifier import Classifier
from handgrad.errors import InputError
from handgrad.fit import described, fit, pipeline
from handgrad.functions.objective import SOFTMAX, Objective
from handgrad.loggers.tensorboard import TensorBoardPathLogger
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.runs.checkpoint import plain
from handgrad.runs.checkpoint_file import read_checkpoint, sealed
from handgrad.runs.folder import LAST, MODEL, RESULTS
from handgrad.runs.results import COLUMNS, read_results
from handgrad.solvers.adam import Adam
from handgrad.solvers.sgd import SGD
from handgrad.solvers.solve import solve
from handgrad.training.trainer import block_trainer
from tests.data.test_base import Clouds, clouds

pytestmark = pytest.mark.slow  # trains


SOURCE = Path(__file__).parents[1] / "src"
L2 = (0.0, 0.05, 1.0)
SOLVERS = {
    "sgd": SGD(lr=0.1),
    "momentum": SGD(lr=0.05, momentum=0.9),
    "adam": Adam(lr=0.02),
}
CHECKS = 10  # of two epochs
BEFORE = {"task.name": "softmax", "lr": 0.1, "data.seed": 0}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """The current folder, which is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def made(data: Clouds, l2=L2) -> SoftmaxRegression:
    return SoftmaxRegression(num_features=data.num_features, num_classes=data.num_classes, l2=l2)


def fitted(*callbacks, folder=None, data=None, l2=L2, solver=SOLVERS["sgd"], **how):
    """Fits a path to the clouds, in one thread if not told otherwise."""
    data = data or clouds(shuffle=True)
    return fit(data, made(data, l2), solver, callbacks, folder, **{"threads": 1, "accelerator": "cpu"} | how)


def test_the_folder_has_the_chosen_classifier_before_it_counts_as_finished(tmp_path, monkeypatch):
    result = fitted(folder=tmp_path)
    chosen = Classifier.load(tmp_path / MODEL)
    entry = L2.index(result.selected["l2"])
    assert torch.equal(chosen.weight, result.model.best_weight[entry])
    assert torch.equal(chosen.bias, result.model.best_bias[entry])
    assert (chosen.task, chosen.classes, chosen.scaling) == ("softmax", ["left", "right", "top"], "as drawn")
    assert {name: getattr(chosen, name) for name in ("l2", "C", "gap")} == {
        name: result.selected[name] for name in ("l2", "C", "gap")
    }
    assert chosen.measures["val_loss"] == result.selected["val_loss"]
    assert chosen.versions["torch"] == torch.__version__

    def full(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(Classifier, "save", full)
    with pytest.raises(OSError, match="full"):
        fitted(folder=tmp_path / "other")
    assert not (tmp_path / "other" / RESULTS).exists()


class Failing(pl.Callback):
    """Raises at the check after ``updates``."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def on_validation_end(self, trainer, pl_module):
        if trainer.global_step == self.updates:
            raise OSError("gone")


class Watching(pl.Callback):
    """Writes down which blocks are trained."""

    def __init__(self) -> None:
        self.blocks = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.blocks.append(batch.first)


def measured(data, weight, bias, entry) -> dict[str, float]:
    """The figures of a classifier on every set, by torch's own functions."""
    found = {"weight_norm_squared": weight[entry].square().sum().item()}
    for split in ("train", "val", "test"):
        input, target = getattr(data, split)
        logits = input.double() @ weight[entry].double().T + bias[entry].double()
        found[f"{split}_loss"] = F.cross_entropy(logits, target).item()
        found[f"{split}_accuracy"] = (logits.argmax(1) == target).double().mean().item()
    return found


def test_a_row_for_each_l2_tells_what_its_classifier_measures():
    data = clouds(epochs=3)
    result = fitted(data=data, l2=(0.0, 3.0), solver=SGD(lr=0.5))
    model = result.model
    for entry, row in enumerate(result.rows):
        last = measured(data, model.weight.detach(), model.bias.detach(), entry)
        best = measured(data, model.best_weight, model.best_bias, entry)
        expected = best | {f"last_{name}": value for name, value in last.items()}
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert row["val_loss"] <= row["last_val_loss"]
        about = {"task": "softmax", "classes": "left right top", "scaling": "as drawn", "l2": (0.0, 3.0)[entry]}
        about |= {"epoch": 3, "steps": 75, "best_step": int(model.best_step[entry])}
        assert {name: row[name] for name in about} == about
        assert row["seconds"] > 0
        assert set(row) == set(described(data, model, SGD(lr=0.5), {"accelerator": "cpu"})) | set(COLUMNS)
    assert result.rows[1]["best_step"] < 75, "the test wants best weights that are not the last"


def test_a_run_leaves_its_results_and_its_weights_in_its_folder(tmp_path, here):
    folder = tmp_path / "deep" / "run"
    result = fitted(Checkpointing(), folder=str(folder), settings=BEFORE)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *("results.csv", "model.safetensors", "model.json"),
        *("checkpoints/last.ckpt", "checkpoints/best.ckpt"),
    }
    columns = [*(name for name in BEFORE if name != "l2"), *COLUMNS]
    assert (folder / "results.csv").read_text().splitlines()[0].split(",") == columns
    assert read_results(folder / "results.csv") == [{name: row.get(name) for name in columns} for row in result.rows]
    for name, weight in (("last", result.model.weight), ("best", result.model.best_weight)):
        saved = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert torch.equal(saved["state_dict"]["weight"], weight)
        assert saved["handgrad"]["data"] == plain(clouds().about())
        assert saved["handgrad"]["settings"] == BEFORE
    assert not any(here.iterdir())


def test_the_smallest_validation_loss_is_selected():
    result = fitted(l2=(1.0, 0.01, 0.3))
    losses = [row["val_loss"] for row in result.rows]
    assert losses.index(min(losses)) == 1
    assert result.selected is result.rows[1]
    assert (result.chosen.entry, result.selected["selected"]) == (1, "true")
    assert torch.equal(result.chosen.weight, result.model.best_weight[1])


def test_without_a_folder_nothing_is_written(here, tmp_path, capfd):
    callbacks = [GradientCheck(1e-7, 2, 3), PathEarlyStopping(3), DivergenceCheck(), Curves()]
    result = fitted(*callbacks, settings=BEFORE)
    assert len(result.rows) == 3
    assert list(tmp_path.rglob("*")) == [here]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_it_goes_on_from_the_folders_checkpoint_bit_for_bit(name, threads, tmp_path):
    how = dict(solver=SOLVERS[name], threads=threads)
    unbroken = fitted(**how)
    folder = tmp_path / "run"
    with pytest.raises(OSError, match="gone"):
        fitted(Checkpointing(every_seconds=0), Failing(30), folder=folder, **how)
    assert not (folder / "results.csv").exists()
    again = Watching()
    result = fitted(Checkpointing(every_seconds=0), again, folder=folder, **how)
    assert again.blocks == [30, 35, 40, 45]
    for tensor in ("weight", "bias", "best_weight", "best_bias", "best_step", "steps", "best_loss"):
        assert torch.equal(getattr(result.model, tensor), getattr(unbroken.model, tensor)), tensor
    for row, expected in zip(result.rows, unbroken.rows, strict=True):
        assert row | {"seconds": 0} == expected | {"seconds": 0}


def test_what_has_finished_is_evaluated_again_and_not_trained(tmp_path):
    first = fitted(Checkpointing(), folder=tmp_path / "run")
    again = Watching()
    second = fitted(Checkpointing(), again, folder=tmp_path / "run")
    assert again.blocks == []
    for row, expected in zip(second.rows, first.rows, strict=True):
        assert row | {"seconds": 0} == expected | {"seconds": 0}
        assert 0 < row["seconds"] <= expected["seconds"]  # those of the training, at its last checkpoint


def test_other_folders_and_no_folder_begin_anew(tmp_path):
    fitted(Checkpointing(), folder=tmp_path / "run")
    for folder in (None, tmp_path / "other"):
        watching = Watching()
        fitted(watching, folder=folder)
        assert len(watching.blocks) == CHECKS


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (BEFORE | {"lr": 0.2}, "lr=0.2: the run was started with lr=0.1"),
        (BEFORE | {"l2": 0}, "l2=0: the run was started with l2=(absent)"),
        ({"lr": 0.1, "data.seed": 0}, "task.name=(absent): the run was started with task.name=softmax"),
    ],
)
def test_other_settings_are_refused_by_name(now, told, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(OSError, match="gone"):
        fitted(Checkpointing(every_seconds=0), Failing(30), folder=folder, settings=BEFORE)
    with pytest.raises(InputError) as error:
        fitted(Checkpointing(), folder=folder, settings=now)
    assert str(error.value) == told
    assert not (folder / "results.csv").exists()
    assert len(fitted(Checkpointing(), folder=folder, settings=BEFORE).rows) == 3


CHANGES = {
    "l2": ({"l2": (0, 0.5)}, r"l2=\[0\.0, 0\.5\]: the run was started with l2=\[0\.0, 0\.05, 1\.0\]"),
    "solver": ({"solver": SOLVERS["adam"]}, r"optimizer=Adam\(.*: the run was started with optimizer=SGD\("),
    "momentum": ({"solver": SGD(lr=0.1, momentum=0.5)}, r"momentum=0\.5\): the run was started with"),
    "data": ({"data": clouds(shuffle=False)}, "data.shuffle=False: the run was started with data.shuffle=True"),
}


@pytest.mark.parametrize(("change", "line"), CHANGES.values(), ids=CHANGES)
def test_a_run_goes_on_as_it_began_even_without_settings(change, line, tmp_path):
    fitted(Checkpointing(), folder=tmp_path / "run")
    with pytest.raises(InputError, match=line):
        fitted(Checkpointing(), folder=tmp_path / "run", **change)


MOMENTUM = ("solver", "memory", "weight.momentum_buffer")
EDITS = {
    "no weights": (("state_dict",), {}),
    "weights of another type": (("state_dict", "weight"), "x"),
    "weights of another shape": (("state_dict", "weight"), torch.zeros(2, 2)),
    "NaN weights": (("state_dict", "weight"), torch.full((3, 3, 2), torch.nan)),
    "infinite best weights": (("state_dict", "best_bias"), torch.full((3, 3), torch.inf)),
    "no progress": (("loops",), None),
    "progress in words": (("loops", "fit_loop", "epoch_progress", "total", "ready"), "x"),
    "no callbacks' state": (("callbacks",), 5),
    "early stopping's state": (("callbacks", "PathEarlyStopping", "wait"), "x"),
    "best losses": (("best_loss",), torch.zeros(2)),
    "no momentum": (MOMENTUM[:-1], {}),
    "momentum of another shape": (MOMENTUM, torch.zeros(5)),
    "another solver's memory": ((*MOMENTUM[:-1], "weight.exp_avg"), torch.zeros(3, 3, 2)),
    "seconds": (("solver", "seconds"), "x"),
    "hyperparameters": (("hyper_parameters",), []),
    "settings": (("handgrad",), []),
}


def test_a_checkpoint_that_is_whole_but_not_of_this_run_is_told(tmp_path):
    """Its checksum is right, as that of whoever edits it is."""
    how = dict(folder=tmp_path, solver=SOLVERS["momentum"])

    def callbacks() -> list[pl.Callback]:
        return [PathEarlyStopping(3), Checkpointing(every_seconds=0)]

    with pytest.raises(OSError, match="gone"):
        fitted(*callbacks(), Failing(30), **how)
    path = tmp_path / LAST
    content = path.read_bytes()
    for name, (place, value) in EDITS.items():
        checkpoint = read_checkpoint(path)
        node = checkpoint
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = value
        path.write_bytes(sealed(checkpoint))
        with pytest.raises(InputError) as error:
            fitted(*callbacks(), **how)
        assert "checkpoint" in str(error.value), name
        assert not (tmp_path / RESULTS).exists()
        path.write_bytes(content)
    path.write_bytes(sealed([]))
    with pytest.raises(InputError, match="not a checkpoint"):
        fitted(*callbacks(), **how)
    path.write_bytes(content)
    assert len(fitted(*callbacks(), **how).rows) == 3


def test_checkpoints_need_a_folder():
    with pytest.raises(InputError, match=r"folder=None: with Checkpointing among the callbacks, accepted is a folder"):
        fitted(Checkpointing())


def test_torch_has_its_threads_back_at_the_end():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    fitted()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize("hook", ["on_validation_end", "on_train_batch_end", "on_test_start", "on_train_start"])
def test_a_callback_that_raises_leaves_no_threads_behind(hook):
    def fail(*_):
        running.append(threading.active_count())
        raise OSError("gone")

    running, failing, before = [], pl.Callback(), set(threading.enumerate())
    setattr(failing, hook, fail)
    with pytest.raises(OSError, match="gone"):
        fitted(failing, threads=3)
    if hook in ("on_validation_end", "on_test_start"):  # before, no call had another beside it
        assert running[0] > len(before), "the test wants threads that are at work"
    assert set(threading.enumerate()) == before


def test_a_run_that_ends_well_leaves_no_threads_behind():
    before = set(threading.enumerate())
    fitted(threads=3)
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("outputs_of_a_part", [500, 3])
def test_it_trains_what_solve_does_with_the_same_blocks(name, threads, outputs_of_a_part, monkeypatch):
    monkeypatch.setattr("handgrad.training.pipeline.OUTPUTS_OF_A_PART", outputs_of_a_part)  # 3: a part for each entry
    solver, data = SOLVERS[name], clouds(shuffle=True, seed=5)
    model = fitted(data=data, solver=solver, threads=threads, precision="64-true").model
    other = clouds(shuffle=True, seed=5)
    other.setup()
    loader = other.train_dataloader()
    objective = Objective(SOFTMAX, torch.tensor(L2, dtype=torch.float64))
    weight, bias = torch.zeros(3, 3, 2, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    blocks = [loader.block(first) for first in range(0, other.total_updates, other.check_interval)]
    assert len(blocks) == CHECKS
    state = solve(solver, objective, weight, bias, blocks).state
    torch.testing.assert_close(model.weight.detach(), state.weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.bias.detach(), state.bias, rtol=1e-12, atol=1e-12)


def test_what_is_wrong_with_the_data_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="batch_size=500: accepted are 1 to 200"):
        fitted(Checkpointing(), data=clouds(batch_size=500), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_logger_is_told_the_settings_and_the_rows(tmp_path):
    told = []

    class Told(TensorBoardPathLogger):
        def log_end(self, hparams, rows):
            told.append((hparams, rows))

    result = fitted(Curves(), logger=Told(tmp_path / "run", L2), settings=BEFORE)
    assert told == [(BEFORE, result.rows)]


@pytest.mark.parametrize(
    ("precision", "threads", "expected"),
    [("32-true", 3, 3), ("64-true", "2", 2), ("bf16-true", 3, 3), ("bf16-mixed", 3, 1)],
)
def test_threads_are_as_many_as_may_work_side_by_side(precision, threads, expected):
    loop = block_trainer([], None, logger=False, accelerator="cpu", precision=precision)
    found = pipeline(SOLVERS["sgd"], threads, loop)
    assert found.threads == expected
    assert found.side_by_side == (precision != "bf16-mixed")
    assert found.total is None
    assert found.solver is SOLVERS["sgd"]


def test_auto_is_a_thread_for_each_core(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    loop = block_trainer([], None, logger=False, accelerator="cpu")
    assert pipeline(SOLVERS["sgd"], "auto", loop).threads == 5


@pytest.mark.slow
def test_importing_it_imports_no_hydra(here):
    code = "import sys, handgrad.fit; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert {"handgrad", "pytorch_lightning"} <= modules
    assert "hydra" not in modules
    assert not any(here.iterdir())


class Twice(SGD):
    """SGD that has nothing more to do after two blocks for entry 1, and after three for all."""

    def init(self, weight, bias):
        object.__setattr__(self, "blocks", 0)
        return super().init(weight, bias)

    def step(self, objective, state, block, active):
        object.__setattr__(self, "blocks", self.blocks + 1)
        return super().step(objective, state, block, active)

    def done(self, state):
        return torch.tensor([self.blocks >= 3, self.blocks >= 2, self.blocks >= 3])


def test_a_solver_that_is_done_ends_the_run():
    data = clouds(shuffle=True)
    rows = fitted(solver=Twice(lr=0.1), data=data).rows
    assert [row["steps"] // data.check_interval for row in rows] == [3, 2, 3]
