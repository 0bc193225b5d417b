"""The command line around Hydra: which words are accepted, what may be resumed, and how the program ends."""

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from handgrad import __version__
from handgrad.cli.configuration import register, written
from handgrad.cli.endings import failures, forget_sweep, refusing, tell_stopped
from handgrad.cli.help import help_text
from handgrad.cli.messages import one_line
from handgrad.cli.names import (
    CALLBACKS,
    GROUPS,
    LAUNCHER,
    Options,
    bare,
    check_key,
    check_launcher,
    check_launcher_setting,
    check_option,
    chosen,
    several,
)
from handgrad.cli.settings import SETTINGS
from handgrad.cli.streams import standard_streams, terminal_width
from handgrad.cli.together import folder_of_first, part
from handgrad.errors import InputError, nearest
from handgrad.runs.folder import LAST, WORDS, RunFolder, latest_run
from handgrad.runs.launch import check_rank, endangers_the_first, is_first_process, launched
from handgrad.runs.overrides import MOST_RUNS, parsed, quoted, values_of
from handgrad.runs.requeue import requeued
from handgrad.runs.signals import Interrupted, stopping
from handgrad.runs.sweep import SWEEP, latest_sweep

OPTIONS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r"}
OPTIONS |= {"--multirun", "-m", "--shell-completion", "-sc", "--info", "-i"}
TRAINING = {"--resolve", "--package", "-p", "--run", "-r", "--multirun", "-m"}  # with any other nothing is trained
VALUES = {  # of options that take one
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    **dict.fromkeys(("--package", "-p"), ()),
}
COMMANDS = {"--multirun", "-m", "--run", "-r", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
SWEEP_OPTIONS, COMPLETION = {"--multirun", "-m"}, {"--shell-completion", "-sc"}
HYDRA_KEYS = {"hydra.run.dir", "hydra.sweep.dir", LAUNCHER, "hydra.verbose"}
OPTION_NAMES = re.compile(r"[A-Za-z]\w*(,[A-Za-z]\w*)*")  # one, or those of a sweep
OUTPUTS = Path("outputs")

DIGITS = 18  # of a whole number: so it fits 64 bits, and every file that a run writes
WHOLE = re.compile(rf"(?:^|[\[({{,:\s])[+-]?([\d_]{{{DIGITS + 1},}})(?=$|[\])}},\s])")
MOST_VALUES = 5000  # of a word: Hydra takes a second to read a thousand
DEPTH = 10  # brackets within one another

# OpenMP's threads serve while the data is read, and then never more (see Pipeline): they are to sleep, where by default
# they would spin. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What torch's C++ says of a lost connection, twenty lines with addresses in memory, we say in one; read there too.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


class Stopped(NamedTuple):
    """A run to go on with, and the words that stand beside its own: none that change a result."""

    run: RunFolder
    words: list[str]


@contextmanager
def command_line() -> Iterator[Stopped | None]:
    """Checks the words; lends out the run to resume, if any; turns errors into a line and an exit code.

    The exit code is 1, or 128 + the number of the signal that stopped the program.
    """
    printing = {word.partition("=")[0] for word in sys.argv[1:]} & OPTIONS - TRAINING
    with standard_streams(bool(printing)), reported() as run:
        yield run


@contextmanager
def reported() -> Iterator[Stopped | None]:
    """Does the same, with standard output and standard error as they are."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra leaves the errors to us
    logging.raiseExceptions = False  # a line that a full disk keeps out of train.log is no second error
    failures.clear()
    stopping.install()
    given = sys.argv[1:]
    of_the_run = False  # whether this is one of the processes of a run, of which the first one speaks
    try:
        check_rank()
        of_the_run = True
        check_current_folder()
        words = check_arguments(sys.argv[1:])
        if {"--help", "-h", "--version"} & set(words):
            print(f"handgrad {__version__}" if "--version" in words else help_text(terminal_width()))
            sys.exit(0)
        check_sweep(words)
        register()
        stopped, sys.argv[1:] = resumed(words)  # Lightning repeats them to the processes that it starts
        yield stopped
    except (Interrupted, SystemExit) as stop:
        if isinstance(stop, Interrupted):
            end_stopped(stop, given)
        if stopping.signal is not None:
            end_stopped(Interrupted(stopping.signal), given)  # Lightning's own SystemExit
        part(failures[-1] if failures else "")
        raise
    except Exception as error:
        if (line := one_line(error)) is None:
            part(f"{type(error).__name__}: {error}")
            raise
        failures.append(line)
        forget_sweep()
        if is_first_process() or not of_the_run:
            print(f"error: {line}", file=sys.stderr)
    part(failures[-1] if failures else "")
    if failures:
        sys.exit(1)


def end_stopped(stop: Interrupted, given: Sequence[str]) -> NoReturn:
    """Ends the program after a signal: the first process tells, and asks SLURM for another start where it is to.

    Args:
        given: the words of the command line.
    """
    if line := part(number=stop.number):  # the launcher's signal came because of it
        if is_first_process():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    if is_first_process():
        tell_stopped(stop)
        if told := requeued(stop.number, given):
            print(told, file=sys.stderr)
    elif endangers_the_first():
        sys.exit(0)  # it tells, and ends by itself
    sys.exit(128 + stop.number)


def check_arguments(arguments: Sequence[str]) -> list[str]:
    """Checks the words of the command line, before Hydra acts on any; returns them, options first, as Hydra wants them.

    What Hydra builds comes from conf/ alone: no other configuration is read, no key added, no class named.

    Raises:
        InputError: a word is not accepted.
    """
    options, words = split(arguments)
    check_options(options)
    if any(option in COMPLETION for option, _ in options):
        return list(arguments)  # its words are half-typed ones, which are read and never composed
    for word in words:
        check_readable(*word.partition("=")[::2])
    of_sweep = any(option in SWEEP_OPTIONS for option, _ in options)
    values = {key: values_of(word) for word in words if (key := word.partition("=")[0]) in {*GROUPS, LAUNCHER}}
    keys = [word.partition("=")[0] for word in words]
    for off in {*keys} & {*CALLBACKS}:
        if inner := [key for key in keys if key.startswith(f"{off}.")]:
            raise InputError(f"{inner[0]}: of no use with {off}; accepted is one of them")
    runs, groups = 1, chosen(values)
    for word in sorted(words, key=lambda word: word.partition("=")[0] not in values):  # options first
        runs *= check_override(word, groups, of_sweep)
    for word in words:
        if word.partition("=")[0] == "hydra.run.dir" and is_first_process():  # the others are told
            check_free(word, str(parsed([word])[0].value()), words)
    if runs > MOST_RUNS:
        raise InputError(f"-m: a sweep of {runs:,} runs; accepted are {MOST_RUNS:,} at most")
    return [*(part for option in options for part in option if part is not None), *words]


def split(arguments: Sequence[str]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Returns Hydra's options, each with its value, and the other words.

    Raises:
        InputError: a word is empty, no option, or an option without its value.
    """
    options: list[tuple[str, str | None]] = []
    words: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if not word:
            raise InputError("the command line has an empty word; accepted are words like l2=2.0")
        if not word.startswith("-"):
            words.append(word)
            continue
        option, given, value = word.partition("=")
        if option not in OPTIONS:
            raise InputError(f"{option}: not an option here; {instead_of(option)}")
        if given and option not in VALUES:
            raise InputError(f"{word}: accepted is {option} alone")
        if option in VALUES and not given:
            is_next = bool(left) and (not VALUES[option] or option in ("--cfg", "-c") or left[0] in VALUES[option])
            value = left.pop(0) if is_next else "all" if option in ("--info", "-i") else ""
        options.append((option, value if option in VALUES else None))
    return options, words


def instead_of(option: str) -> str:
    """Returns what is told of an option that is none: a setting is typed without dashes."""
    key, word = option.lstrip("-").replace("-", "_"), nearest(option, OPTIONS)
    if key in SETTINGS or key in GROUPS:
        return f"did you mean '{key}=…', without dashes?"
    return f"accepted are {', '.join(sorted(OPTIONS))}{word}"


def check_options(options: Sequence[tuple[str, str | None]]) -> None:
    """Raises an InputError if an option does not accept its value, or options do not go together."""
    for option, value in options:
        if (accepted := VALUES.get(option)) and value not in accepted:
            hint = nearest(value or "", accepted)
            raise InputError(f"{option} {value}".strip() + f": accepted is one of {', '.join(accepted)}{hint}")
        if option in ("--package", "-p") and not value:
            raise InputError(f"{option}: accepted is the name of a part of the configuration, like {option} trainer")
    given = [option for option, _ in options]
    if len(commands := [option for option in dict.fromkeys(given) if option in COMMANDS]) > 1:
        raise InputError(f"{' and '.join(commands)}: accepted is one of them")
    shows = {"--cfg", "-c", "--help", "-h"} & {*given}
    for option in given:
        if option in ("--package", "-p", "--resolve") and not shows:
            raise InputError(f"{option}: accepted with --cfg job, of which it shows a part or the resolved values")


def check_sweep(words: Sequence[str]) -> None:
    """Raises an InputError if several processes were launched for a sweep: each would run it all."""
    found = launched()
    if found and found.processes > 1 and SWEEP_OPTIONS & set(words):
        raise InputError(
            f"-m: {found.processes} processes were launched ({found.variable}); accepted for a sweep is one"
        )


def check_override(word: str, options: Options, of_sweep: bool) -> int:
    """Checks that ``word`` sets a setting, or chooses an option of a group; returns how many values it gives.

    Args:
        options: those that are chosen by the words.
        of_sweep: whether several values are a run each.

    Raises:
        InputError: it is not accepted.
    """
    key, is_set, value = word.partition("=")
    if "_target_" in word:
        raise InputError(f"{word}: classes are not set on the command line; choose an option of a group in conf/")
    if word[0] in "+~" or "@" in key:
        raise InputError(f"{word}: keys can be set, not added or removed; see --cfg job for those there are")
    of_launcher = key == LAUNCHER or key.startswith("hydra.launcher.")
    if re.match(r"hydra\b", key) and key not in HYDRA_KEYS and not of_launcher:
        raise InputError(f"{word}: of Hydra's own settings, accepted are {', '.join(sorted(HYDRA_KEYS))}")
    if not is_set:
        raise InputError(bare(word))
    if key == "resume":
        return 1  # it is none of Hydra's
    if of_launcher:
        check_launcher(value, of_sweep) if key == LAUNCHER else check_launcher_setting(word, *options[LAUNCHER])
        return 1
    (read,) = parsed([word])  # as Hydra does, which knows quotes and passes over spaces around a value
    values = values_of(word)
    if key in GROUPS and (not OPTION_NAMES.fullmatch(value) or not all(isinstance(value, str) for value in values)):
        raise InputError(f"{word}: accepted is an option of the group, by its name in conf/{key}/")
    if key in ("hydra.run.dir", "hydra.sweep.dir"):
        if read.is_sweep_override():
            raise InputError(f"{word}: accepted is one folder below outputs/, like outputs/my_run")
        check_folder(key, str(read.value()))
    elif key == "hydra.verbose" and not all(isinstance(found, bool) for found in values):
        raise InputError(f"{word}: accepted is true or false")
    elif key in GROUPS:
        check_option(key, values)
    elif key not in HYDRA_KEYS:
        check_key(key, word, values, options)
    if read.is_sweep_override() and not of_sweep:
        raise InputError(several(key, word, values))
    return len(values)


def check_readable(key: str, value: str) -> None:
    """Raises an InputError if a value is such that no parser, or no type of its numbers, would hold it."""
    if "\0" in key + value:
        raise InputError(f"{key}={value}: accepted is text without the character of number 0")
    if found := WHOLE.search(value):
        raise InputError(
            f"{key}: a whole number of {len(found[1])} digits; accepted are {DIGITS} at most, larger numbers like 1e30"
        )
    if (count := value.count(",") + 1) > MOST_VALUES:
        raise InputError(f"{key}: {count:,} values; accepted are {MOST_VALUES:,} at most")
    depth = deepest = 0
    for bracket in re.findall(r"[][(){}]", value):
        depth += 1 if bracket in "[({" else -1
        deepest = max(deepest, depth)
    if deepest > DEPTH:
        raise InputError(f"{key}: a value of {deepest} brackets within one another; accepted are {DEPTH} at most")


def check_free(word: str, value: str, words: Sequence[str]) -> None:
    """Raises an InputError if the folder ``value`` holds a run of other words, or is that of a sweep or of its jobs.

    A command that is repeated, as SLURM and torchrun do it, goes on.
    """
    run = RunFolder(Path(value).resolve())
    own = sorted(word for word in words if not word.startswith(("-", "hydra")))
    if run.has_checkpoint and not (run.has_words and sorted(run.words()) == own):
        raise InputError(
            f"{word}: holds a run already, of other words; resume={value} goes on with one that was stopped"
        )
    for sweep in (run.path, run.path.parent):
        if (sweep / SWEEP).exists():
            raise InputError(f"{word}: {RunFolder(sweep)} holds a sweep; accepted is a folder elsewhere below outputs/")


def check_folder(key: str, value: str) -> None:
    """Raises an InputError unless ``value`` is a folder below outputs/ in the current folder."""
    if "$" in value or not value.isprintable() or OUTPUTS.resolve() not in Path(value).resolve().parents:
        plain = ", without $" if "$" in value else ""
        raise InputError(f"{key}={value}: accepted is a folder below outputs/, like outputs/my_run{plain}")


def check_current_folder() -> None:
    """Raises an InputError if Hydra, which resolves paths like any value, would take the current one for another."""
    if "${" in str(Path.cwd()):
        raise InputError(f"{Path.cwd()}: the current folder; accepted is one without ${{ in its name")


class FolderCheck(Callback):
    """Looks at the folder of a run or a sweep once more before it is made: when all of its name is resolved.

    Of a distributed run it is the first process's.
    """

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        with refusing():
            check_folder("hydra.run.dir", config.hydra.run.dir)
            if (told := folder_of_first(OmegaConf.select(config, "trainer.peer_timeout"))) is not None:
                config.hydra.run.dir = told

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        with refusing():
            check_folder("hydra.sweep.dir", config.hydra.sweep.dir)


def resumed(arguments: list[str]) -> tuple[Stopped | None, list[str]]:
    """Takes ``resume=`` out of the words; returns the run to resume and the words that are left.

    Beside ``resume=outputs/<run>`` or ``resume=latest`` stands ``threads=`` alone: a run goes on as it began. In a
    sweep ``resume=true`` stands for the folder of the latest sweep with the same words.
    """
    values = [written(*values_of(word)) for word in arguments if word.startswith("resume=")]
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
    if others := [word for word in rest if not word.startswith("threads=")]:
        raise InputError(
            f"{others[0]}: resume goes on with the run's own settings; accepted beside resume= is threads= alone"
        )
    if (told := folder_of_first()) is not None:
        return Stopped(RunFolder(told), rest), [f"resume={told}", *rest]
    if value == "latest":
        latest = latest_run(OUTPUTS)
        check_folder("resume", str(latest.path))
        return Stopped(latest, rest), [f"resume={latest.path}", *rest]
    if hint := nearest(value, ["latest"]):
        raise InputError(f"resume={value}: accepted is latest, or a folder below outputs/{hint}")
    if value == "true":
        raise InputError("resume=true: accepted with -m, of a sweep; of a run it is resume=latest, or its folder")
    check_folder("resume", value)
    for name in (WORDS, LAST):
        if not (Path(value) / name).is_file():
            raise InputError(
                f"resume={value}: {name} is missing there; accepted is the folder of a run that was stopped"
            )
    return Stopped(RunFolder(Path(value).resolve()), rest), [f"resume={value}", *rest]
