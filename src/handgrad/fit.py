"""The library's entry: data, model, solver, callbacks and a folder, to a result. No Hydra in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from handgrad.callbacks.checkpointing import Checkpointing
from handgrad.data.base import LinearDataModule
from handgrad.errors import InputError
from handgrad.files import replace_file
from handgrad.loggers.tensorboard import TensorBoardPathLogger
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.runs.checkpoint import WholeCheckpointIO, plain
from handgrad.runs.folder import LAST, RESULTS
from handgrad.runs.results import Row, as_csv, selected, shown
from handgrad.solvers.protocol import Solver
from handgrad.training.pipeline import Pipeline
from handgrad.training.processes import total
from handgrad.training.trainer import block_trainer


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        rows: a row of results per l2 value, in the order given: settings, then ``handgrad.runs.results.COLUMNS``.
        model: with its last weights; ``best_weight`` and ``best_bias`` are those with the smallest validation loss.
    """

    rows: list[Row]
    model: LinearClassifier

    @property
    def selected(self) -> Row:
        """The row with the smallest validation loss."""
        return selected(self.rows)


def fit(
    data: LinearDataModule,
    model: LinearClassifier,
    solver: Solver,
    callbacks: Sequence[pl.Callback] = (),
    folder: str | Path | None = None,
    *,
    logger: TensorBoardPathLogger | None = None,
    settings: Mapping[str, Any] | None = None,
    threads: int | str = "auto",
    **trainer: Any,
) -> Result:
    """Trains ``model`` on ``data`` by ``solver``, and evaluates its best and its last weights on every set.

    Args:
        model: goes on from the weights that it has.
        callbacks: what observes, saves and stops the training.
        folder: of the run: checkpoints go there, ``results.csv`` at the end; from a checkpoint that is there already
            the run goes on. None: nothing is written.
        logger: of curves and pictures.
        settings: what the result follows from, by dotted key: columns of the results and of TensorBoard's
            hyperparameters; from a checkpoint a run goes on with the same ones only. None: what ``described`` returns.
        threads: processor threads, or ``"auto"``: one per core.
        trainer: arguments of Lightning's Trainer, like ``accelerator``, ``devices`` and ``precision``.

    Raises:
        InputError: something given is unusable, or training diverged.
        GradientError: (by the callback ``GradientCheck``) the derived gradient is wrong.
    """
    settings = dict(described(data, model, solver, trainer) if settings is None else settings)
    if folder is None and any(isinstance(callback, Checkpointing) for callback in callbacks):
        raise InputError("folder=None: with Checkpointing among the callbacks, accepted is a folder to save in")
    lightning = block_trainer(
        callbacks=list(callbacks),
        logger=logger or False,
        folder=folder,
        plugins=[WholeCheckpointIO(settings, data.about())],
        max_epochs=data.epochs,
        **trainer,
    )
    checkpoint = folder and Path(folder) / LAST
    data.setup()  # reading may use all threads, training will not
    with pipeline(solver, threads, lightning) as model.pipeline:
        lightning.fit(model, datamodule=data, ckpt_path=checkpoint if checkpoint and checkpoint.exists() else None)
        lightning.test(model, datamodule=data, verbose=False)
    rows = result_rows(model, data, settings, model.pipeline.seconds)
    if lightning.is_global_zero:
        if logger:
            logger.log_end(settings, rows)
        if folder:
            replace_file(Path(folder) / RESULTS, as_csv(rows))
    return Result(rows, model)


def described(
    data: LinearDataModule, model: LinearClassifier, solver: Solver, trainer: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what a result follows from, as far as the objects tell, under the names of the command line."""
    of_source = {name: value for name, value in data.about().items() if name not in LinearDataModule.about(data)}
    of_data = {name: getattr(data, name) for name in ("shuffle", "train_size")}
    return {
        "task": model.task,
        "data": type(data).__name__,
        "optimizer": repr(solver),
        **{f"data.{name}": value for name, value in (of_source | of_data).items()},
        **{f"trainer.{name}": value for name, value in plain(trainer).items()},
        **{name: model.hparams[name] for name in ("l2", "penalize_bias")},
        **{name: getattr(data, name) for name in ("epochs", "batch_size", "seed")},
    }


def pipeline(solver: Solver, threads: int | str, lightning: pl.Trainer) -> Pipeline:
    """Returns the pipeline for what Lightning's Trainer runs on."""
    return Pipeline(
        solver,
        threads,
        local_processes=lightning.num_devices,
        total=total if lightning.world_size > 1 else None,
        side_by_side=lightning.strategy.root_device.type == "cpu" and lightning.precision != "bf16-mixed",
    )


def result_rows(
    model: LinearClassifier, data: LinearDataModule, settings: Mapping[str, Any], seconds: float
) -> list[Row]:
    """Returns the rows of ``results.csv``: settings, what became of each classifier and what it measures."""
    given = {key: shown(value) for key, value in settings.items() if key != "l2"}
    about = {"classes": " ".join(map(str, data.classes)), "scaling": data.scaling}
    final = {name: values.tolist() for name, values in model.final.items()}
    counts = zip(model.hparams["l2"], model.steps.tolist(), model.best_step.tolist(), strict=True)
    return [
        {
            **given,
            **about,
            "l2": l2,
            "epoch": -(-steps // data.batches),
            "steps": steps,
            "best_step": best_step,
            "seconds": seconds,
            **{name: values[path] for name, values in final.items()},
        }
        for path, (l2, steps, best_step) in enumerate(counts)
    ]
