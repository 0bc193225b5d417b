"""A run that is killed or stopped goes on bit for bit; the short form of `make torture`."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from handgrad.cli.configuration import CONF
from handgrad.runs.signals import Interrupted, Stopping
from tests.conftest import DATA
from tests.torture.trials import trials

WORDS = [
    "experiment=report_l2",
    "l2=[0,0.2,2]",
    "data.shuffle=true",
    "patience=6",
    "epochs=12",
    "optimizer.momentum=0.9",
]
WORDS += ["lr=0.002", f"data.root={DATA}", "callbacks.checkpoint.every_seconds=0"]


SLURM = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "probe", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}
SLURM |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "localhost"}


class Killed(Exception):
    """Stands for kill -9: nothing of the run's own code runs after it."""


def state(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same_state(folder: Path, unbroken: Path) -> None:
    a, b = state(folder), state(unbroken)
    assert a["global_step"] == b["global_step"]
    assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in b["state_dict"])
    assert torch.equal(a["best_loss"], b["best_loss"])
    ours, theirs = (x["solver"]["memory"] for x in (a, b))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(a["callbacks"]["PathEarlyStopping"]["wait"], b["callbacks"]["PathEarlyStopping"]["wait"])


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), {"scalars": 0}).Reload().Scalars(tag)
    return [(event.step, event.value) for event in events]


@pytest.fixture(scope="module")
def made() -> list[Path]:
    """Runs that all tests may look at."""
    return []


@pytest.fixture
def unbroken(run, made) -> Path:
    if not made:
        made.append(run(*WORDS, name="unbroken"))
    return made[0]


@pytest.mark.parametrize("seed", trials(2, 12))
def test_killed_at_a_random_update_it_goes_on_bit_for_bit(seed, run, unbroken, monkeypatch):
    """The kill is an exception out of a gradient: what was saved before is all that is left, if anything was.

    With two threads it falls into a block that is trained ahead.
    """
    from handgrad.functions.objective import Objective

    total = state(unbroken)["global_step"]
    left = random.Random(seed).randrange(1, total)
    gradient = Objective.gradient

    def killing(self, *args, **kwargs):
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        return gradient(self, *args, **kwargs)

    monkeypatch.setattr(Objective, "gradient", killing)
    words = (*WORDS, f"threads={1 + seed % 2}")
    with pytest.raises(Killed):
        run(*words, name="killed")
    folder = run(*words, name="killed")
    assert_same_state(folder, unbroken)
    for path in ("l2=0.0", "l2=2.0"):
        assert curve(folder / path, "loss/train") == curve(unbroken / path, "loss/train")


@pytest.fixture
def slurm(monkeypatch) -> None:
    """The variables of a job of SLURM, under which Lightning would interfere."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)


def test_a_signal_stops_the_run_in_order(command, tmp_path, unbroken, monkeypatch, slurm):
    """And the command that it prints goes on; the signal comes in the midst of the training."""
    from handgrad.functions.objective import Objective

    gradient, left = Objective.gradient, iter(range(500))

    def signalling(self, *args, **kwargs):
        if next(left, None) == 499:
            os.kill(os.getpid(), signal.SIGTERM)
        return gradient(self, *args, **kwargs)

    words = [word for word in WORDS if not word.startswith("data.root")]
    with monkeypatch.context() as context:
        context.setattr(Objective, "gradient", signalling)
        ended = command(*words, "threads=1", "hydra.run.dir=outputs/stopped")
    assert ended.code == 143
    assert "Stopped by SIGTERM after" in ended.err
    assert "python train.py resume=outputs/stopped" in ended.err
    assert 400 < state(tmp_path / "outputs/stopped")["global_step"] < state(unbroken)["global_step"]
    ended = command("resume=outputs/stopped")
    assert ended.code == 0, ended.err
    assert_same_state(tmp_path / "outputs/stopped", unbroken)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "outputs"}


@pytest.mark.torture
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_a_signal_stops_a_process_in_order(number, code, tmp_path, unbroken, slurm):
    """A real process, and a signal from outside."""
    (tmp_path / "data").symlink_to(DATA)
    program = [sys.executable, str(CONF.parent / "train.py")]
    words = [word for word in WORDS if not word.startswith("data.root")]
    process = subprocess.Popen(
        [*program, *words, "threads=1", "hydra.run.dir=outputs/stopped"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr.readline() == "Loading torch and Lightning\n"  # which takes seconds
    for line in process.stderr:
        if "Training from update 1 of" in line:
            process.send_signal(number)
            break
    _, told = process.communicate()
    assert process.returncode == code
    assert f"Stopped by {number.name} after" in told
    assert "python train.py resume=outputs/stopped" in told
    assert state(tmp_path / "outputs/stopped")["global_step"] < state(unbroken)["global_step"]
    again = subprocess.run([*program, "resume=latest"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert_same_state(tmp_path / "outputs/stopped", unbroken)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "outputs"}


def test_a_second_signal_stops_at_once():
    stopping = Stopping()
    stopping.put_off = True
    stopping.handle(signal.SIGINT, None)  # the run looks at it at its next check
    with pytest.raises(Interrupted):
        stopping.handle(signal.SIGINT, None)


@pytest.mark.parametrize("path", ["l2=0", "l2=[0,1]"])
def test_a_signal_after_the_last_update(path, command, tmp_path, monkeypatch):
    """Nothing is left to train; the curves must survive, and the best weights and the results be written."""
    words = ("experiment=report_logistic", "epochs=1", path)
    assert command(*words, "hydra.run.dir=outputs/whole").code == 0
    with monkeypatch.context() as broken:
        broken.setattr("handgrad.fit.result_rows", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        ended = command(*words, "hydra.run.dir=outputs/run")
    assert ended.code == 143
    assert "Go on with:\n  python train.py resume=outputs/run" in ended.err
    assert command("resume=outputs/run").code == 0
    whole, run = (tmp_path / "outputs" / name for name in ("whole", "run"))
    assert_same_state(run, whole)
    for folder in [""] if path == "l2=0" else ["l2=0.0", "l2=1.0"]:
        for tag in ("loss/train", "loss/val", "final/val_loss"):
            assert curve(run / folder, tag) == curve(whole / folder, tag) != []


def test_after_an_error_signals_are_obeyed_at_once(run):
    from handgrad.errors import InputError
    from handgrad.runs.signals import stopping

    with pytest.raises(InputError, match="diverged"):
        run("experiment=report_softmax", "lr=1e38", "epochs=1", "threads=2")
    assert not stopping.put_off


def test_a_resumed_run_that_has_finished_is_left_alone(command, tmp_path):
    words = ("experiment=report_logistic", "epochs=1", "logger=none", "hydra.run.dir=outputs/done")
    assert command(*words).code == 0
    before = (tmp_path / "outputs/done/results.csv").read_bytes()
    ended = command("resume=outputs/done")
    assert ended.code == 0
    assert "outputs/done has finished already" in ended.err
    assert (tmp_path / "outputs/done/results.csv").read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(run):
    from handgrad.errors import InputError

    folder = run("experiment=report_logistic", "epochs=1", "logger=none", name="a")
    (folder / "results.csv").unlink()
    with pytest.raises(InputError, match=r"task=softmax: the run was started with task=logistic"):
        run("experiment=report_softmax", "epochs=1", "logger=none", name="a")
    with pytest.raises(InputError, match=r"l2=0\.5: the run was started with l2=0\.0"):
        run("experiment=report_logistic", "epochs=1", "l2=0.5", "logger=none", name="a")
    with pytest.raises(InputError, match=r"lr=0.04: the run was started with lr=0.05"):
        run("experiment=report_logistic", "epochs=1", "lr=0.04", "logger=none", name="a")


def stopped(command, tmp_path: Path) -> Path:
    """Leaves a run that was stopped before its results; returns its folder."""
    assert command("experiment=report_logistic", "epochs=1", "threads=1", "hydra.run.dir=outputs/x").code == 0
    (tmp_path / "outputs/x/results.csv").unlink()
    return tmp_path / "outputs/x"


@pytest.mark.parametrize(
    ("file", "before", "after", "line"),
    [
        ("optimizer/sgd.yaml", "momentum: 0.0", "momentum: 0.5", "optimizer.momentum=0.5: the run was started with"),
        (
            "data/mnist.yaml",
            "seed: ${seed}",
            "seed: ${epochs}",
            "data.seed=1: the run was started with data.seed=(absent)",
        ),
        ("config.yaml", "batch_size: 128", "batch_size: 64", "batch_size=128"),
    ],
)
def test_an_edited_configuration_is_refused_by_name(file, before, after, line, command, tmp_path, monkeypatch):
    """Of conf/, between a run's stop and its going on; a value that the run's own words set is not an edit."""
    folder = stopped(command, tmp_path)
    shutil.copytree(CONF, tmp_path / "conf")
    edited = tmp_path / "conf" / file
    assert before in edited.read_text()
    edited.write_text(edited.read_text().replace(before, after))
    monkeypatch.setattr("handgrad.cli.configuration.CONF", tmp_path / "conf")
    ended = command("resume=outputs/x")
    if file == "config.yaml":  # the experiment sets it
        assert ended.code == 0, ended.err
        return
    assert ended.code == 1
    assert f"error: {line}" in ended.err
    assert not (folder / "results.csv").exists()


def test_a_sweeps_run_goes_on_and_keeps_its_words(command, tmp_path):
    words = ("-m", "experiment=report_logistic", "epochs=1", "l2=0,0.1", "hydra.sweep.dir=outputs/sweep", "logger=none")
    assert command(*words, "threads=1").code == 0
    run = next(tmp_path.glob("outputs/sweep/*l2=0,*"))
    (run / "results.csv").unlink()
    before = (run / ".hydra/overrides.yaml").read_bytes()
    ended = command(*words, "threads=1")
    assert ended.code == 0, ended.err
    assert (run / "results.csv").exists()
    assert (run / ".hydra/overrides.yaml").read_bytes() == before
