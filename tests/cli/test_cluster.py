"""A sweep by submitit: a job that dies is named, one that is preempted saves first, and a stopped sweep ends them."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit
from hydra.core.utils import JobReturn, JobStatus
from submitit.core.utils import FailedJobError, UncompletedJobError

from handgrad.cli import cluster
from handgrad.cli.cluster import Jobs, Run, above, cancel, environment, stop_without, without_ctrl_c
from handgrad.cli.parallel import THREADS
from handgrad.errors import InputError
from handgrad.runs.results import read_results
from handgrad.runs.signals import STOPS, Interrupted, stopping

SWEEP = ("-m", "experiment=report_logistic", "seed=1,2,3", "epochs=1", "logger=none", "threads=1")
SWEEP += ("callbacks.figures=null", "hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=1")
PREEMPTION = signal.SIGUSR2


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """What a job does to its process, which here is that of the tests, is undone."""
    before = {number: signal.getsignal(number) for number in (*STOPS, PREEMPTION)}
    for name, value in vars(stopping).items():
        monkeypatch.setattr(stopping, name, value)
    stopping.signal = None
    monkeypatch.setattr(cluster, "POLL", 0.001)
    monkeypatch.setattr(cluster, "LATE", 0.01)
    monkeypatch.setattr(cluster, "stop_without", lambda sweep: None)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "12345")
    monkeypatch.setattr(submitit, "AutoExecutor", submitit.AutoExecutor)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def jobs(tmp_path) -> Jobs:
    return Jobs(str(tmp_path / ".submitit" / "%j"), "local")


class Job:
    """Stands for one of submitit's, which is done once it was asked so often."""

    def __init__(self, folder: Path, number: int = 12, asked: int = 0, returned: Any = None) -> None:
        self.job_id, self.asked, self.returned, self.state = str(number), asked, returned, "OUT_OF_MEMORY"
        self.paths = SimpleNamespace(
            **{name: folder / f"{number}.{name}" for name in ("result_pickle", "stderr", "stdout")}
        )
        self.paths.stderr.touch()
        if returned is not None:
            self.paths.result_pickle.touch()

    def task(self, number: int) -> "Job":
        assert number == 0
        return self

    def done(self, force_check: bool = False) -> bool:
        self.asked -= 1
        return self.asked < 0

    def results(self) -> list[Any]:
        return [self.returned]


# --- a job, in its process -------------------------------------------------------------------------------------------


def done(value: object) -> JobReturn:
    return JobReturn(status=JobStatus.COMPLETED, _return_value=value)


def run_of(launcher: Callable[..., Any]) -> Any:
    return Run(launcher, os.getpid())


def test_a_job_gives_what_its_run_does():
    assert run_of(lambda *given: done(sum(given)))(1, 2, 3).return_value == 6


def test_an_error_is_told_in_a_line_and_ends_no_sweep():
    def refused(*_: Any) -> None:
        raise InputError("a line")

    assert run_of(refused)() == "a line"
    failed = JobReturn(status=JobStatus.FAILED, _return_value=InputError("another line"))
    assert run_of(lambda: failed)() == "another line"
    assert run_of(lambda: 1 / 0)().splitlines()[-1] == "ZeroDivisionError: division by zero"


def train_until_stopped(*numbers: int) -> Callable[..., None]:
    """Returns a run that gets signals while it trains, and stops at its next check, as one with Checkpointing does."""

    def train(*_: Any) -> None:
        stopping.put_off = True
        for number in numbers:
            signal.raise_signal(number)
        told.append("saved")
        stopping.put_off = False
        assert stopping.signal is not None
        raise Interrupted(stopping.signal)

    return train


told: list[str] = []


@pytest.mark.parametrize("number", STOPS)
def test_a_job_that_is_stopped_ends_once_it_has_saved(number, capfd):
    told.clear()
    with pytest.raises(SystemExit) as end:
        run_of(train_until_stopped(number, number))()
    assert (end.value.code, told) == (128 + number, ["saved"])
    assert capfd.readouterr().err == "\nStopping at the next check\n"


@pytest.mark.parametrize("numbers", [[PREEMPTION], [signal.SIGTERM, PREEMPTION], [PREEMPTION, signal.SIGTERM]])
def test_a_job_that_must_make_room_is_saved_before_it_is_queued_again(numbers):
    told.clear()
    signal.signal(PREEMPTION, lambda *_: told.append("queued again"))  # as submitit does before it calls a job
    with pytest.raises(SystemExit):
        run_of(train_until_stopped(*numbers))()
    assert told == ["saved", "queued again"]


def test_a_job_that_is_not_queued_again_says_so():
    def refuse(*_: Any) -> None:
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    signal.signal(PREEMPTION, refuse)
    returned = run_of(train_until_stopped(PREEMPTION))()
    assert returned == "its process died (Job not requeued because: timed-out too many times.)"


def test_what_is_queued_again_is_the_same():
    run = run_of(print)
    again = run.checkpoint("l2=0", 1)
    assert (again.function, again.args) == (run, ("l2=0", 1))


def test_other_processes_of_a_job_end_without_an_error(monkeypatch):
    """One that ends with an error may end the first one, which has yet to be queued again."""
    monkeypatch.setattr(cluster, "is_first_process", lambda: False)
    signal.signal(PREEMPTION, lambda *_: None)
    with pytest.raises(SystemExit) as end:
        run_of(train_until_stopped(PREEMPTION))()
    assert end.value.code == 0


# --- a job whose sweep is gone ---------------------------------------------------------------------------------------


def test_who_started_whom_is_known_where_the_system_tells():
    assert above(os.getpid()) in (os.getppid(), None)
    assert above(10**9) is None


def test_a_job_stops_when_its_sweep_is_gone(monkeypatch):
    seen, ended = iter([7, None, 7, 1, 1]), []
    monkeypatch.setattr(cluster, "above", lambda process: next(seen))
    monkeypatch.setattr(cluster, "stop", lambda: ended.append("stopped"))
    monkeypatch.setattr(cluster.os, "_exit", ended.append)
    stop_without(7)
    assert ended == ["stopped"]
    stopping.signal = signal.SIGTERM  # and at once, when it has been told so before
    stop_without(7)
    assert ended[1] == 143


# --- the sweep -------------------------------------------------------------------------------------------------------


def test_each_job_has_its_share_of_the_cores(jobs, monkeypatch):
    monkeypatch.setattr(cluster.joblib, "cpu_count", lambda: 8)
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    assert jobs.shares(3) == dict.fromkeys(THREADS, "2")
    assert jobs.shares(30) == dict.fromkeys(THREADS, "1")
    monkeypatch.setenv(THREADS[0], "5")
    assert jobs.shares(3)[THREADS[0]] == "5"
    jobs.parameters["cpus_per_task"] = 4
    assert jobs.shares(3) == dict.fromkeys(THREADS, "4")
    jobs.parameters["cpus_per_task"], jobs.cluster = None, "slurm"
    assert jobs.shares(3) == {}


def test_the_environment_is_as_it_was():
    os.environ["HANDGRAD_A"] = "before"
    with environment({"HANDGRAD_A": "1", "HANDGRAD_B": "2"}):
        assert (os.environ["HANDGRAD_A"], os.environ["HANDGRAD_B"]) == ("1", "2")
    assert (os.environ.pop("HANDGRAD_A"), os.environ.get("HANDGRAD_B")) == ("before", None)


def test_ctrl_c_does_not_reach_what_submitit_starts():
    asks = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with without_ctrl_c():
        told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout
    assert told == "True\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_what_cannot_be_submitted_is_told_in_a_line_and_leaves_nothing(jobs, monkeypatch, tmp_path):
    def submit(self, run: Any, *_: Any) -> list[Job]:
        raise FailedJobError(
            "sbatch: error: invalid partition specified: gpuu\nsbatch: error: Batch job submission failed"
        )

    monkeypatch.setattr(submitit.AutoExecutor, "map_array", submit)
    with pytest.raises(InputError, match=r"^hydra/launcher=submitit_local: sbatch: error: invalid partition speci"):
        jobs.map_array(print, ["l2=0"])
    assert not list((tmp_path / ".submitit").iterdir())


def test_who_has_been_submitted_is_ended_when_another_cannot_be(jobs, monkeypatch, tmp_path):
    submitted, killed = [], []

    def submit(self, run: Any, *_: Any) -> list[Job]:
        if submitted:
            raise OSError(11, "Resource temporarily unavailable")
        submitted.append(Job(tmp_path, asked=3))
        return submitted

    monkeypatch.setattr(submitit.AutoExecutor, "map_array", submit)
    monkeypatch.setattr(cluster.os, "kill", lambda *given: killed.append(given))
    with pytest.raises(InputError, match="Resource temporarily unavailable"):
        jobs.map_array(print, ["l2=0", "l2=1"])
    assert killed == [(12, signal.SIGTERM)] * 2


def test_a_stopped_sweep_tells_its_jobs_until_they_have_ended(jobs, monkeypatch, tmp_path, capfd):
    sent = []
    monkeypatch.setattr(cluster.os, "kill", lambda *given: sent.append(given))
    jobs.end([Job(tmp_path, 12, asked=3), Job(tmp_path, 13, asked=0)])
    assert sent == [(12, signal.SIGTERM)] * 2
    assert capfd.readouterr().err == "\nStopping at the next check; once more: at once\n"
    jobs.end([Job(tmp_path, 12)])
    assert capfd.readouterr().err == ""


def test_a_sweep_that_is_stopped_again_kills_what_is_left(jobs, monkeypatch, tmp_path):
    sent = []

    def again(*_: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(cluster.os, "kill", lambda *given: sent.append(given))
    monkeypatch.setattr(cluster, "end_here", again)
    with pytest.raises(Interrupted):
        jobs.end([Job(tmp_path, 12, asked=9), Job(tmp_path, 13, asked=1)])
    assert sent == [(12, signal.SIGKILL)]


def test_slurm_cancels_arrays_as_a_whole(monkeypatch, tmp_path):
    called, jobs = [], [Job(tmp_path, 12, asked=2), Job(tmp_path, 13), Job(tmp_path, 14)]
    for job, name in zip(jobs, ("7_0", "7_1", "8"), strict=True):
        job.job_id = name
    monkeypatch.setattr(cluster.subprocess, "run", lambda words, **_: called.append(words))
    cancel(jobs)
    assert called == [["scancel", "7", "8"]]
    assert jobs[0].asked < 0
    monkeypatch.setattr(cluster, "KILL_WAIT", 0)
    cancel([Job(tmp_path, asked=10**9)])  # where nothing tells that it has ended


def test_what_a_dead_job_has_said_is_named(jobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job(tmp_path)
    assert jobs.death(job) == "its process died; what it has said: 12.stderr"
    job.paths.stderr.unlink()
    job.paths.stdout.touch()
    jobs.cluster = "slurm"
    assert jobs.death(job) == "its process died (OUT_OF_MEMORY); what it has said: 12.stdout"


def test_a_job_in_whose_folder_another_process_is_ends_no_sweep(jobs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cluster, "record", lambda *_: JobReturn(status=JobStatus.FAILED, _return_value=InputError("x")))
    launcher = SimpleNamespace(hydra_context=None, config=None)
    job = Job(tmp_path, returned="outputs/x: a run is under way there")
    returned = jobs.outcome(job, launcher, ("l2=0", "", 0, "", {}), latest=0)
    assert math.isnan(returned.return_value)
    assert caplog.messages == ["error: outputs/x: a run is under way there"]


# --- a whole sweep ---------------------------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch, tmp_path) -> Callable[[set[int]], None]:
    """Has jobs run in this process; those of the given numbers die."""
    deadly: set[int] = set()

    def submit(self, run: Run, *iterable: Any) -> list[Job]:
        assert os.environ["OMP_NUM_THREADS"] == "1", "cpus_per_task"
        ((words, where, number, *others),) = zip(*iterable, strict=True)
        returned = None if number in deadly else run(words, where, number, *others)
        return [Job(self.place.parent, number, returned=returned)]

    monkeypatch.setattr(submitit.AutoExecutor, "map_array", submit)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    return lambda numbers: deadly.clear() or deadly.update(numbers)


def test_a_sweep_names_its_dead_job_sums_up_and_goes_on(command, here, tmp_path):
    here({1})
    ended = command(*SWEEP, "hydra.sweep.dir=outputs/sweep")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    (failed,) = [line for line in ended.err.splitlines() if line.startswith("failed: ")]
    assert "seed=2" in failed
    assert failed.endswith("its process died; what it has said: outputs/sweep/.submitit/1.stderr")
    assert ended.err.splitlines()[-2:] == ["Go on with:", f"  python train.py {' '.join(SWEEP)} resume=true"]
    rows = read_results(tmp_path / "outputs" / "sweep" / "results.csv")
    assert [(row["seed"], row["status"]) for row in rows] == [(1, "ok"), (2, "failed"), (3, "ok")]
    here(set())
    ended = command(*SWEEP, "resume=true")
    assert ended.code == 0, ended.err
    logs = [path.read_text() for path in tmp_path.glob("outputs/sweep/*/train.log")]
    assert [log.count("Training from update 1 of") for log in logs] == [1, 1, 1], "only what was left is trained"
    assert len(list(tmp_path.glob("outputs/sweep/.submitit/2*-*"))) == 2, "a new folder for submitit's files each time"
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("data", "outputs")] == []
