"""The jobs of a sweep that submitit starts, here or on a SLURM cluster: one that dies, is preempted, or is stopped."""

import io
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import joblib
import submitit
from hydra.core.utils import JobReturn, JobStatus

from handgrad.cli.endings import failures
from handgrad.cli.messages import one_line
from handgrad.cli.parallel import THREADS, record, stop
from handgrad.cli.together import folder_of_first, part
from handgrad.errors import InputError
from handgrad.runs.folder import RunFolder
from handgrad.runs.launch import is_first_process
from handgrad.runs.signals import Interrupted, stopping
from handgrad.runs.sweep import KILLED

log = logging.getLogger(__name__)

POLL = 0.5  # seconds between two looks at what is under way
LATE = 15.0  # seconds that a file system of several hosts may take to show a result
KILL_WAIT = 60.0  # seconds by which SLURM has killed what it cancelled: its KillWait, 30 by default, and some


class Jobs(submitit.AutoExecutor):
    """Takes the place of ``submitit.AutoExecutor`` in Hydra's launcher, which raises where one job died.

    When this process is stopped, the jobs stop like a run by itself: at the next check, saved. What died is recorded
    as failed, and the sweep goes on.

    Args:
        folder: of submitit's files, with ``%j`` for a job's number; they get a new one beside, since a number, which
            here is that of a process, may come again.
        cluster: ``"local"`` or ``"slurm"``.
    """

    def __init__(self, folder: str, cluster: str, **others: Any) -> None:
        self.place = Path(folder).parent / time.strftime("%Y-%m-%d_%H-%M-%S")
        super().__init__(self.place / "%j", cluster, **others)

    def map_array(self, launcher: Any, *iterable: Any) -> Any:
        """Runs ``launcher`` in a job for each of its lists of arguments; returns what has their results.

        Raises:
            InputError: they cannot be submitted.
        """
        calls = list(zip(*iterable, strict=True))
        jobs: list[submitit.Job] = []
        with environment(self.shares(len(calls)) | {"PYTHONSAFEPATH": "1"}):  # no module of the current folder's
            self.submit_all(Run(launcher, os.getpid()), calls, jobs)
        try:
            self.wait(jobs)
        except BaseException:
            self.end(jobs)
            raise
        latest = time.monotonic() + (0 if self.cluster == "local" else LATE)
        return [Ended(self.outcome(job, launcher, call, latest)) for job, call in zip(jobs, calls, strict=True)]

    def shares(self, count: int) -> dict[str, str]:
        """Returns the variables that tell each of ``count`` jobs its threads: as many as it has cores."""
        if told := self.parameters.get("cpus_per_task"):
            return dict.fromkeys(THREADS, str(told))
        if self.cluster != "local":
            return {}  # SLURM gives it cores of its own, which it finds
        share = str(max(1, joblib.cpu_count() // count))
        return {name: os.environ.get(name, share) for name in THREADS}

    def submit_all(self, run: "Run", calls: Sequence[tuple[Any, ...]], jobs: list[submitit.Job]) -> None:
        """Adds a job for each call to ``jobs``; on SLURM they are an array. Ends them all where one cannot start."""
        batches = [[call] for call in calls] if self.cluster == "local" else [calls]
        try:
            for batch in batches:
                with stopping.noted(), without_ctrl_c():
                    jobs += super().map_array(run, *zip(*batch, strict=True))
        except BaseException as error:
            self.end(jobs)
            if not jobs:
                shutil.rmtree(self.place, ignore_errors=True)
            if isinstance(error, Interrupted):
                raise
            told = str(error).strip().partition("\n")[0]
            raise InputError(f"hydra/launcher=submitit_{self.cluster}: {told}") from error

    def wait(self, jobs: Sequence[submitit.Job]) -> None:
        """Waits until all have ended, and says how many have."""
        told = 0
        while told < len(jobs):
            ended = sum(job.done() for job in jobs)
            if ended > told:
                log.info("%d of %d jobs have ended", ended, len(jobs))
            told = ended
            time.sleep(POLL)

    def end(self, jobs: Sequence[submitit.Job]) -> None:
        """Ends all jobs, each at its next check; at once when this process is told so again."""
        if not (left := [job for job in jobs if not job.done()]):
            return
        print("\nStopping at the next check; once more: at once", file=sys.stderr)
        try:
            if self.cluster == "local":
                end_here(left)
            else:
                cancel(left)
        except BaseException:
            for job in left if self.cluster == "local" else ():
                if not job.done():
                    os.kill(int(job.job_id), signal.SIGKILL)  # whose run sees it
            raise

    def outcome(self, job: submitit.Job, launcher: Any, call: tuple[Any, ...], latest: float) -> JobReturn:
        """Returns what a job that ended gave, for which it waits until ``latest``; else, what ``record`` returns."""
        from handgrad.compat import as_joblibs  # loads torch

        first = job.task(0)
        while not (there := first.paths.result_pickle.exists()) and time.monotonic() < latest:
            time.sleep(POLL)
        returned = first.results()[0] if there else self.death(first)
        if not isinstance(returned, str):
            return returned
        recorded = record(as_joblibs(launcher, call), returned)
        if recorded.status != JobStatus.FAILED:
            return recorded
        log.error("error: %s", returned)  # nothing is written where another process trains
        return JobReturn(status=JobStatus.COMPLETED, _return_value=math.nan)

    def death(self, job: submitit.Job) -> str:
        """Returns how a job ended without a result, in a line."""
        state = "" if self.cluster == "local" else f" ({job.state})"
        said = next((path for path in (job.paths.stderr, job.paths.stdout) if path.exists()), self.place)
        return f"{KILLED}{state}; what it has said: {RunFolder(said)}"


class Ended:
    """Stands for a job that has ended, in Hydra's launcher."""

    def __init__(self, returned: JobReturn) -> None:
        self.returned = returned

    def results(self) -> list[JobReturn]:
        return [self.returned]


def end_here(jobs: Sequence[submitit.Job]) -> None:
    """Tells jobs on this machine to stop until they have: one that just begins does not hear it."""
    while left := [job for job in jobs if not job.done()]:
        for job in left:
            os.kill(int(job.job_id), signal.SIGTERM)  # to a process of submitit's, which passes it on
        time.sleep(POLL)


def cancel(jobs: Sequence[submitit.Job]) -> None:
    """Has SLURM end jobs, which it does whether they answer or not."""
    arrays = {job.job_id.partition("_")[0] for job in jobs}
    subprocess.run(["scancel", *sorted(arrays)], check=False)
    end = time.monotonic() + KILL_WAIT
    while not all(job.done(force_check=True) for job in jobs) and time.monotonic() < end:
        time.sleep(4 * POLL)


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets variables of the environment for what is started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Keeps Ctrl-C from what is started meanwhile: it reaches all, and this process tells the others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with redirect_stderr(io.StringIO()):  # where submitit repeats what sbatch says, which is to be told once
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Run:
    """A job of a sweep, as submitit calls it in a process of its own.

    It stops by signals as a run by itself does, and by that with which submitit announces that it has to make room:
    then it is saved before it is queued again, and goes on in the same folder.

    Args:
        launcher: Hydra's.
        sweep: the process that submits it.
    """

    def __init__(self, launcher: Any, sweep: int) -> None:
        self.launcher, self.sweep = launcher, sweep

    def __call__(self, *arguments: Any) -> JobReturn | str:
        """Returns what the run gives, or why there is nothing, in a line; ends the process when it was stopped."""
        queue_again: Any = signal.getsignal(preemption())  # submitit's
        preempted: list[int] = []
        try:
            self.listen(preempted)
            folder_of_first()  # where all look for it by the same words; until then nothing of it is there
            returned = self.launcher(*arguments)
            if returned.status == JobStatus.FAILED:
                _ = returned.return_value  # raises what the run did
            part(failures[-1] if failures else "")
            return returned
        except Interrupted as stop:
            log.info("Stopped by %s %s", signal.Signals(stop.number).name, stop.done and f"after {stop.done}")
            part(number=stop.number)
            if preempted or stop.number == preemption():
                return make_room(queue_again)
            sys.exit(128 + stop.number if is_first_process() else 0)  # else SLURM may end the first one before its time
        except Exception as error:  # submitit would end the sweep with it
            line = one_line(error) or traceback.format_exc().strip()
            part(line)
            return line

    def listen(self, preempted: list[int]) -> None:
        """Takes over the signals; adds that of a preemption to the list when it comes."""

        def preempt(number: int, frame: FrameType | None) -> None:
            preempted.append(number)
            stopping.handle(number, frame)

        stopping.install()
        stopping.patient = True
        signal.signal(preemption(), preempt)
        if submitit.JobEnvironment().cluster == "local":
            Thread(target=stop_without, args=(self.sweep,), daemon=True).start()

    def checkpoint(self, *arguments: Any) -> submitit.helpers.DelayedSubmission:
        """Returns what submitit queues again: the same, since what has been done is in the run's folder."""
        return submitit.helpers.DelayedSubmission(self, *arguments)


def preemption() -> int:
    """Returns the signal by which submitit is told that a job must make room, or that its time is up."""
    return getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")


def make_room(queue_again: Callable[[int, None], None]) -> str:
    """Has submitit queue this job again, and ends the process; returns why not, where submitit will not.

    Args:
        queue_again: its own handler of the signal.
    """
    try:
        queue_again(preemption(), None)
    except Exception as refused:
        return f"{KILLED} ({refused})"
    sys.exit(0)  # of a job of several processes one that is not the first


def stop_without(sweep: int) -> None:
    """Stops this process when ``sweep``, which started what started it, is gone: at its next check.

    At once, if it has been told to stop before. Where the system does not tell of it, never.
    """
    while above(os.getppid()) in (sweep, None):
        time.sleep(POLL)
    if stopping.signal is not None:
        os._exit(128 + stopping.signal)
    stop()


def above(process: int) -> int | None:
    """Returns the id of a process' parent; None where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return None
