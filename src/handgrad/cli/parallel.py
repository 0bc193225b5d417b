"""The jobs of a parallel sweep: several processes at a time, each of which can die without the others."""

import math
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import RLock, Thread
from typing import Any

import joblib
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from joblib.externals.loky import ProcessPoolExecutor
from omegaconf import DictConfig
from tqdm import tqdm

from handgrad.cli.configuration import resolved
from handgrad.cli.endings import one_run
from handgrad.errors import InputError
from handgrad.runs.folder import RunFolder
from handgrad.runs.signals import Interrupted, stopping
from handgrad.runs.sweep import KILLED

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # of a process: its share of the cores

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]  # as joblib's `delayed` makes them


class Workers:
    """Takes the place of ``joblib.Parallel`` in Hydra's launcher, where one process that dies takes all others along.

    Each process is a pool of its own. The job of one that died is recorded as failed, and a new one takes the next job.
    When this process is stopped or dies, they stop like a run by itself: at the next check, saved.

    Args:
        n_jobs: processes at a time, as joblib counts them: -1 is one per core; others: of joblib, without a use here.

    Raises:
        InputError: ``n_jobs`` is no such number.
    """

    def __init__(self, n_jobs: Any, **others: Any) -> None:
        if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0:
            raise InputError(
                f"hydra.launcher.n_jobs={n_jobs}: accepted is a whole number of processes; -1: one per core"
            )
        self.count = joblib.effective_n_jobs(n_jobs)
        share = str(max(1, joblib.cpu_count() // self.count))
        self.environment = {name: os.environ.get(name, share) for name in THREADS}

    def __call__(self, calls: Iterable[Call]) -> list[JobReturn]:
        """Returns what each call returns; of one whose process died that of ``record``."""
        waiting, returned = deque(enumerate(calls)), dict[int, JobReturn]()
        idle: list[ProcessPoolExecutor] = []
        running: dict[Future, tuple[int, Call, ProcessPoolExecutor]] = {}
        there, here = Pipe(duplex=False)  # nobody ever sends: what the others see is its end
        try:
            while waiting or running:
                while waiting and len(running) < self.count:
                    number, call = waiting.popleft()
                    worker = idle.pop() if idle else self.worker(there)
                    running[worker.submit(work, *call)] = number, call, worker
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number, call, worker = running.pop(future)
                    try:
                        returned[number] = future.result()
                        idle.append(worker)
                    except BrokenProcessPool as died:
                        returned[number] = record(call, death(died))
        except BaseException:
            here.close()
            if running:
                print("\nStopping at the next check; once more: at once", file=sys.stderr)
                wait(running)
            raise
        finally:
            for *_, worker in running.values():
                worker.shutdown(kill_workers=True)
            for worker in idle:
                worker.shutdown()
            here.close()
            there.close()
        return [returned[number] for number in sorted(returned)]

    def worker(self, alive: Connection) -> ProcessPoolExecutor:
        """Returns a pool of one process."""
        return ProcessPoolExecutor(1, initializer=begin, initargs=(alive,), env=self.environment)


def begin(alive: Connection) -> None:
    """Makes a process stop by signals as a run by itself does, and when the end of ``alive`` says that it is alone."""
    stopping.install()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the first process tells the others
    tqdm.set_lock(RLock())  # its own one is a semaphore of the system, which a process that dies leaves behind
    Thread(target=stop_at_the_end_of, args=(alive,), daemon=True).start()


def stop_at_the_end_of(alive: Connection) -> None:
    with suppress(EOFError, OSError):
        alive.recv_bytes()
    stop()


def stop() -> None:
    """Stops this process from another thread than the first."""
    if stopping.put_off:
        stopping.signal = signal.SIGTERM  # quietly: the run looks at it at its next check
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def work(function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Returns what a call returns; ends the process when it was told to stop."""
    try:
        returned = function(*arguments, **named)
    except Interrupted as stop:
        os._exit(128 + stop.number)
    if stopping.signal is not None:
        os._exit(128 + stopping.signal)
    return returned


def death(error: BrokenProcessPool) -> str:
    """Returns how a process died, in a line, from loky's message, which ends like ``{SIGKILL(-9)}``."""
    found = re.search(r"\{(\w+)\((-?\d+)\)", str(error))
    how = "" if found is None else f" (exit {found[2]})" if found[1] == "EXIT" else f" ({found[1]})"
    return f"{KILLED}{how}" + (", as it does when memory is short" if how == " (SIGKILL)" else "")


def record(call: Call, told: str) -> JobReturn:
    """Leaves ``told`` in the folder of a job whose process died, unless its results are there; returns NaN for it."""
    from handgrad.compat import in_place_of  # loads torch

    def instead(cfg: DictConfig) -> float:
        context = HydraConfig.get()
        run = RunFolder(context.runtime.output_dir)
        if not run.has_results:
            with one_run(run, of_sweep=True):
                if not run.has_words:
                    run.begin(resolved(cfg), context.overrides.task, context.job.num)
                raise InputError(told)
        return math.nan

    return in_place_of(call, instead)
