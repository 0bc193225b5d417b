"""Several processes train as one does with the same mini-batches, and end together, however they end."""

import os
import re
import resource
import signal
import socket
from pathlib import Path

import pytest
import torch

from tests.test_train import scalars
from tests.torture.processes import group_members, launch, read_until

SOFTMAX = ("experiment=report_l2", "l2=[0,0.2,2]", "epochs=3", "patience=4", "lr=0.002", "optimizer.momentum=0.9")
LOGISTIC = ("experiment=report_logistic", "epochs=2")
CASES = {
    "path, uneven shares, shuffled": (2, (*SOFTMAX, "data.shuffle=true", "batch_size=127")),
    "logistic, uneven shares, in order": (2, (*LOGISTIC, "data.shuffle=false", "batch_size=127")),
    "equal shares, penalized bias": (2, (*LOGISTIC, "batch_size=128", "l2=0.5", "data.shuffle=true")),
    "adam, three processes": (3, ("experiment=report_softmax", "optimizer=adam", "lr=0.001", "epochs=1", "l2=[0,1]")),
}
LONG = ("experiment=report_softmax", "epochs=200", "data.shuffle=true", "batch_size=127", "threads=1")
LONG += ("callbacks.checkpoint.every_seconds=0", "trainer.devices=2", "trainer.strategy=ddp")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def curves(run: Path) -> Path:
    """Returns the folder with the curves of a run's last classifier."""
    return max(run.glob("l2=*"), default=run)


@pytest.fixture
def distributed(start):
    """Starts a run's processes as Lightning does; returns them."""

    def distributed(processes: int, run: str, *words: str) -> list:
        words = (*words, f"trainer.devices={processes}", "trainer.strategy=ddp", "threads=1", f"hydra.run.dir={run}")
        place = {
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(free_port()),
            "NODE_RANK": "0",
            "WORLD_SIZE": str(processes),
        }
        programs = []
        for rank in range(processes):
            added = (f'hydra.run.dir="{run}"', f"hydra.job.name=train_ddp_process_{rank}", "hydra.output_subdir=null")
            programs.append(start(*words, *(added if rank else ()), **place, LOCAL_RANK=str(rank)))
        return programs

    return distributed


@pytest.mark.parametrize(("processes", "words"), CASES.values(), ids=CASES)
def test_the_weights_are_those_of_one_process(processes, words, start, distributed, tmp_path):
    one = start(*words, "hydra.run.dir=outputs/one")
    programs = distributed(processes, "outputs/several", *words)
    for program in (one, *programs):
        code, told = program.end()
        assert code == 0, told
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (
            torch.load(tmp_path / "outputs" / run / "checkpoints" / name, weights_only=True)["state_dict"]
            for run in ("several", "one")
        )
        for key in theirs:
            assert torch.allclose(ours[key], theirs[key], rtol=0, atol=1e-6), key
        assert torch.equal(ours["steps"], theirs["steps"])
    assert {path.name for path in (tmp_path / "outputs/several").iterdir() if "tfevents" not in path.name} == {
        path.name for path in (tmp_path / "outputs/one").iterdir() if "tfevents" not in path.name
    }
    for tag in ("loss/train", "loss/val"):
        ours, theirs = (scalars(curves(tmp_path / "outputs" / run), tag) for run in ("several", "one"))
        assert ours == pytest.approx(theirs, rel=1e-5)
    events = [[len(list(folder.glob("*tfevents*")))] for folder in (tmp_path / "outputs/several").glob("**/l2=*")]
    assert all(count == [1] for count in events), "the first process alone writes"
    assert [program.told.read_text() for program in programs[1:]] == [""] * (processes - 1)


def test_a_distributed_run_is_stopped_and_goes_on(tmp_path, start):
    """The command itself, which starts its second process: both end on a signal, and both go on."""
    process = launch(tmp_path, *LONG, "hydra.run.dir=outputs/run")
    told = read_until(process, "Training from update 1 of")
    process.terminate()
    told += process.communicate()[1]
    assert process.returncode == 143, told
    assert group_members(process.pid) == {}
    assert "Traceback" not in told
    assert re.search(r"Stopped by SIGTERM after \d+ updates; all is saved", told)
    assert "python train.py resume=outputs/run" in told
    checkpoint = tmp_path / "outputs/run/checkpoints/last.ckpt"
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    process = launch(tmp_path, "resume=latest")
    told = read_until(process, f"Training from update {step + 1} of")
    process.send_signal(signal.SIGINT)
    told += process.communicate()[1]
    assert process.returncode == 130, told
    assert group_members(process.pid) == {}
    assert torch.load(checkpoint, weights_only=True)["global_step"] > step
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["run"]


@pytest.mark.torture
def test_a_failed_save_ends_all_processes(tmp_path):
    process = launch(tmp_path, *LONG, "logger=none", "hydra.run.dir=outputs/run")
    told = read_until(process, "Training from update 1 of")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (10_000, 10_000))
    told += process.communicate()[1]
    assert process.returncode == 1, told
    assert [line for line in told.splitlines() if line.startswith("error: ")] == [told.splitlines()[-1]]
    assert "checkpoint not saved" in told
    assert group_members(process.pid) == {}


@pytest.mark.torture
@pytest.mark.parametrize("victim", ["first", "second"])
def test_a_killed_process_takes_the_others_with_it(victim, tmp_path):
    process = launch(tmp_path, *LONG, "epochs=2000", "hydra.run.dir=outputs/run")
    read_until(process, "Training from update 1 of")
    if victim == "first":
        process.kill()
    else:
        (second,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(second), signal.SIGKILL)
    process.communicate()  # ends when no process has the pipe any more
    assert process.returncode != 0
    assert group_members(process.pid) == {}


def test_mini_batches_too_small_to_share_are_refused(command):
    ended = command("trainer.devices=4", "batch_size=3")
    assert ended.code == 1
    assert "error: batch_size=3: accepted with trainer.devices=4 is that or more" in ended.err


def test_other_ways_to_distribute_are_refused(command):
    ended = command("trainer.devices=2", "trainer.strategy=ddp_spawn")
    assert ended.code == 1
    assert "error: trainer.strategy=ddp_spawn: accepted is auto or ddp" in ended.err
