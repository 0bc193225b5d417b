"""How a run and a sweep end: errors as one line, what is left of them, and the command that goes on."""

import logging
import re
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from handgrad.cli.messages import one_line
from handgrad.cli.streams import standard_streams, terminal_width
from handgrad.errors import InputError
from handgrad.files import replace_file
from handgrad.runs.folder import LOCK, RESULTS, RunFolder
from handgrad.runs.launch import is_first_process
from handgrad.runs.signals import Interrupted
from handgrad.runs.sweep import KILLED, SWEEP, as_csv, owned, read_jobs, started_with, swept_keys, table, unfinished

log = logging.getLogger(__name__)

failures: list[str] = []  # of the runs in this process, a line each
sweeping: list[Path] = []  # the folder of the sweep under way, if any
owning = ExitStack()  # what keeps others out of it


@contextmanager
def one_run(run: RunFolder, of_sweep: bool = False) -> Iterator[None]:
    """Owns a run's folder; tells of the run's error in one line and remembers it, so that a sweep goes on.

    Unusable input leaves no folder behind, except in a sweep, which keeps the reason in ``failed.txt``.

    Of a distributed run only the first process speaks, and tells an error of the user's making: it meets them all.

    Raises:
        InputError: another process trains in this folder.
    """
    if is_first_process():
        with standard_streams(), run.owned(), told(run, of_sweep):  # a parallel sweep's workers come in here
            run.forget_failure()
            yield
    else:
        logging.getLogger().setLevel(logging.ERROR)
        with told(run, of_sweep):
            yield


@contextmanager
def told(run: RunFolder, of_sweep: bool) -> Iterator[None]:
    """Turns an error into a line, and into what it leaves in the folder; see ``one_run``."""
    finished = run.has_results  # by an earlier process
    try:
        yield
    except Interrupted as stop:
        if run.has_checkpoint:
            stop.folder = run.path  # also when it was evaluating, after its training
        stop.left = "after the results were saved" if run.has_results else "in a run, of which no weights are saved"
        raise
    except Exception as error:
        line = one_line(error)
        said = line or traceback.format_exc().strip()
        failures.append(said)
        if line and not is_first_process():
            with suppress(OSError):  # it may be the first one's, who is in there
                run.path.rmdir()
            return
        notes = getattr(error, "__notes__", ()) if line else ()  # a traceback has them
        log.error("error: %s%s", f"{run.path.name}: " if of_sweep else "", "\n".join((said, *notes)))
        if line and run.is_empty and not of_sweep:
            logging.shutdown()
            shutil.rmtree(run.path, ignore_errors=True)  # Windows keeps the lock that is held
        elif (finished and of_sweep) or not run.has_results:  # what is on disk is a success, but not a job that differs
            run.fail(said)


def forget_sweep() -> None:
    """Gives a sweep's folder up, and removes it where none of its jobs has begun: its words were refused."""
    if sweeping:
        folder = sweeping.pop()
        if folder.is_dir() and {path.name for path in folder.iterdir()} <= {SWEEP, LOCK}:
            shutil.rmtree(folder, ignore_errors=True)
    owning.close()


def tell_stopped(stop: Interrupted) -> None:
    """Says where a run or a sweep was stopped, and the command that goes on."""
    name = signal.Signals(stop.number).name
    if sweeping and (sweeping[-1] / SWEEP).exists():
        try:
            left = unfinished(sweeping[-1])
        except InputError as error:
            print(f"\nStopped by {name}. {error}", file=sys.stderr)
            return
        print(f"\nStopped by {name}. Runs of the sweep that have not finished:", file=sys.stderr)
        for overrides in left:
            print(f"  {' '.join(overrides)}", file=sys.stderr)
        tell_how_to_go_on(sweeping[-1])
    elif stop.folder:
        saved = f" after {stop.done}; all is saved" if stop.done else ""
        print(f"\nStopped by {name}{saved}. Go on with:", file=sys.stderr)
        print(f"  python train.py resume={shlex.quote(str(RunFolder(stop.folder)))}", file=sys.stderr)
    else:
        print(f"\nStopped by {name} {stop.left}", file=sys.stderr)


def tell_how_to_go_on(sweep: Path) -> None:
    """Says the command that does what is left of a sweep."""
    words, of_hydra = started_with(sweep)
    words += [word for word in of_hydra if re.match(r"hydra[/.]launcher\b", word)]
    print(f"Go on with:\n  python train.py -m {shlex.join([*words, 'resume=true'])}", file=sys.stderr)


@contextmanager
def refusing() -> Iterator[None]:
    """Ends the program by an error's line: of an error in a callback Hydra makes a warning, and goes on."""
    try:
        yield
    except Exception as error:
        failures.append(one_line(error) or traceback.format_exc().strip())
        if is_first_process():
            print(f"error: {failures[-1]}", file=sys.stderr)
        sys.exit(1)


class SweepEnd(Callback):
    """Sums a sweep up, in a table and pictures, when all its runs have ended; the exit code is 1 if any failed.

    From its start on, before Hydra writes anything, to its end the sweep owns its folder.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        folder = Path(config.hydra.sweep.dir)
        with refusing():
            owning.enter_context(owned(folder, config.hydra.overrides.task))
        sweeping.append(folder)
        launcher = config.hydra.get("launcher", {})
        if "n_jobs" in launcher:  # joblib's
            from handgrad.cli.parallel import Workers
            from handgrad.compat import launch_by  # loads torch

            launch_by(Workers)
        if "submitit_folder" in launcher:
            from handgrad.cli.cluster import Jobs
            from handgrad.compat import submit_by

            submit_by(Jobs)

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        folder = sweeping.pop()
        try:
            print(f"\n{sum_up(folder)}\nFiles: {RunFolder(folder)}")
        except Exception as error:  # Hydra would make a warning of it
            failures.append(one_line(error) or traceback.format_exc().strip())
            print(f"error: {failures[-1]}", file=sys.stderr)
        told = {job.folder.name: job.failure for job in read_jobs(folder) if job.failure}
        for name, failure in told.items():
            failures.append(name)
            print(f"failed: {name}: {failure}", file=sys.stderr)
        if any(failure.startswith(KILLED) for failure in told.values()):
            tell_how_to_go_on(folder)
        owning.close()


def sum_up(folder: Path) -> str:
    """Writes ``results.csv`` and pictures into a sweep's folder; returns the results as an aligned table.

    A job that failed gets a row with that status and nothing measured.
    """
    from handgrad.plots.sweep_pictures import write_pictures  # loads matplotlib

    jobs = read_jobs(folder)
    if not jobs:
        return f"{folder}: no jobs"
    keys = swept_keys(jobs)
    replace_file(folder / RESULTS, as_csv(jobs))
    write_pictures(folder, jobs, keys)
    return table(jobs, keys, terminal_width())
