"""What surrounds Hydra on the command line: which words are accepted, names for runs, and errors of one line."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.errors import GradientError, InputError, Interrupted, nearest

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r"}
OPTIONS |= {"--multirun", "-m", "--shell-completion", "-sc", "--info", "-i"}
HYDRA_KEYS = {"hydra.run.dir", "hydra.sweep.dir", "hydra/launcher", "hydra.launcher.n_jobs", "hydra.verbose"}

# A thread that has nothing to do sleeps. If it spins, as is OpenMP's default, a neighbour that takes one core makes
# every small matrix product wait for the spinning thread's whole time slice. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def folder_name(name: str) -> str:
    """Returns ``name`` as the name of one folder: no separators, at most 120 characters."""
    name = re.sub(r"[^\w.,=+\-\[\]]", "_", name).lstrip(".")
    return name if len(name) <= 120 else f"{name[:110]}_{hashlib.sha256(name.encode()).hexdigest()[:9]}"


def register_resolvers() -> None:
    """Registers the names that conf/ uses: ``${unique:}``, six characters, and ``${folder_name:...}``."""
    OmegaConf.register_new_resolver("unique", lambda: uuid4().hex[:6], use_cache=True, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def check_arguments(arguments: list[str]) -> None:
    """Checks the words of the command line, before Hydra acts on any.

    What Hydra builds comes from conf/ alone: no other configuration is read, no key added, no class named.

    Raises:
        InputError: a word is not accepted.
    """
    for word in arguments:
        key, _, value = word.partition("=")
        if word.startswith("-"):
            if key not in OPTIONS:
                raise InputError(f"{key}: not an option here; accepted are {', '.join(sorted(OPTIONS))}")
        elif "_target_" in word:
            raise InputError(f"{word}: classes are not set on the command line; choose an option of a group in conf/")
        elif word[0] in "+~" or "@" in key:
            raise InputError(f"{word}: keys can be set, not added or removed; see --cfg job for those there are")
        elif re.match(r"hydra\b", key) and key not in HYDRA_KEYS:
            raise InputError(f"{word}: of Hydra's own settings, accepted are {', '.join(sorted(HYDRA_KEYS))}")
        elif key in ("hydra.run.dir", "hydra.sweep.dir"):
            check_folder(key, value)


def check_folder(key: str, value: str) -> None:
    """Raises an InputError unless ``value`` is a folder below outputs/ in the current folder."""
    outputs = Path("outputs").resolve()
    if "$" in value or outputs not in Path(value).resolve().parents:
        raise InputError(f"{key}={value}: accepted is a folder below outputs/, like outputs/my_run")


def resumed(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Takes ``resume=`` out of the words; returns the run's folder to resume and the words that are left.

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
        return None, [*rest, f"hydra.sweep.dir={latest_sweep(rest)}"]
    if rest:
        raise InputError(f"{rest[0]}: resume goes on with the run's own settings; accepted is resume= alone")
    if value == "latest":
        return latest_run(), []
    check_folder("resume", value)
    for part in (".hydra/config.yaml", "checkpoints/last.ckpt"):
        if not (Path(value) / part).is_file():
            raise InputError(
                f"resume={value}: {part} is missing there; accepted is the folder of a run that was stopped"
            )
    return Path(value).resolve(), []


def latest_run() -> Path:
    """Returns the folder of the unfinished run that saved its state last."""
    saved = sorted(Path("outputs").glob("**/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    for path in reversed(saved):
        run = path.parents[1]
        if not (run / "results.csv").exists() and (run / ".hydra" / "config.yaml").is_file():
            return run.resolve()
    raise InputError("resume=latest: no unfinished run with a checkpoint below outputs/")


def latest_sweep(arguments: list[str]) -> Path:
    """Returns the folder of the latest sweep that was started with these words."""
    words = [word for word in arguments if not word.startswith(("-", "hydra"))]
    started = sorted(Path("outputs").glob("**/multirun.yaml"), key=lambda path: path.stat().st_mtime)
    for path in reversed(started):
        if list(OmegaConf.load(path).hydra.overrides.task) == words:
            return path.parent
    raise InputError(f"resume=true: no sweep below outputs/ was started with {' '.join(words)}")


failures: list[str] = []  # of the runs in this process, a line each


@contextmanager
def command_line() -> Iterator[Path | None]:
    """Checks the words; lends out the folder of the run to resume, if any; turns errors into a line and an exit code.

    The exit code is 1, or 128 + the number of the signal that stopped the run.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra leaves the errors to us
    try:
        check_arguments(sys.argv[1:])
        register_resolvers()
        run, sys.argv[1:] = resumed(sys.argv[1:])
        yield run
    except Interrupted as stop:
        sys.exit(128 + stop.number)
    except KeyboardInterrupt:
        print("Stopped before training began", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if (line := one_line(error)) is None:
            raise
        failures.append(line)
        print(f"error: {line}", file=sys.stderr)
    if failures:
        sys.exit(1)


def one_line(error: BaseException) -> str | None:
    """Returns what the user has to know of ``error`` in one line; None if it is none of the user's making."""
    if isinstance(error, InstantiationException):
        key = str(error).rpartition("full_key: ")[2]
        cause = error.__cause__ or error
        return str(cause) if isinstance(cause, InputError) else f"{key}: {first_line(cause)}"
    if isinstance(error, InputError | GradientError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read: {first_line(error)}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return unknown_key(str(error)) or unknown_option(str(error)) or first_line(error)
    return None


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def unknown_key(message: str) -> str | None:
    """Returns the line for Hydra's message about a key that is not there."""
    if not (found := re.match(r"Could not override '([^']+)'", message)):
        return None
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        keys = list(dotted_keys(compose("config")))
    key = found[1]
    short = {name.rpartition(".")[2]: name for name in reversed(keys)}  # the name alone, wherever it stands
    close = nearest(key, keys) or nearest(key.rpartition(".")[2], short)
    return f"{key}: no such key{close or '; --cfg job shows those there are'}"


def dotted_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        yield prefix + key
        if isinstance(child := node._get_node(key), DictConfig):
            yield from dotted_keys(child, f"{prefix}{key}.")


def unknown_option(message: str) -> str | None:
    """Returns the line for Hydra's message about a group's option that is not there."""
    if not (found := re.search(r"Could not find '([^']+)/([^'/]+)'", message)):
        return None
    options = re.findall(r"^\t(\S+)$", message, re.MULTILINE)
    return f"{found[1]}={found[2]}: accepted are {', '.join(options)}{nearest(found[2], options)}"
