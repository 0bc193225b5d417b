"""Sweeps by submitit whose jobs fail, are killed and have to make room, and which are stopped themselves."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.torture.processes import group_members, holder, launch, until
from tests.torture.test_sweep import resume_command
from tests.torture.trials import state_digest

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells processes by /proc")

WORDS = (
    "experiment=report_logistic",
    "epochs=200",
    "patience=null",
    "logger=none",
    "threads=1",
    "callbacks.figures=null",
)
WORDS += ("callbacks.checkpoint.every_seconds=0",)
LOCAL = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60", "hydra.sweep.dir=outputs/sweep")


class Sweep:
    """A sweep by submitit on this machine, under way in a folder.

    Attributes:
        process: the one that was started by hand.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder / "outputs" / "sweep"
        self.process = launch(folder, *words)

    def run(self, l2: str) -> Path:
        """Returns the folder of a job's run, which need not be there yet."""
        return next(self.folder.glob(f"*l2={l2},*"), self.folder / "not_yet")

    def until_saved(self, *l2: str) -> None:
        """Waits until these jobs have saved something in a process that is there now."""
        self.until(lambda: all((self.run(it) / "checkpoints/last.ckpt").exists() and self.holder(it) for it in l2))

    def holder(self, l2: str) -> int | None:
        return holder(self.run(l2) / ".lock")

    def until(self, condition: Callable[[], object]) -> None:
        until(condition, self.process)

    def end(self) -> tuple[int, str]:
        """Returns the exit code, and what was said to the end; there must be no process left."""
        told = self.process.communicate(timeout=300)[1]
        assert group_members(self.process.pid) == {}
        return self.process.returncode, told


def update(run: Path) -> list[int]:
    """Returns the updates at which a run's processes began to train, each one's in turn."""
    told = (run / "train.log").read_text()
    return [int(line.split()[-3]) for line in told.splitlines() if "Training from update" in line]


def digests(sweep: Path) -> dict[str, str]:
    return {path.parent.name: state_digest(path.parent) for path in sweep.glob("*/results.csv")}


def make_room_and_stop(sweep: Sweep, preempted: str, killed: str) -> str:
    """Has one job make room and kills one; stops the sweep when the first trains again; returns what it said."""
    sweep.until_saved(preempted, killed)
    first = sweep.holder(preempted)
    os.kill(first, signal.SIGUSR2)
    os.kill(sweep.holder(killed), signal.SIGKILL)
    sweep.until(lambda: sweep.holder(preempted) not in (first, None) and len(update(sweep.run(preempted))) == 2)
    assert update(sweep.run(preempted))[1] > 1, "it was saved before it was queued again"
    sweep.process.terminate()
    code, told = sweep.end()
    assert code == 143, told
    assert "Stopped by SIGTERM. Runs of the sweep that have not finished:" in told
    assert "Traceback" not in told
    assert {*LOCAL[:2], "resume=true"} <= set(resume_command(told))
    return told


@pytest.mark.slow
def test_a_job_makes_room_one_dies_and_the_sweep_is_stopped_and_goes_on(tmp_path, run):
    sweep = Sweep(tmp_path, "-m", *WORDS, "l2=0,-1,0.1", *LOCAL)
    told = make_room_and_stop(sweep, "0", "0.1")
    again = Sweep(tmp_path, *resume_command(told))
    code, told = again.end()
    assert code == 1, told
    (named,) = [line for line in told.splitlines() if line.startswith("failed: ")]
    assert "l2=-1: accepted is a number >= 0" in named
    assert len(update(again.run("0"))) == 3
    expected = {state_digest(run(*WORDS, f"l2={l2}", name=f"alone{l2}")) for l2 in ("0", "0.1")}
    assert set(digests(sweep.folder).values()) == expected
