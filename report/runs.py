"""The runs behind the report: what is trained, how it is started, and which finished runs are reused."""

import itertools
import shutil
import subprocess
import sys
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from handgrad.errors import InputError
from handgrad.runs.folder import RunFolder
from handgrad.runs.overrides import Overrides, parse_overrides

PROCESSES = 2  # at a time, with one thread each


@dataclass(frozen=True)
class Command:
    """One call of ``train.py``: a run, or a Hydra multirun when ``swept`` names keys with several values.

    Attributes:
        name: its folder's name.
        fixed: overrides of every job.
        swept: values by key; every combination is a job.
        weights: whether the report looks at the final weights (see ``weights.py``).
    """

    name: str
    fixed: tuple[str, ...]
    swept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    weights: bool = False

    def jobs(self) -> list[Overrides]:
        """Returns the overrides of each job, by key."""
        choices = [[f"{key}={value}" for value in values] for key, values in self.swept.items()]
        return [parse_overrides([*combination, *self.fixed]) for combination in itertools.product(*choices)]

    def arguments(self, folder: Path) -> list[str]:
        """Returns the command line's arguments for a result in ``folder``."""
        swept = [f"{key}={','.join(values)}" for key, values in self.swept.items()]
        if self.swept:
            return ["-m", *swept, *self.fixed, f"hydra.sweep.dir={folder}"]
        return [*self.fixed, f"hydra.run.dir={folder}"]


THREAD = "threads=1"
LOGISTIC = ("course_logistic", "course_logistic_early_stopping", "report_logistic", "report_logistic_early_stopping")
STOPPED = ("course_logistic_early_stopping", "report_logistic_early_stopping")
SEEDS = ("0", "1", "2", "3", "4")
SMALL = (
    "experiment=course_l2",
    "l2=[0,0.02]",
    "data.train_size=100",
    "batch_size=100",
    "lr=0.1",
    "epochs=1900",
    THREAD,
)
OPTIMUM = ("optimizer=exact", "l2=[0.002,0.02,0.2,2]", THREAD)  # without 0, where no optimum can be proven
COMMANDS = (  # in this order both processes end at about the same time, and runs end from early on
    Command("course_l2", ("experiment=course_l2", THREAD), weights=True),
    Command("shuffled", ("data.shuffle=true", THREAD), {"experiment": STOPPED, "seed": SEEDS}),
    Command("small_data", SMALL),
    Command("report_l2", ("experiment=report_l2", THREAD), weights=True),
    Command("unshuffled", (THREAD,), {"experiment": LOGISTIC}),
    Command("optimum", OPTIMUM, {"experiment": ("course_l2", "report_l2")}),
)


class CommandFailed(Exception):
    """A run ended with an error; the message says where its output is."""


def finished_jobs(command: Command, folder: Path) -> list[Path | None]:
    """Returns the folder of each of the command's finished jobs in ``folder``, None where there is none.

    A job is finished when its folder has ``results.csv`` and its overrides are the ones asked for.
    """
    candidates = [RunFolder(path) for path in (sorted(folder.glob("*")) if command.swept else [folder])]
    found = []
    for run in candidates:
        if run.has_results:
            with suppress(InputError):  # whose words nobody knows is none of these
                found.append((run.path, run.overrides()))
    return [next((path for path, overrides in found if overrides == job), None) for job in command.jobs()]


def weights_file(command: Command, folder: Path) -> Path | None:
    """Returns the file that ``weights.py`` still has to write for a run in ``folder``; None when there is none."""
    path = folder / "weights.npz"
    return path if command.weights and not path.is_file() else None


def call(arguments: list[str], log: Path) -> None:
    """Runs Python with ``arguments``; what it prints is added to ``log``.

    Raises:
        CommandFailed: it ended with another status than 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        status = subprocess.run([sys.executable, *arguments], stdout=output, stderr=output).returncode
    if status:
        raise CommandFailed(f"python {' '.join(arguments)}: ended with status {status}; see {log}")


def perform(command: Command, root: Path) -> None:
    """Trains what is not finished: the command's folder is emptied first, for no old event file may stay there."""
    folder, log = root / command.name, root / f"{command.name}.log"
    if None in finished_jobs(command, folder):
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
        call(["train.py", *command.arguments(folder)], log)
        if None in finished_jobs(command, folder):
            raise CommandFailed(f"{folder}: not every run left its results; see {log}")
    if weights_file(command, folder):
        call(["-m", "report.weights", str(folder)], log)


def perform_all(root: Path, commands: tuple[Command, ...] = COMMANDS) -> None:
    """Brings the runs of all ``commands`` about in ``root``, two processes at a time, with a progress bar.

    Raises:
        CommandFailed: a run ended with an error; what was finished is kept for the next call.
    """
    jobs = [[None in finished_jobs(c, root / c.name), bool(weights_file(c, root / c.name))] for c in commands]
    todo = [command for command, missing in zip(commands, jobs, strict=True) if any(missing)]
    total = sum(len(command.jobs()) for command in commands)
    with ThreadPoolExecutor(PROCESSES) as pool, tqdm(total=total, unit=" runs", desc="Training", disable=None) as bar:
        futures = [pool.submit(perform, command, root) for command in todo]
        try:
            follow(futures, bar, lambda: sum(f is not None for c in commands for f in finished_jobs(c, root / c.name)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def follow(futures: list[Future], bar: tqdm, count) -> None:
    """Moves ``bar`` to ``count()`` until all ``futures`` are done; raises the first error at once."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        bar.n = count()
        bar.refresh()
    bar.n = count()
