"""The command line around Hydra: which words are accepted, what may be resumed, and how the program ends."""

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from handgrad.cli.configuration import CONF, register
from handgrad.cli.endings import failures, forget_sweep, refusing, tell_stopped
from handgrad.cli.messages import one_line
from handgrad.errors import InputError
from handgrad.runs.folder import LAST, WORDS, RunFolder, latest_run
from handgrad.runs.launch import check_rank, is_first_process, launched
from handgrad.runs.overrides import parsed, quoted
from handgrad.runs.signals import Interrupted, stopping
from handgrad.runs.sweep import SWEEP, latest_sweep

OPTIONS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r"}
OPTIONS |= {"--multirun", "-m", "--shell-completion", "-sc", "--info", "-i"}
GROUPS = {path.parent.name for path in CONF.glob("*/*.yaml")} | {"hydra/launcher"}
HYDRA_KEYS = {"hydra.run.dir", "hydra.sweep.dir", "hydra/launcher", "hydra.launcher.n_jobs", "hydra.verbose"}
OPTION_NAMES = re.compile(r"[A-Za-z]\w*(,[A-Za-z]\w*)*")  # one, or those of a sweep
OUTPUTS = Path("outputs")

# OpenMP's threads serve while the data is read, and then never more (see Pipeline): they are to sleep, where by default
# they would spin. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def command_line() -> Iterator[RunFolder | None]:
    """Checks the words; lends out the folder of the run to resume, if any; turns errors into a line and an exit code.

    The exit code is 1, or 128 + the number of the signal that stopped the program.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra leaves the errors to us
    logging.raiseExceptions = False  # a line that a full disk keeps out of train.log is no second error
    failures.clear()
    stopping.install()
    of_the_run = False  # whether this is one of the processes of a run, of which the first one speaks
    try:
        check_rank()
        of_the_run = True
        check_current_folder()
        words, added = added_by_lightning(sys.argv[1:])
        check_arguments(words)
        check_sweep(words)
        register()
        run, words = resumed(words)
        sys.argv[1:] = words if run else [*words, *added]  # Lightning repeats them to the processes that it starts
        yield run
    except (Interrupted, SystemExit) as stop:
        if stopping.signal is None:
            raise
        if not is_first_process():
            sys.exit(0)  # else Lightning would kill the first process, which tells and ends by itself
        stop = stop if isinstance(stop, Interrupted) else Interrupted(stopping.signal)  # Lightning's own SystemExit
        tell_stopped(stop)
        sys.exit(128 + stop.number)
    except Exception as error:
        if (line := one_line(error)) is None:
            raise
        failures.append(line)
        forget_sweep()
        if is_first_process() or not of_the_run:
            print(f"error: {line}", file=sys.stderr)
    if failures:
        sys.exit(1)


def added_by_lightning(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Splits off the words by which Lightning puts a further process of a distributed run into the first one's folder.

    Raises:
        InputError: the folder is not below outputs/.
    """
    folder, *rest = arguments[-3:] or [""]
    expected = [f"hydra.job.name=train_ddp_process_{os.environ.get('LOCAL_RANK')}", "hydra.output_subdir=null"]
    found = re.fullmatch(r'hydra\.run\.dir="([^"]+)"', folder)
    if is_first_process() or rest != expected or not found:
        return arguments, []
    check_folder("hydra.run.dir", found[1])
    return arguments[:-3], arguments[-3:]


def check_arguments(arguments: Sequence[str]) -> None:
    """Checks the words of the command line, before Hydra acts on any.

    What Hydra builds comes from conf/ alone: no other configuration is read, no key added, no class named.

    Raises:
        InputError: a word is not accepted.
    """
    for word in arguments:
        if not word:
            raise InputError("the command line has an empty word; accepted are words like l2=2.0")
        if not word.startswith("-"):
            check_override(word)
        elif (option := word.partition("=")[0]) not in OPTIONS:
            raise InputError(f"{option}: not an option here; accepted are {', '.join(sorted(OPTIONS))}")


def check_sweep(words: Sequence[str]) -> None:
    """Raises an InputError if several processes were launched for a sweep: each would run it all."""
    found = launched()
    if found and found.processes > 1 and {"-m", "--multirun"} & set(words):
        raise InputError(
            f"-m: {found.processes} processes were launched ({found.variable}); accepted for a sweep is one"
        )


def check_override(word: str) -> None:
    """Raises an InputError unless ``word`` sets a key to a value, or chooses an option of a group."""
    key, _, value = word.partition("=")
    if "_target_" in word:
        raise InputError(f"{word}: classes are not set on the command line; choose an option of a group in conf/")
    if word[0] in "+~" or "@" in key:
        raise InputError(f"{word}: keys can be set, not added or removed; see --cfg job for those there are")
    if re.match(r"hydra\b", key) and key not in HYDRA_KEYS:
        raise InputError(f"{word}: of Hydra's own settings, accepted are {', '.join(sorted(HYDRA_KEYS))}")
    if key in GROUPS and (not OPTION_NAMES.fullmatch(value) or value == "null"):
        raise InputError(f"{word}: accepted is an option of the group, by its name in conf/{key}/")
    if key in ("hydra.run.dir", "hydra.sweep.dir"):
        (read,) = parsed([word])  # as Hydra does, which knows quotes and passes over spaces around a value
        if read.is_sweep_override():
            raise InputError(f"{word}: accepted is one folder below outputs/, like outputs/my_run")
        value = str(read.value())
        check_folder(key, value)
        if key == "hydra.run.dir":
            check_free(word, value)


def check_free(word: str, value: str) -> None:
    """Raises an InputError if the folder ``value`` holds a run, or is that of a sweep or of one of its jobs."""
    run = RunFolder(Path(value).resolve())
    if run.has_checkpoint:
        raise InputError(f"{word}: holds a run already; resume={value} goes on with one that was stopped")
    for sweep in (run.path, run.path.parent):
        if (sweep / SWEEP).exists():
            raise InputError(f"{word}: {RunFolder(sweep)} holds a sweep; accepted is a folder elsewhere below outputs/")


def check_folder(key: str, value: str) -> None:
    """Raises an InputError unless ``value`` is a folder below outputs/ in the current folder."""
    if "$" in value or OUTPUTS.resolve() not in Path(value).resolve().parents:
        plain = ", without $" if "$" in value else ""
        raise InputError(f"{key}={value}: accepted is a folder below outputs/, like outputs/my_run{plain}")


def check_current_folder() -> None:
    """Raises an InputError if Hydra, which resolves paths like any value, would take the current one for another."""
    if "${" in str(Path.cwd()):
        raise InputError(f"{Path.cwd()}: the current folder; accepted is one without ${{ in its name")


class FolderCheck(Callback):
    """Looks at the folder of a run or a sweep once more before it is made: when all of its name is resolved."""

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        with refusing():
            check_folder("hydra.run.dir", config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        with refusing():
            check_folder("hydra.sweep.dir", config.hydra.sweep.dir)


def resumed(arguments: list[str]) -> tuple[RunFolder | None, list[str]]:
    """Takes ``resume=`` out of the words; returns the run to resume and the words that are left.

    ``resume=outputs/<run>`` or ``resume=latest`` stands alone: a run goes on as it began. In a sweep ``resume=true``
    stands for the folder of the latest sweep with the same words.
    """
    values = [word.partition("=")[2] for word in arguments if word.startswith("resume=")]
    rest = [word for word in arguments if not word.startswith("resume=")]
    if not values or values == ["null"]:
        return None, rest
    value = values[-1]
    if {"-m", "--multirun"} & set(rest):
        if value != "true":
            raise InputError(f"resume={value}: a sweep accepts resume=true")
        started_with = [word for word in rest if not word.startswith(("-", "hydra"))]
        sweep = str(latest_sweep(OUTPUTS, started_with))
        check_folder("hydra.sweep.dir", sweep)
        return None, [*rest, f"hydra.sweep.dir={quoted(sweep)}"]
    if rest:
        raise InputError(f"{rest[0]}: resume goes on with the run's own settings; accepted is resume= alone")
    if value == "latest":
        latest = latest_run(OUTPUTS)
        check_folder("resume", str(latest.path))
        return latest, [f"resume={latest.path}"]
    check_folder("resume", value)
    for part in (WORDS, LAST):
        if not (Path(value) / part).is_file():
            raise InputError(
                f"resume={value}: {part} is missing there; accepted is the folder of a run that was stopped"
            )
    return RunFolder(Path(value).resolve()), [f"resume={value}"]
