"""Trains linear classifiers: ``python train.py task=softmax l2=2.0``; every setting: ``--help`` and ``conf/``."""

import logging
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import src  # noqa: F401
from handgrad.cli.command_line import Stopped, check_arguments, command_line
from handgrad.cli.configuration import CONF, check, check_path, composed, identity, l2_path, resolved, settle
from handgrad.cli.endings import one_run
from handgrad.cli.streams import terminal_width
from handgrad.cli.together import begin
from handgrad.runs.folder import RESULTS, RunFolder
from handgrad.runs.launch import is_first_process
from handgrad.runs.results import selected, table

log = logging.getLogger(__name__)


def arguments(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Returns what ``fit`` is called with for a run in ``folder``."""
    from hydra.utils import instantiate  # Lightning is imported from here on: its lines reach the run's log

    if "pytorch_lightning" not in sys.modules:
        log.info("Loading torch and Lightning")
    from handgrad.fit import automatic_l2

    data, solver = instantiate(cfg.data), instantiate(cfg.optimizer, _convert_="all")
    model = partial(instantiate, cfg.task.model, num_features=data.num_features, num_classes=data.num_classes)
    if (l2 := l2_path(cfg)) is None:
        l2 = automatic_l2(data, model(l2=[1.0]), solver)
        check_path(cfg, l2)
    return dict(
        data=data,
        model=model(l2=l2),
        solver=solver,
        callbacks=[callback for callback in instantiate(cfg.callbacks).values() if callback],  # null switches one off
        folder=folder,
        logger=instantiate(cfg.logger, save_dir=folder, l2=l2) if cfg.logger else None,
        settings=identity(cfg),
        select=instantiate(cfg.select),
        threads=cfg.threads,
        **cfg.trainer,
    )


def train(cfg: DictConfig, run: RunFolder) -> float:
    """Trains what ``cfg`` describes in a run's folder, from its checkpoint on if there is one; not what has finished.

    Returns ``select.metric`` of the selected l2 on the validation set.

    Raises:
        InputError: the run finished with other settings, or what it left is damaged.
    """
    if run.has_results:
        rows = run.results_of(identity(cfg))
        log.info("%s has finished already", run)
        return selected(rows)[f"val_{cfg.select.metric}"]
    if run.has_damaged_results:
        log.warning("%s: damaged; the run is done again from where it is saved", RunFolder(run.path / RESULTS))
    given = arguments(cfg, run.path)

    from handgrad.compat import plain_children
    from handgrad.fit import fit
    from handgrad.resampling import few_shot_table
    from handgrad.selection import warn_of_edge

    with plain_children():
        result = fit(**given)
    chosen = result.selected
    if l2_path(cfg) is None:
        warn_of_edge([row["l2"] for row in result.rows], chosen["l2"])
    if is_first_process():
        print(table(result.rows, cfg.select.metric, given["select"].told, terminal_width()))
        if result.few_shots:
            print(few_shot_table(result.few_shots, cfg.select.metric, terminal_width()))
        print(f"Files: {run}")
    return chosen[f"val_{cfg.select.metric}"]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> float:
    """Returns what ``train`` does, for sweepers that optimize; NaN where the run failed."""
    context = HydraConfig.get()
    of_sweep = context.mode == RunMode.MULTIRUN
    run = RunFolder(context.runtime.output_dir)
    with one_run(run, of_sweep):
        settle(cfg)
        if is_first_process() and not (run.has_results or run.has_checkpoint):
            run.begin(resolved(cfg), context.overrides.task, context.job.num if of_sweep else None)
        check(cfg, of_sweep)
        if begin(run, cfg):
            return train(cfg, run)
    return math.nan


def resume(stopped: Stopped) -> None:
    """Goes on with a run that was stopped: its words are composed again, and pass the same checks."""
    run, words = stopped.run, [*stopped.run.words(), *stopped.words]
    check_arguments(words)
    cfg = composed(words, run.path, log=True)
    with one_run(run):
        log.info("Going on with %s", run)
        check(cfg)
        if begin(run, cfg):
            train(cfg, run)


if __name__ == "__main__":
    with command_line() as stopped:
        resume(stopped) if stopped else main()
