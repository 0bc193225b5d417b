"""A sweep as a folder: its jobs, what is left of them, and their results in one table."""

import logging
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from handgrad.errors import InputError
from handgrad.files import check_inside, locked, remove_stale
from handgrad.runs.folder import FAILED, LAST, LOCK, RESULTS, WORDS, RunFolder, latest_first
from handgrad.runs.overrides import Overrides, parsed, split_words
from handgrad.runs.results import Row, csv_file, shown
from handgrad.tables import aligned

log = logging.getLogger(__name__)

SWEEP = "multirun.yaml"  # Hydra's: how the sweep in a folder came about
KILLED = "its process died"  # how the failure of a job begins that resume=true does again
TRACES = (LOCK, WORDS, FAILED)  # what a job leaves, however early it fails
COUNTS = ("steps", "best_step")
SHOWN = (*COUNTS, "val_loss", "val_accuracy", "test_accuracy")
SHOWN_OF_FILES = (
    *("val_loss", "val_mean_per_class", "val_f1_macro", "val_auroc", "val_accuracy"),
    *("test_accuracy", "refit_test_accuracy"),
)
SEED = "seed"
FILES = "data.train"  # the setting whose sweep compares files of features: encoders, or layers of one


class Job(NamedTuple):
    """One run of a sweep.

    Attributes:
        results: its rows; none where it failed.
        failure: why it failed or was refused, in one line; None where it did not.
    """

    folder: Path
    overrides: Overrides
    results: list[Row]
    failure: str | None = None

    @property
    def status(self) -> str:
        return "ok" if self.results else "failed"

    @property
    def selected(self) -> list[Row]:
        """The row of the l2 that was chosen; none where the job failed."""
        return [row for row in self.results if row.get("selected") == "true"]

    def name(self, keys: Sequence[str]) -> str:
        """Returns what sets it apart from the other jobs; its folder's name where nobody knows."""
        return ", ".join(f"{key}={self.overrides.get(key)}" for key in keys if self.overrides) or self.folder.name


@contextmanager
def owned(folder: Path, words: Sequence[str]) -> Iterator[None]:
    """Keeps other sweeps and runs out of the folder of the sweep of ``words``; writes nothing into one of others.

    Raises:
        InputError: the folder holds a run, or another sweep than this one or a part of it, or one is under way there,
            or a link leads out of it.
    """
    check_inside(folder)
    if found := strange_to(folder, words):
        raise InputError(
            f"hydra.sweep.dir={RunFolder(folder)}: {found}; accepted is a new folder, or that of a sweep with the same "
            f"words"
        )
    with locked(folder / LOCK) as held:
        if not held:
            raise InputError(f"hydra.sweep.dir={RunFolder(folder)}: a run or a sweep is under way there")
        remove_stale(folder)
        yield


def strange_to(folder: Path, words: Sequence[str]) -> str | None:
    """Returns what a sweep of ``words`` would mix up with its own in a folder, in words; None where there is nothing.

    A sweep all of whose jobs are among those of ``words`` is the same one: it goes on, or is extended.
    """
    is_sweep = (folder / SWEEP).exists()
    if any((folder / name).exists() for name in ((WORDS, LAST) if is_sweep else (WORDS, LAST, RESULTS))):
        return "holds a run already"
    if (folder.parent / SWEEP).exists():
        return "lies in the folder of another sweep"
    if is_sweep:
        return None if is_part(folder, words) else "holds another sweep already"
    below = (folder.glob(f"*/{name}") for name in (SWEEP, *TRACES))
    return "holds other runs already" if any(map(any, below)) else None


def is_part(sweep: Path, words: Sequence[str]) -> bool:
    """Tells whether every job of the sweep in a folder is one of those of ``words``."""
    try:
        jobs = split_words(started_with(sweep)[0])
    except InputError:  # Hydra writes its file anew, and not at once: its jobs know as well what they are
        jobs = [job for path in sweep.glob(f"*/{WORDS}") if (job := known_words(RunFolder(path.parents[1])))]
    return {tuple(sorted(job)) for job in jobs} <= {tuple(sorted(job)) for job in split_words(words)}


def started_with(sweep: Path) -> tuple[list[str], list[str]]:
    """Returns the words that a sweep was started with: those of its jobs, and Hydra's own.

    Raises:
        InputError: they are missing or damaged.
    """
    try:
        given = yaml.safe_load((sweep / SWEEP).read_text(encoding="utf-8"))["hydra"]["overrides"]
        task, of_hydra = ([str(word) for word in given[whose]] for whose in ("task", "hydra"))
        parsed(task)
        return task, of_hydra
    except Exception as error:  # of the disk's, YAML's, or of what is there in place of words
        raise InputError(f"{RunFolder(sweep / SWEEP)}: damaged, or no description of a sweep") from error


def unfinished(sweep: Path) -> list[list[str]]:
    """Returns the words of each run of a sweep that has no results yet."""
    runs = (RunFolder(results.parent) for results in sweep.glob(f"*/{RESULTS}"))
    finished = [sorted(known_words(run)) for run in runs if run.has_results]
    return [job for job in split_words(started_with(sweep)[0]) if sorted(job) not in finished]


def known_words(run: RunFolder) -> list[str]:
    """Returns the words of a run, of none where they cannot be read, which it tells by name."""
    try:
        run.overrides()
        return run.words()
    except InputError as error:
        log.warning("%s; passed over", error)
        return []


def latest_sweep(outputs: Path, words: Sequence[str]) -> Path:
    """Returns the folder of the latest sweep below ``outputs`` that was started with these words."""
    for path in latest_first(outputs.glob(f"**/{SWEEP}")):
        try:
            if started_with(path.parent)[0] == list(words):
                return path.parent
        except InputError as error:
            log.warning("%s; passed over", error)
    raise InputError(f"resume=true: no sweep below {outputs}/ was started with {' '.join(words)}")


def read_jobs(folder: Path) -> list[Job]:
    """Returns the jobs of the sweep in ``folder``, in the order in which Hydra numbered them.

    A job whose ``results.csv`` cannot be read has failed, whatever process it was in; so has one that was refused
    because there are results of other settings in its folder.
    """
    found = []
    for path in {folder / path.relative_to(folder).parts[0] for name in TRACES for path in folder.glob(f"*/{name}")}:
        run = RunFolder(path)
        number, overrides = None, {}
        with suppress(Exception):  # whatever is wrong with the files of a job, the others are summed up
            number = run.job()
            overrides = run.overrides()
        failure = run.failure()
        results = run.results_or_none() if failure is None else []
        job = Job(run.path, overrides, results, failure or (None if results else "no readable results"))
        found.append((number if isinstance(number, int) else math.inf, run.path.name, job))
    return [job for *_, job in sorted(found, key=lambda entry: entry[:2])]


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Returns the overrides in which the jobs differ."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    return [key for key in keys if len({repr(job.overrides.get(key)) for job in jobs if job.overrides}) > 1]


def as_csv(jobs: Sequence[Job]) -> bytes:
    """Returns all jobs' results as the content of a CSV file: status, overrides, then what was measured."""
    overrides = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    measured = dict.fromkeys(key for job in jobs for row in job.results for key in row)
    columns = ["job", "status", *overrides, *(key for key in measured if key not in overrides)]
    rows = []
    for job in jobs:
        given = {key: shown(value) for key, value in job.overrides.items()}
        rows += [{"job": job.folder.name, "status": job.status, **given, **row} for row in job.results or [{}]]
    return csv_file(columns, rows)


def table(jobs: Sequence[Job], keys: Sequence[str], width: int | None = None) -> str:
    """Returns the results as aligned text, for people: the best weights' figures; of files those of the selected l2.

    Args:
        width: of the terminal, which it is to fit.
    """
    names: Sequence[str] = SHOWN_OF_FILES if FILES in keys else SHOWN
    shown = [name for name in names if any(row.get(name) is not None for job in jobs for row in job.results)]
    paths = any(len(job.results) > 1 for job in jobs)
    lines = [["job", *(["l2"] if paths else []), *(name.replace("_", " ") for name in shown), "‖w‖"]]
    for job in jobs:
        for row in job.selected if FILES in keys else job.results:
            l2 = [f"{row.get('l2', 0.0):g}"] if paths else []
            lines.append([job.name(keys), *l2, *(cell(row.get(name)) for name in shown), cell(norm(row))])
        if not job.results:
            lines.append([job.name(keys), "failed", *[""] * (len(lines[0]) - 2)])
    tables = [lines]
    if SEED in keys:
        tables.append(over_seeds(jobs, keys, [name for name in shown if name not in COUNTS]))
    return "\n\n".join("\n".join(aligned(cells, width, named=True)) for cells in tables)


def over_seeds(jobs: Sequence[Job], keys: Sequence[str], shown: Sequence[str]) -> list[list[str]]:
    """Returns the cells of a table of mean and standard deviation over the seeds, by the other keys and l2."""
    others = [key for key in keys if key != SEED]
    groups: dict[tuple[str, float], list[Row]] = {}
    for job in jobs:
        for row in job.selected if FILES in keys else job.results:
            l2 = math.nan if FILES in keys else row.get("l2", 0.0)  # of files each seed may have chosen another
            groups.setdefault((job.name(others) if others else "", l2), []).append(row)
    several = len({l2 for _, l2 in groups if l2 == l2}) > 1
    lines = [["over seeds", *(["l2"] if several else []), "runs", *(name.replace("_", " ") for name in shown)]]
    for (name, l2), rows in groups.items():
        cells = [spread([row[metric] for row in rows if row.get(metric) is not None]) for metric in shown]
        lines.append([name, *([f"{l2:g}"] if several else []), str(len(rows)), *cells])
    return lines


def spread(values: Sequence[float]) -> str:
    """Returns mean ± standard deviation."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{deviation}"


def cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if value == round(value) or abs(value) < 1e-3 else f"{value:.4f}"


def norm(row: Row) -> float | None:
    """Returns ‖w‖ of the best weights."""
    squared = row.get("weight_norm_squared")
    return math.sqrt(squared) if isinstance(squared, float) else None


def accuracy_on_test(row: Row) -> float | None:
    """Returns the accuracy on the test set: of the refitted weights where there are some, else of the best."""
    refitted = row.get("refit_test_accuracy")
    return row.get("test_accuracy") if refitted is None else refitted


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
