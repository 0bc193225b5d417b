"""Lightning's Trainer as it is set up here: a batch is a block, each is validated, and nothing is added."""

import os
import re
import signal
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from handgrad.callbacks.progress_bar import UpdateProgressBar
from handgrad.compat import count_updates
from handgrad.errors import InputError
from handgrad.training.trainer import Together, block_trainer, check_devices
from tests.data.test_base import clouds


@pytest.mark.parametrize(
    ("there", "settings", "line"),
    [
        ("", {"accelerator": "gpu"}, "trainer.accelerator=gpu: no such device here; accepted is cpu"),
        (
            "mps",
            {"accelerator": "cuda"},
            "trainer.accelerator=cuda: no such device here; accepted is gpu or mps or cpu",
        ),
        ("", {"accelerator": "cpu", "devices": [0, 1]}, "trainer.devices=[0, 1]: accepted on the CPU is how many"),
        ("", {"accelerator": "auto", "devices": [0]}, "trainer.devices=[0]: accepted on the CPU is how many processes"),
        ("cuda", {"accelerator": "cpu", "devices": [0]}, "trainer.devices=[0]: accepted on the CPU is how many"),
        ("", {"accelerator": "cpu", "devices": 2}, None),
        ("cuda", {"accelerator": "gpu", "devices": [0, 1]}, None),
        ("cuda", {"accelerator": "auto", "devices": [1]}, None),
        ("", {}, None),
    ],
)
def test_devices_that_are_not_there_are_told_in_a_line(there, settings, line, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: there == "cuda")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: there == "mps")
    expected = nullcontext() if line is None else pytest.raises(InputError, match=f"^{re.escape(line)}")
    with expected:
        check_devices(settings.get("accelerator", "auto"), settings.get("devices", "auto"))


class Recorder(pl.LightningModule):
    """Trains nothing; writes down what it is given, and ends after ``last`` updates."""

    def __init__(self, last: int = 10**9) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.parameter = torch.nn.Parameter(torch.zeros(1))
        self.last, self.seen = last, []

    def training_step(self, block, _):
        self.seen.append(("train", block.first, len(block)))
        count_updates(self.trainer, len(block))

    def validation_step(self, batch, _):
        self.seen.append(("check", self.global_step, *batch))
        self.trainer.should_stop = self.global_step >= self.last

    def configure_optimizers(self):
        """None."""


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """Makes a trainer, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def trainer(*callbacks, folder=tmp_path / "run", **settings):
        return block_trainer(list(callbacks), folder, logger=False, accelerator="cpu", **settings)

    return trainer


def test_nothing_of_lightnings_own_is_added(trainer, tmp_path):
    callback = pl.Callback()
    loop = trainer(callback, max_epochs=1)
    assert loop.callbacks == [callback]
    assert loop.checkpoint_callback is None
    assert loop.progress_bar_callback is None
    assert loop.loggers == []
    assert loop.default_root_dir == str(tmp_path / "run")
    assert trainer(max_epochs=1).callbacks == []


def test_a_progress_bar_is_the_one_that_is_given(trainer):
    bar = UpdateProgressBar()
    loop = trainer(bar, max_epochs=1)
    assert loop.callbacks == [bar]
    assert loop.progress_bar_callback is bar


def test_each_block_is_trained_and_then_validated(trainer, tmp_path, capfd):
    model, data = Recorder(), clouds(epochs=3)
    loop = trainer(max_epochs=3)
    loop.fit(model, datamodule=data)
    steps = ((("train", first, 5), ("check", first + 5, "val", "train")) for first in range(0, 75, 5))
    assert model.seen == [*chain(*steps)]  # no sanity check before the first, no further one at an epoch's end
    assert loop.global_step == data.total_updates == 75
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]  # and nothing was written
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("last", [5, 15, 25, 30])
def test_a_stop_is_obeyed_after_the_check_that_wants_it(last, trainer):
    model = Recorder(last)
    trainer(max_epochs=3).fit(model, datamodule=clouds(epochs=3))
    assert model.seen[-1][:2] == ("check", last)


def test_other_arguments_are_lightnings_and_what_is_fixed_cannot_be_set(trainer):
    loop = trainer(max_epochs=7, precision="64-true")
    assert (loop.max_epochs, loop.min_epochs, loop.precision) == (7, 0, "64-true")
    for name in ("val_check_interval", "enable_checkpointing", "default_root_dir", "use_distributed_sampler"):
        with pytest.raises(TypeError, match=name):
            trainer(**{name: None})


def test_lightning_saves_and_loads_nothing_by_itself_under_slurm(trainer, tmp_path, monkeypatch):
    """With requeueing on, it would write hpc_ckpt_1.ckpt on SIGUSR1, and load that in every later run there."""
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, value)
    for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
        monkeypatch.setenv(name, "0")
    Path("hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    handlers, before = [], signal.getsignal(signal.SIGUSR1)
    watching = pl.Callback()
    watching.on_train_start = lambda *_: handlers.append(signal.getsignal(signal.SIGUSR1))
    for folder in (tmp_path / "run", None):
        trainer(watching, folder=folder, max_epochs=1).fit(Recorder(), datamodule=clouds(epochs=1))
    assert handlers == [before] * 2


def test_torchrun_inside_a_job_of_slurm_is_torchrun(trainer, monkeypatch):
    place = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    place |= {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    place |= {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert trainer(max_epochs=1, devices=2, strategy="ddp").strategy.cluster_environment.world_size() == 2


def test_lightning_is_told_which_process_this_is(trainer, monkeypatch):
    """The last one of four tasks on two nodes of SLURM's, without a variable that Lightning asks for."""
    step = {"STEP_NUM_TASKS": "4", "STEP_NUM_NODES": "2", "PROCID": "3", "LOCALID": "1", "NODEID": "1", "NTASKS": "4"}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    strategy = trainer(max_epochs=1, devices=2, num_nodes=2).strategy
    place = strategy.cluster_environment
    told = (place.world_size(), place.global_rank(), place.local_rank(), place.node_rank())
    assert (told, place.creates_processes_externally, type(strategy)) == ((4, 3, 1, 1), True, Together)
    assert rank_zero_only.rank == 3


def test_a_process_that_nobody_launched_is_the_first_whatever_node_rank_says(trainer, monkeypatch):
    monkeypatch.setenv("NODE_RANK", "3")
    strategy = trainer(max_epochs=1, devices=2).strategy
    place = strategy.cluster_environment
    assert (place.node_rank(), place.creates_processes_externally, type(strategy)) == (0, False, Together)
    assert type(trainer(max_epochs=1).strategy) is not Together


def test_the_environment_gives_no_arguments(monkeypatch):
    """Lightning takes those that were not given from variables of these names."""
    monkeypatch.setenv("PL_TRAINER_LIMIT_TRAIN_BATCHES", "1")
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "7")
    trainer = block_trainer([], None, logger=False, accelerator="cpu")
    assert (trainer.limit_train_batches, trainer.max_steps) == (1.0, -1)
    assert os.environ["PL_TRAINER_MAX_STEPS"] == "7"


@pytest.mark.parametrize(("rank", "of_trainer"), [("0", 0), ("1", 1)])
def test_what_logs_is_the_trainers_first_process_whatever_the_environment_said(rank, of_trainer, trainer, monkeypatch):
    """Importing Lightning sets the rank by RANK or SLURM_PROCID, from which a lone process was kept from logging."""
    monkeypatch.setattr(rank_zero_only, "rank", 7)
    trainer(max_epochs=1)
    assert rank_zero_only.rank == 0
    for name, value in {"LOCAL_RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    trainer(max_epochs=1, devices=2, strategy="ddp")
    assert rank_zero_only.rank == of_trainer
