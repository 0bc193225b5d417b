"""Sweeps by submitit whose jobs fail, are killed and have to make room, and which are stopped themselves.

On this machine, and on SLURM as far as ``tests/torture/slurm.py`` can stand for it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from handgrad.cli.configuration import CONF
from tests.torture import slurm
from tests.torture.processes import group_members, holder, launch, until
from tests.torture.test_sweep import resume_command
from tests.torture.trials import state_digest

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells processes by /proc")

WORDS = ("experiment=report_logistic", "epochs=60", "patience=null", "logger=none", "threads=1")
WORDS += ("callbacks.figures=null", "callbacks.checkpoint.every_seconds=0")
ENDLESS = [word.replace("epochs=60", "epochs=100000") for word in WORDS]
LOCAL = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60")
SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.cpus_per_task=1")
PREEMPTION = signal.SIGUSR2


class Sweep:
    """A sweep by submitit, under way in a folder.

    Attributes:
        process: the one that was started by hand.
    """

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.folder = folder / "outputs" / "sweep"
        self.process = launch(folder, *words, **environment)

    def run(self, l2: str) -> Path:
        """Returns the folder of a job's run, which need not be there yet."""
        return next(self.folder.glob(f"*l2={l2},*"), self.folder / "not_yet")

    def holder(self, l2: str) -> int | None:
        """Returns the process that trains a job's run."""
        return holder(self.run(l2) / ".lock")

    def until_saved(self, *l2: str) -> None:
        """Waits until these jobs have saved something and train."""
        self.until(lambda: all((self.run(it) / "checkpoints/last.ckpt").exists() and self.holder(it) for it in l2))

    def until(self, condition: Callable[[], object]) -> None:
        until(condition, self.process)

    def preempt(self, l2: str, send: Callable[[int], None]) -> None:
        """Has a job make room, and waits until it trains again."""
        first = self.holder(l2)
        send(first)
        self.until(lambda: self.holder(l2) not in (first, None) and len(begun(self.run(l2))) == 2)
        assert begun(self.run(l2))[1] > 1, "it was saved before it was queued again"

    def stop(self) -> str:
        """Stops the sweep; returns what it has said."""
        self.process.terminate()
        code, told = self.end()
        assert code == 143, told
        assert "Stopped by SIGTERM. Runs of the sweep that have not finished:" in told
        assert "resume=true" in resume_command(told)
        return told

    def end(self) -> tuple[int, str]:
        """Returns the exit code, and what was said to the end; no process is left."""
        told = self.process.communicate(timeout=900)[1]
        assert group_members(self.process.pid) == {}
        assert "Traceback" not in told
        return self.process.returncode, told

    def digests(self) -> dict[str, str]:
        """Returns the digest of each run that has finished, by its l2."""
        found = self.folder.glob("*/results.csv")
        return {path.parent.name.partition("l2=")[2].partition(",")[0]: state_digest(path.parent) for path in found}


def begun(run: Path) -> list[int]:
    """Returns the updates at which a run's processes began to train, each one's in turn."""
    told = (run / "train.log").read_text()
    return [int(line.split()[-3]) for line in told.splitlines() if "Training from update" in line]


def failed(told: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith("failed: ")]


@pytest.fixture
def begin(tmp_path) -> Iterator[Callable[..., Sweep]]:
    """Begins a sweep with the given words; whatever still runs at the end is killed."""
    begun: list[Sweep] = []

    def begin(*words: str, **environment: str) -> Sweep:
        begun.append(Sweep(tmp_path, *words, **environment))
        return begun[-1]

    yield begin
    for sweep in begun:
        with suppress(ProcessLookupError):
            os.killpg(sweep.process.pid, signal.SIGKILL)
        sweep.process.wait()
        sweep.process.stderr.close()


@pytest.fixture
def alone(run) -> Callable[..., dict[str, str]]:
    """Returns the digests of runs that nothing has disturbed, by their l2."""
    return lambda *l2: {it: state_digest(run(*WORDS, f"l2={it}", name=f"alone{it}")) for it in l2}


# --- on this machine -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, pytest.param(True, marks=pytest.mark.torture)])
def test_a_job_makes_room_and_the_sweep_may_be_stopped_and_goes_on(stopped, tmp_path, begin, alone):
    (tmp_path / "numpy.py").write_text("raise SystemExit('a module of the current folder')")
    sweep = begin("-m", *WORDS, "l2=0,-1", *LOCAL, "hydra.sweep.dir=outputs/sweep")
    sweep.until_saved("0")
    sweep.preempt("0", lambda process: os.kill(process, PREEMPTION))
    if stopped:
        told = sweep.stop()
        assert {*LOCAL} <= set(resume_command(told))
        sweep = begin(*resume_command(told))
    code, told = sweep.end()
    assert code == 1, told
    (named,) = failed(told)
    assert "l2=-1: accepted is a number >= 0" in named
    assert len(begun(sweep.run("0"))) == (3 if stopped else 2)
    assert sweep.digests() == alone("0")


@pytest.mark.torture
@pytest.mark.parametrize("trial", range(5))
def test_six_jobs_of_which_one_fails_one_is_killed_one_makes_room_and_all_are_stopped(trial, begin, alone):
    sweep = begin("-m", *WORDS, "l2=0,0.1,-1,0.2,0.3,0.4", *LOCAL, "hydra.sweep.dir=outputs/sweep")
    sweep.until_saved("0", "0.1")
    os.kill(sweep.holder("0.1"), signal.SIGKILL)
    sweep.preempt("0", lambda process: os.kill(process, PREEMPTION))
    told = sweep.stop()
    again = begin(*resume_command(told))
    again.until(lambda: again.holder("0.1"))
    os.kill(again.holder("0.1"), signal.SIGKILL)
    code, told = again.end()
    assert code == 1, told
    assert [("its process died" in line, "l2=-1: accepted is" in line) for line in failed(told)] == [
        (True, False),
        (False, True),
    ]
    assert again.digests().keys() == {"0", "0.2", "0.3", "0.4"}
    last = begin(*resume_command(told))
    code, told = last.end()
    assert (code, len(failed(told))) == (1, 1), told
    assert last.digests() == alone("0", "0.1", "0.2", "0.3", "0.4")


@pytest.mark.torture
def test_nothing_trains_on_when_the_first_process_is_killed(begin):
    sweep = begin("-m", *ENDLESS, "l2=0,0.1", *LOCAL, "hydra.sweep.dir=outputs/sweep")
    sweep.until_saved("0", "0.1")
    sweep.process.kill()
    sweep.end()


@pytest.mark.torture
def test_a_second_signal_ends_all_at_once(begin):
    sweep = begin("-m", *ENDLESS, "l2=0,0.1", *LOCAL, "hydra.sweep.dir=outputs/sweep")
    sweep.until_saved("0", "0.1")
    os.kill(sweep.holder("0"), signal.SIGSTOP)  # it does not come to its next check
    stopped = sweep.holder("0")
    sweep.process.terminate()
    sweep.until(lambda: sweep.holder("0.1") is None)
    sweep.process.terminate()
    sweep.process.wait()
    os.kill(stopped, signal.SIGCONT)
    assert sweep.end()[0] == 143


# --- on SLURM, as far as something can stand for it -------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path) -> Iterator[Path]:
    """The folder of what stands for SLURM; nothing of its jobs is left at the end."""
    folder = tmp_path / "slurm"
    yield folder
    groups = [int(path.read_text()) for name in ("slurmd", "group") for path in folder.glob(f"*/{name}")]
    try:
        until(lambda: not any(map(group_members, groups)), seconds=30)
    finally:
        for group in filter(group_members, groups):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def preempt_tasks(cluster: Path, job: int) -> None:
    group = int((slurm.jobs(cluster)[job] / "group").read_text())
    slurm.signal_tasks(group, PREEMPTION, cluster)


@pytest.mark.slow
def test_the_jobs_of_a_cluster_are_an_array_and_are_summed_up(begin, cluster):
    """Both are refused, which is quick."""
    sweep = begin("-m", *WORDS, "l2=-1,-2", *SLURM, "hydra.sweep.dir=outputs/sweep", **slurm.install(cluster))
    code, told = sweep.end()
    assert code == 1, told
    assert [f"l2=-{number}: accepted is a number >= 0" in line for number, line in enumerate(failed(told), 1)] == [
        True
    ] * 2
    asked = json.loads((cluster / "100.json").read_text())
    expected = {"array": "0-1%2", "partition": "gpu", "cpus-per-task": "1", "time": "60", "signal": "USR2@120"}
    assert expected.items() <= asked.items()
    assert [slurm.state(job) for job in slurm.jobs(cluster)] == ["COMPLETED"] * 2


@pytest.mark.torture
@pytest.mark.parametrize("trial", range(5))
def test_a_job_of_a_cluster_is_queued_again_and_goes_on(trial, begin, cluster, alone):
    sweep = begin("-m", *WORDS, "l2=0,-1", *SLURM, "hydra.sweep.dir=outputs/sweep", **slurm.install(cluster))
    sweep.until_saved("0")
    sweep.preempt("0", lambda process: preempt_tasks(cluster, 0))
    code, told = sweep.end()
    assert code == 1, told
    (named,) = failed(told)
    assert "l2=-1: accepted is a number >= 0" in named
    assert sweep.digests() == alone("0")


@pytest.mark.torture
def test_a_stopped_sweep_cancels_its_jobs_which_save_first_and_names_what_was_killed(begin, cluster, alone):
    environment = slurm.install(cluster)
    sweep = begin("-m", *WORDS, "l2=0,0.1", *SLURM, "hydra.sweep.dir=outputs/sweep", **environment)
    sweep.until_saved("0", "0.1")
    told = sweep.stop()
    assert [slurm.state(job) for job in slurm.jobs(cluster)] == ["CANCELLED by 0"] * 2
    assert {*SLURM} <= set(resume_command(told))
    again = begin(*resume_command(told), **environment)
    again.until(lambda: again.holder("0.1"))
    os.kill(again.holder("0.1"), signal.SIGKILL)
    code, told = again.end()
    assert code == 1, told
    (named,) = failed(told)
    assert "its process died (FAILED)" in named
    last = begin(*resume_command(told), **environment)
    assert last.end()[0] == 0
    assert last.digests() == alone("0", "0.1")


@pytest.mark.torture
def test_the_tasks_of_a_job_train_one_run_together(begin, cluster):
    environment = slurm.install(cluster)
    tasks = ("hydra.launcher.tasks_per_node=2", "hydra.sweep.dir=outputs/sweep")
    sweep = begin("-m", *WORDS, "l2=0,0.1", *SLURM, *tasks, **environment)
    sweep.until_saved("0", "0.1")
    sweep.preempt("0", lambda process: preempt_tasks(cluster, 0))
    code, told = sweep.end()
    assert code == 0, told
    assert sweep.digests().keys() == {"0", "0.1"}
    assert [len(begun(sweep.run(l2))) for l2 in ("0", "0.1")] == [2, 1], "the first process alone speaks"


@pytest.mark.torture
def test_the_batch_file_that_the_page_shows_saves_when_its_time_is_up_and_goes_on(tmp_path, cluster):
    """`sbatch docs/clusters/one_task.sbatch`, as it is written."""
    environment = {**os.environ, **slurm.install(cluster)}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    for name in ("train.py", "src", "conf", "docs", "data"):
        (tmp_path / name).symlink_to(CONF.parent / name)
    subprocess.run(["sbatch", "docs/clusters/one_task.sbatch"], cwd=tmp_path, env=environment, check=True)
    run = tmp_path / "outputs" / "one_task"
    (job,) = slurm.jobs(cluster)
    until(lambda: (run / "checkpoints/last.ckpt").exists() or slurm.state(job) == "FAILED")
    slurm.signal_tasks(int((job / "group").read_text()), signal.SIGUSR1, cluster)
    until(lambda: slurm.state(job) not in ("RUNNING", "REQUEUED") or len(begun(run)) > 2)
    assert slurm.state(job) == "COMPLETED"
    assert (run / "results.csv").exists()
    assert begun(run)[1] > 1
    said = (tmp_path / "slurm-100.out").read_text()
    assert f"The job is requeued: scontrol requeue {job.name}" in said
    assert sorted(path.name for path in tmp_path.iterdir() if not path.is_symlink()) == [
        "outputs",
        "slurm",
        "slurm-100.out",
    ]
