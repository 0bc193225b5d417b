"""Runs and sweeps as folders: how one ends, what is left of it, and where it goes on."""

import logging
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from src.command_line import CONF, failures, one_line
from src.errors import InputError, Interrupted

log = logging.getLogger(__name__)

FAILED = "failed.txt"
RESULTS = "results.csv"
LAST = Path("checkpoints") / "last.ckpt"


@contextmanager
def one_run(folder: Path, of_sweep: bool = False, resuming: bool = False) -> Iterator[Path]:
    """Lends out a run's folder; tells of an error in one line and remembers it, so that a sweep goes on.

    A run of a sweep that has finished is left alone, one that was stopped goes on; otherwise a run wants a folder of
    its own. Unusable input leaves no folder behind, except in a sweep, which keeps the reason in ``failed.txt``.
    """
    try:
        if (folder / RESULTS).exists() or ((folder / LAST).exists() and not (of_sweep or resuming)):
            if of_sweep:
                log.info("%s has finished already", shown(folder))
                return
            raise InputError(f"{shown(folder)}: holds a run already; resume= goes on with one that was stopped")
        (folder / FAILED).unlink(missing_ok=True)
        yield folder
    except Interrupted as stop:
        tell_stopped(stop, folder, of_sweep)
        raise
    except Exception as error:
        line = one_line(error) or traceback.format_exc().strip()
        log.error("error: %s%s", f"{folder.name}: " if of_sweep else "", line)
        failures.append(line)
        leave(folder, error, line, of_sweep)


def leave(folder: Path, error: Exception, line: str, of_sweep: bool) -> None:
    """Removes the folder of a run that never started for unusable input; else notes in it why the run failed."""
    started = {path.name for path in folder.iterdir()} - {".hydra", "train.log"}
    if isinstance(error.__cause__ or error, InputError) and not (started or of_sweep):
        logging.shutdown()
        shutil.rmtree(folder)
    elif not (folder / RESULTS).exists():
        (folder / FAILED).write_text(line + "\n")


def tell_stopped(stop: Interrupted, folder: Path, of_sweep: bool) -> None:
    """Says where the run was stopped, and the command that goes on."""
    name = signal.Signals(stop.number).name
    print(f"\nStopped by {name} after {stop.step} updates; all is saved. Go on with:", file=sys.stderr)
    if not of_sweep:
        print(f"  python train.py resume={shlex.quote(shown(folder))}", file=sys.stderr)
        return
    words = OmegaConf.load(folder.parent / "multirun.yaml").hydra.overrides.task
    print(f"  python train.py -m {shlex.join([*words, 'resume=true'])}", file=sys.stderr)
    print("Runs of the sweep that have not finished:", file=sys.stderr)
    for overrides in unfinished(folder.parent):
        print(f"  {' '.join(overrides)}", file=sys.stderr)


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


def stored_config(folder: Path) -> DictConfig:
    """Returns the configuration that the run in ``folder`` was started with, and logs to that folder.

    Only the run's own settings are taken from there; how logging is done always comes from conf/.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.utils import configure_log

    with initialize_config_dir(str(CONF), version_base="1.3"):
        surroundings = compose("config", return_hydra_config=True)
    surroundings.hydra.runtime.output_dir = str(folder.resolve())
    HydraConfig.instance().set_config(surroundings)
    configure_log(surroundings.hydra.job_logging)
    return OmegaConf.load(folder / ".hydra" / "config.yaml")


class SweepEnd(Callback):
    """Sums a sweep up when all its runs have ended; the exit code is 1 if any failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        failed = sorted(Path(config.hydra.sweep.dir).glob(f"*/{FAILED}"))
        for file in failed:
            print(f"failed: {file.parent.name}: {file.read_text().strip().splitlines()[-1]}", file=sys.stderr)
        failures.extend(file.parent.name for file in failed)
