"""A run as a folder: what stands where, who owns it, whether it has finished, and what it left."""

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from handgrad.errors import InputError
from handgrad.files import check_inside, check_regular, locked, remove_stale, replace_file
from handgrad.runs.overrides import Overrides, parse_overrides
from handgrad.runs.results import COLUMNS, Row, check_same, number, read_results, shown

log = logging.getLogger(__name__)

RESULTS = "results.csv"
PER_CLASS = "per_class.csv"
FOLDS = "folds.csv"
DRAWS = "few_shots.csv"
CURVES = "curves.csv"
FAILED = "failed.txt"
LOG = "train.log"
MODEL = "model.safetensors"
MODEL_FOR_PEOPLE = "model.json"
LAST = Path("checkpoints") / "last.ckpt"
BEST = Path("checkpoints") / "best.ckpt"
CONFIG = Path(".hydra") / "config.yaml"
WORDS = Path(".hydra") / "overrides.yaml"
JOB = Path(".hydra") / "hydra.yaml"
LOCK = ".lock"


class RunFolder:
    """The folder of one run.

    Args:
        path: need not be there yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        """The path as the user would type it."""
        here = Path.cwd()
        return str(self.path.relative_to(here) if self.path.is_relative_to(here) else self.path)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Keeps other processes out.

        Raises:
            InputError: one is in there, a link leads out of it, or something else than a file has the name of a file of
                the run.
        """
        check_inside(self.path)
        for name in (RESULTS, FAILED, LOG, CONFIG, WORDS, JOB, LAST, BEST):
            check_regular(self.path / name)
        with locked(self.path / LOCK) as held:
            if not held:
                raise InputError(f"{self}: a run is under way there")
            for folder in (self.path, (self.path / WORDS).parent, (self.path / LAST).parent):
                remove_stale(folder)
            yield

    def begin(self, config: Mapping[str, Any], words: Sequence[str], job: int | None) -> None:
        """Writes down how the run comes about, in Hydra's files.

        Args:
            config: resolved.
            words: of the command line, without Hydra's own.
            job: its number in a sweep.

        Raises:
            InputError: there are results that cannot be read, and nothing says that they are of these words.
        """
        if self.has_damaged_results and not (self.has_words and sorted(self.words()) == sorted(words)):
            raise InputError(f"{RunFolder(self.path / RESULTS)}: damaged, or no results of a run")
        files = {CONFIG: dict(config), WORDS: list(words), JOB: {"hydra": {"job": {"num": job}}}}
        for name, content in files.items():
            replace_file(self.path / name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())

    def fail(self, told: str) -> None:
        """Keeps the reason why the run failed, or why it was refused."""
        replace_file(self.path / FAILED, f"{told}\n".encode())

    def failure(self) -> str | None:
        """Returns the last line of the same reason; None where there is none."""
        with suppress(OSError):
            return (self.path / FAILED).read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        return None

    def forget_failure(self) -> None:
        (self.path / FAILED).unlink(missing_ok=True)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come of the run yet."""
        return {path.name for path in self.path.iterdir()} <= {".hydra", LOG, LOCK}

    @property
    def has_words(self) -> bool:
        return (self.path / WORDS).is_file()

    @property
    def has_results(self) -> bool:
        """Whether they are there and can be read: a run without them is done again, from its checkpoint on."""
        return bool(self.results_or_none())

    @property
    def has_damaged_results(self) -> bool:
        return (self.path / RESULTS).exists() and not self.has_results

    @property
    def has_checkpoint(self) -> bool:
        return (self.path / LAST).is_file()

    def config(self) -> dict[str, Any]:
        """Returns the resolved configuration that the run was started with: to be read, and never built from."""
        return self._read(CONFIG, dict, "configuration")

    def words(self) -> list[str]:
        """Returns the words that the run was started with.

        Raises:
            InputError: they are missing or damaged.
        """
        words = self._read(WORDS, list, "list of words")
        if None in words:
            raise InputError(f"{RunFolder(self.path / WORDS)}: damaged, or no list of words of a run")
        return [str(word) for word in words]

    def overrides(self) -> Overrides:
        """Returns the same as values by key; raises the same."""
        words = self.words()
        try:
            return parse_overrides(words)
        except Exception as error:  # of Hydra's, which is not imported for that
            raise InputError(f"{RunFolder(self.path / WORDS)}: damaged, or no list of words of a run") from error

    def job(self) -> int | None:
        """Returns the run's number in its sweep."""
        try:
            return self._read(JOB, dict, "description")["hydra"]["job"]["num"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{RunFolder(self.path / JOB)}: damaged, or no description of a run") from error

    def results(self) -> list[Row]:
        """Returns the rows of its results; raises an OSError or a ValueError where they cannot be read."""
        return read_results(self.path / RESULTS)

    def results_of(self, settings: Mapping[str, Any]) -> list[Row]:
        """Returns the same rows of a run that finished with these very settings.

        Args:
            settings: by dotted key; ``l2`` is a list or a single value.

        Raises:
            InputError: the results are of other settings, or cannot be read.
        """
        rows = self.results_or_none()
        if not rows:
            raise InputError(f"{RunFolder(self.path / RESULTS)}: damaged, or no results of a run")
        now = {key: number(str(shown(value))) for key, value in settings.items()}
        before = {key: value for key, value in rows[0].items() if key not in COLUMNS}
        l2 = settings["l2"]
        check_same(
            before | {"l2": l2 if l2 == "auto" else [row.get("l2") for row in rows]},
            now | {"l2": list(l2) if isinstance(l2, list) else [l2] if l2 != "auto" else l2},
            f"{self} holds a run that finished",
        )
        return rows

    def results_or_none(self) -> list[Row]:
        """Returns the same rows; none where they are missing or cannot be read."""
        try:
            rows = self.results()
        except (OSError, ValueError, csv.Error):
            return []
        marks = {row.get("selected") for row in rows} - {None}
        whole = all(isinstance(row.get("val_accuracy"), float) for row in rows) and (not marks or "true" in marks)
        return rows if whole else []

    def _read(self, name: Path, kind: type, what: str) -> Any:
        path = RunFolder(self.path / name)
        try:
            found = yaml.safe_load(path.path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{path}: missing; accepted is the folder of a run that was started") from error
        except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: damaged, or no {what} of a run") from error
        if not isinstance(found, kind):
            raise InputError(f"{path}: damaged, or no {what} of a run")
        return found


def latest_first(paths: Iterable[Path]) -> list[Path]:
    """Returns files by the time of their last change; those that are gone by now last."""

    def changed(path: Path) -> float:
        with suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    return sorted(paths, key=changed, reverse=True)


def latest_run(outputs: Path) -> RunFolder:
    """Returns the unfinished run below ``outputs`` that saved its state last and is not under way."""
    for path in latest_first(outputs.glob(f"**/{LAST}")):
        run = RunFolder(path.parents[1].resolve())
        if run.has_words and not run.has_results:
            try:
                run.overrides()
            except InputError as error:
                log.warning("%s; passed over", error)
                continue
            with suppress(OSError), locked(run.path / LOCK) as free:  # one that cannot be written cannot go on
                if free:
                    return run
    raise InputError(f"resume=latest: no unfinished run with a checkpoint below {outputs}/")
