"""Runs and sweeps as folders: how one ends, what is left of it, and where it goes on."""

import fcntl
import hashlib
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from handgrad.cli.messages import one_line
from handgrad.cli.settings import CONF
from handgrad.errors import InputError
from handgrad.runs.signals import Interrupted, is_first_process

log = logging.getLogger(__name__)

FAILED = "failed.txt"
RESULTS = "results.csv"
LAST = Path("checkpoints") / "last.ckpt"
CONFIG = Path(".hydra") / "config.yaml"

sweeping: list[Path] = []  # the folder of the sweep under way, if any


def folder_name(name: str) -> str:
    """Returns ``name`` as the name of one folder: no separators, at most 120 characters."""
    name = re.sub(r"[^\w.,=+\-\[\]]", "_", name).lstrip(".")
    return name if len(name) <= 120 else f"{name[:110]}_{hashlib.sha256(name.encode()).hexdigest()[:9]}"


def register_resolvers() -> None:
    """Registers the names that conf/ uses: ``${unique:}``, six characters, and ``${folder_name:...}``."""
    OmegaConf.register_new_resolver("unique", lambda: uuid4().hex[:6], use_cache=True, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def is_unfinished(folder: Path) -> bool:
    """Tells whether the run in ``folder`` is to be trained; one that has finished is left alone."""
    finished = (folder / RESULTS).exists()
    if finished:
        log.info("%s has finished already", shown(folder))
    return not finished


def lock(folder: Path) -> int | None:
    """Takes possession of a run's folder for as long as the process lives; returns None if another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks
        pass
    return descriptor


failures: list[str] = []  # of the runs in this process, a line each


@contextmanager
def one_run(folder: Path, of_sweep: bool = False) -> Iterator[None]:
    """Tells of a run's error in one line and remembers it, so that a sweep goes on.

    Unusable input leaves no folder behind, except in a sweep, which keeps the reason in ``failed.txt``.

    Of a distributed run only the first process speaks, and tells an error of the user's making: it meets them all.

    Raises:
        InputError: another process trains in this folder.
    """
    possession = None
    if not is_first_process():
        logging.getLogger().setLevel(logging.ERROR)
    elif (possession := lock(folder)) is None:
        raise InputError(f"{shown(folder)}: a run is under way there")
    (folder / FAILED).unlink(missing_ok=True)
    try:
        yield
    except Interrupted as stop:
        if (folder / LAST).exists():
            stop.folder = folder  # also when it was evaluating, after its training
        raise
    except Exception as error:
        line = one_line(error)
        told = line or traceback.format_exc().strip()
        failures.append(told)
        if line and not is_first_process():
            return
        log.error("error: %s%s", f"{folder.name}: " if of_sweep else "", told)
        started = {path.name for path in folder.iterdir()} - {".hydra", "train.log"}
        if line and not started and not of_sweep:
            logging.shutdown()
            shutil.rmtree(folder)
        elif not (folder / RESULTS).exists():
            (folder / FAILED).write_text(told + "\n")
    finally:
        if possession is not None:
            os.close(possession)


def tell_stopped(stop: Interrupted) -> None:
    """Says where a run or a sweep was stopped, and the command that goes on."""
    name = signal.Signals(stop.number).name
    if sweeping:
        given = OmegaConf.load(sweeping[-1] / "multirun.yaml").hydra.overrides
        words = [*given.task, *(word for word in given.hydra if re.match(r"hydra[/.]launcher\b", word))]
        print(f"\nStopped by {name}. Runs of the sweep that have not finished:", file=sys.stderr)
        for overrides in unfinished(sweeping[-1]):
            print(f"  {' '.join(overrides)}", file=sys.stderr)
        print(f"Go on with:\n  python train.py -m {shlex.join([*words, 'resume=true'])}", file=sys.stderr)
    elif stop.folder:
        saved = f" after {stop.step} updates; all is saved" if stop.step else ""
        print(f"\nStopped by {name}{saved}. Go on with:", file=sys.stderr)
        print(f"  python train.py resume={shlex.quote(shown(stop.folder))}", file=sys.stderr)
    else:
        print(f"\nStopped by {name} before training began", file=sys.stderr)


def shown(folder: Path) -> str:
    """Returns ``folder`` as the user would type it."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def unfinished(sweep: Path) -> list[list[str]]:
    """Returns the overrides of each run of a sweep that has no results yet."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = list(OmegaConf.load(sweep / "multirun.yaml").hydra.overrides.task)
    (runs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), max_batch_size=None)
    finished = [
        sorted(OmegaConf.load(results.parent / ".hydra" / "overrides.yaml")) for results in sweep.glob(f"*/{RESULTS}")
    ]
    return [run for run in runs if sorted(run) not in finished]


def latest_run() -> Path:
    """Returns the folder of the unfinished run that saved its state last and is not under way."""
    saved = sorted(Path("outputs").glob(f"**/{LAST}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(saved):
        run = path.parents[1]
        if not (run / RESULTS).exists() and (run / CONFIG).is_file() and (possession := lock(run)) is not None:
            os.close(possession)
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


def stored_config(folder: Path) -> DictConfig:
    """Returns the configuration that the run in ``folder`` was started with, and logs to that folder.

    Only the run's own settings are taken from there; how logging is done always comes from conf/.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.utils import configure_log

    with initialize_config_dir(str(CONF), version_base="1.3"):
        surroundings = compose("config", return_hydra_config=True)
    surroundings.hydra.runtime.output_dir = surroundings.hydra.run.dir = str(folder.resolve())
    surroundings.hydra.runtime.cwd = str(Path.cwd())  # where Lightning starts the others of a distributed run
    HydraConfig.instance().set_config(surroundings)
    configure_log(surroundings.hydra.job_logging)
    path = folder / CONFIG
    try:
        cfg = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{shown(path)}: damaged, or no configuration of a run") from error
    if not isinstance(cfg, DictConfig):
        raise InputError(f"{shown(path)}: damaged, or no configuration of a run")
    return cfg


class SweepEnd(Callback):
    """Sums a sweep up, in a table and pictures, when all its runs have ended; the exit code is 1 if any failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        sweeping.append(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        from handgrad.plots.sweep_summary import sweep_report

        folder = sweeping.pop()
        failed = sorted(folder.glob(f"*/{FAILED}"))
        failures.extend(file.parent.name for file in failed)
        try:
            print(f"\n{sweep_report(folder)}\nFiles: {shown(folder)}")
        except Exception as error:  # Hydra would make a warning of it
            failures.append(one_line(error) or traceback.format_exc().strip())
            print(f"error: {failures[-1]}", file=sys.stderr)
        for file in failed:
            print(f"failed: {file.parent.name}: {file.read_text().strip().splitlines()[-1]}", file=sys.stderr)
