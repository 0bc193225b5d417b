"""Trains linear classifiers: ``python train.py task=softmax l2=2.0``; every setting: ``--help`` and ``conf/``."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import src  # noqa: F401
from handgrad.cli.command_line import command_line
from handgrad.cli.settings import CONF, check, l2_path
from handgrad.runs.folder import LAST, is_unfinished, one_run, stored_config


def train(cfg: DictConfig, folder: Path) -> None:
    """Trains what ``cfg`` describes in ``folder``; goes on from the checkpoint there, if there is one."""
    from hydra.utils import instantiate  # Lightning is imported from here on: its lines reach the run's log

    from handgrad.runs.checkpoint import WholeCheckpointIO

    l2 = l2_path(cfg)
    data = instantiate(cfg.data)
    model = instantiate(
        cfg.task.model,
        num_features=data.num_features,
        num_classes=data.num_classes,
        l2=l2,
        optimizer=instantiate(cfg.optimizer),
    )
    callbacks = [callback for callback in instantiate(cfg.callbacks).values() if callback]  # null switches one off
    logger = instantiate(cfg.logger, l2=l2) if cfg.logger else False
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=logger, plugins=[WholeCheckpointIO()])

    checkpoint = folder / LAST
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint if checkpoint.exists() else None)
    trainer.test(model, datamodule=data, verbose=False)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    of_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    folder = Path(HydraConfig.get().runtime.output_dir)
    with one_run(folder, of_sweep):
        check(cfg, of_sweep)
        if is_unfinished(folder):
            train(cfg, folder)


def resume(folder: Path) -> None:
    """Goes on with a run that was stopped, as its own configuration says."""
    cfg = stored_config(folder)
    with one_run(folder):
        check(cfg)
        if is_unfinished(folder):
            train(cfg, folder)


if __name__ == "__main__":
    with command_line() as stopped:
        resume(stopped) if stopped else main()
