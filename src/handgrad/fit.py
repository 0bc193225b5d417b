"""The library's entry: data, model, solver, callbacks and a folder, to a result. No Hydra in it."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad import __version__
from handgrad.callbacks.checkpointing import Checkpointing
from handgrad.callbacks.figures import Figures
from handgrad.choice import Choice, check_refit, check_selection, choose
from handgrad.classifier import Classifier
from handgrad.compat import was_restoring
from handgrad.data.base import LinearDataModule
from handgrad.errors import InputError, line_of
from handgrad.files import replace_file
from handgrad.functions.samples import widest
from handgrad.loggers.tensorboard import TensorBoardPathLogger
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.resampling import cross_validated, few_shot_draws
from handgrad.runs.checkpoint import WholeCheckpointIO, plain
from handgrad.runs.folder import LAST, RESULTS
from handgrad.runs.meeting import current
from handgrad.runs.results import COLUMNS, MEASURES, REFITTED, Row, as_csv, selected, shown
from handgrad.selection import VALUES, Selection, automatic_values
from handgrad.solvers.centred import CentredProblem
from handgrad.solvers.certificate import certified_weights
from handgrad.solvers.exact import Exact
from handgrad.solvers.protocol import Solver
from handgrad.training.pipeline import Pipeline
from handgrad.training.processes import is_connection_error, total
from handgrad.training.trainer import block_trainer

log = logging.getLogger(__name__)
NAMED = 5  # l2 values in a warning
BY_LOSS = Selection("loss", "best")


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        rows: a row of results per l2 value, in the order given: settings, then ``handgrad.runs.results.COLUMNS``.
        model: with its last weights; ``best_weight`` and ``best_bias`` are those with the smallest validation loss.
        chosen: the classifier of the selected l2: ``weight (K, D)`` and ``bias (K,)`` on raw features, refitted where
            that was asked for.
        few_shots: a row for each few-shot draw: ``handgrad.resampling.few_shot_draws``.
    """

    rows: list[Row]
    model: LinearClassifier
    chosen: Choice
    few_shots: list[Row]

    @property
    def selected(self) -> Row:
        """The row of the l2 that was chosen."""
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
    select: Selection | None = None,
    threads: int | str = "auto",
    peer_timeout: float = 60.0,
    **trainer: Any,
) -> Result:
    """Trains ``model`` on ``data`` by ``solver``, and evaluates its best and its last weights on every set.

    Args:
        model: goes on from the weights that it has.
        callbacks: what observes, saves and stops the training.
        folder: of the run: checkpoints go there, ``model.safetensors``, ``model.json`` and then ``results.csv`` at the
            end; from a checkpoint that is there already the run goes on. None: nothing is written.
        logger: of curves and pictures.
        settings: what the result follows from, by dotted key: columns of the results and of TensorBoard's
            hyperparameters; from a checkpoint a run goes on with the same ones only. None: what ``described`` returns.
        select: how an l2 value is chosen; None: by the smallest validation loss. The best weights of each are those
            with the smallest validation loss in any case.
        threads: processor threads, or ``"auto"``: one per core.
        peer_timeout: seconds after which a process of a distributed run that is not heard of is given up.
        trainer: arguments of Lightning's Trainer, like ``accelerator``, ``devices`` and ``precision``.

    Raises:
        InputError: something given is unusable, or training diverged.
        GradientError: (by the callback ``GradientCheck``) the derived gradient is wrong.
    """
    if data.multilabel is not model.multilabel:
        told = "several labels" if data.multilabel else "one label"
        raise InputError(
            f"model: {type(model).__name__}, of data whose samples have {told}; accepted is a model of such"
        )
    select = select or BY_LOSS
    check_refit(select, solver)
    settings = dict(described(data, model, solver, trainer, select) if settings is None else settings)
    if solver.one_at_a_time:
        data.serve_whole(len(model.l2))
        model.double()  # an optimum of a small l2 is not to be had in float32
    if folder is None and any(isinstance(callback, Checkpointing) for callback in callbacks):
        raise InputError("folder=None: with Checkpointing among the callbacks, accepted is a folder to save in")
    lightning = block_trainer(
        callbacks=list(callbacks),
        logger=logger or False,
        folder=folder,
        plugins=[WholeCheckpointIO(settings, data.about())],
        max_epochs=data.epochs,
        peer_timeout=peer_timeout,
        **trainer,
    )
    check_resampling(data, solver, lightning)
    place = None if folder is None else Path(folder)
    checkpoint = place and place / LAST
    check_float64(solver, lightning.strategy.root_device)
    if isinstance(solver, Exact) and lightning.precision == "64-true":
        solver = replace(solver, products=torch.float64)
    data.setup()  # reading may use all threads, training will not
    check_selection(select, data)
    resumed = checkpoint is not None and checkpoint.exists()
    with pipeline(solver, threads, lightning) as model.pipeline:
        with told_of_others():
            with told_of_checkpoint(checkpoint):
                lightning.fit(model, datamodule=data, ckpt_path=checkpoint if resumed else None)
            lightning.test(model, datamodule=data, verbose=False)
        if lightning.is_global_zero:
            model.final |= proven(model, data)
        folds = () if data.fold is None else cross_validated(model, data, solver, select.metric, place, resumed)
        chosen = choose(model, data, solver, select, folds, first=lightning.is_global_zero)
        draws = few_shot_draws(model, data, solver, select, place, resumed) if data.shots else []
    rows = result_rows(model, data, settings, model.pipeline.seconds, chosen)
    warn_of_unproven(rows)
    warn_of_refit(rows[chosen.entry])
    if lightning.is_global_zero:
        for figures in (callback for callback in callbacks if isinstance(callback, Figures)):
            figures.draw(chosen, model.hparams["l2"], data.classes, place, logger, draws)
        if logger:
            logger.log_end(settings, rows)
        if place:
            chosen_classifier(model, data, chosen, rows[chosen.entry]).save(place)
            replace_file(place / RESULTS, as_csv(rows))
    return Result(rows, model, chosen, draws)


@contextmanager
def told_of_checkpoint(path: Path | None) -> Iterator[None]:
    """Turns what a checkpoint makes of itself, which is whole but is not built like one of ours, into an InputError."""
    try:
        yield
    except Exception as error:
        if line_of(error) or not was_restoring(error):
            raise
        raise InputError(f"{path}: not a checkpoint of this run ({type(error).__name__} on loading)") from error


@contextmanager
def told_of_others() -> Iterator[None]:
    """Turns what torch says of a process whose connections were closed into why it was: its error, or a signal.

    A lost one ends this process, see ``handgrad.runs.peers``.

    Raises:
        InputError: another process has failed.
        Interrupted: it was told to stop.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_connection_error(error):
            raise
        for meeting in current:
            meeting.explain()
        raise


def check_resampling(data: LinearDataModule, solver: Solver, lightning: pl.Trainer) -> None:
    """Raises an InputError where folds or few-shot draws are asked for and can not be fitted."""
    for name, asked in (("folds", data.fold is not None), ("shots", bool(data.shots))):
        if asked and not solver.one_at_a_time:
            raise InputError(f"data.{name}: accepted with optimizer=exact alone; others stop by a validation set")
        if asked and lightning.world_size > 1:
            raise InputError(f"{lightning.world_size} processes: accepted with data.{name} is 1 (trainer.devices=1)")


def check_float64(solver: Solver, device: torch.device) -> None:
    """Raises an InputError where a solver proves an optimum and its device has no float64, in which it is proven."""
    if solver.one_at_a_time and widest(device) != torch.float64:
        raise InputError(f"trainer.accelerator={device.type}: has no float64; accepted with optimizer=exact is cpu")


def automatic_l2(data: LinearDataModule, model: LinearClassifier, solver: Solver) -> list[float]:
    """Returns l2 values that suit the training set: ``handgrad.selection.automatic_values``.

    Args:
        data: is set up, as ``solver`` wants it.
        model: of any l2.
    """
    if solver.one_at_a_time:
        data.serve_whole(VALUES)
    data.setup()
    assert data.train is not None
    return automatic_values(CentredProblem(model.objective(), *data.train, data.sample_weight, model.bias.shape[1]))


def described(
    data: LinearDataModule,
    model: LinearClassifier,
    solver: Solver,
    trainer: Mapping[str, Any],
    select: Selection = BY_LOSS,
) -> dict[str, Any]:
    """Returns what a result follows from, as far as the objects tell, under the names of the command line."""
    of_source = {name: value for name, value in data.about().items() if name not in LinearDataModule.about(data)}
    of_data = {name: getattr(data, name) for name in ("shuffle", "train_size")}
    return {
        "task": model.task,
        "data": type(data).__name__,
        "optimizer": repr(solver),
        **{f"data.{name}": value for name, value in (of_source | of_data).items()},
        **{f"select.{name}": value for name, value in asdict(select).items()},
        **{f"trainer.{name}": value for name, value in plain(trainer).items()},
        **{name: model.hparams[name] for name in ("l2", "penalize_bias")},
        **{name: getattr(data, name) for name in ("epochs", "batch_size", "seed")},
    }


def proven(model: LinearClassifier, data: LinearDataModule) -> dict[str, Tensor]:
    """Returns how far from the optimum the best and the last weights are at most, each (L,).

    A solver that proves it by itself is asked; of others it is found here.
    """
    if report := model.pipeline.report():
        return report | {"last_gap": report["gap"]}
    if model.criterion.residual is None:
        return {}  # no softmax or sigmoid
    assert data.train is not None
    input, target = data.train[0].to("cpu"), data.train[1].cpu()
    objective = replace(model.objective(), l2=torch.tensor(model.hparams["l2"]).double(), run=model.pipeline.run)
    sets = {"": (model.best_weight, model.best_bias), "last_": (model.weight.detach(), model.bias.detach())}
    found = {
        prefix: certified_weights(objective, weight.cpu(), bias.cpu(), input, target, data.sample_weight)
        for prefix, (weight, bias) in sets.items()
    }
    best = {
        name: torch.tensor([getattr(proof, name) for proof in found[""]])
        for name in ("objective", "gap", "gradient_norm")
    }
    return best | {"last_gap": torch.tensor([proof.gap for proof in found["last_"]])}


def warn_of_unproven(rows: Sequence[Row]) -> None:
    """Says which l2 values a solver that looks for the optimum did not prove, and what to do."""
    left = [row for row in rows if row["converged"] == "false"]
    without = [row["l2"] for row in left if row["l2"] == 0]
    if without:
        log.warning(
            "l2=0: there is no certificate without a penalty, and on separable data no optimum; its gradient's norm is "
            "%.1e; a small l2 has both",
            next(row["gradient_norm"] for row in left if row["l2"] == 0),
        )
    if values := [f"{row['l2']:g} ({row['gap']:.1e})" for row in left if row["l2"]]:
        told = ", ".join(values[:NAMED]) + (f" and {len(values) - NAMED} more" if len(values) > NAMED else "")
        log.warning(
            "not converged: the gap is above optimizer.tolerance at l2=%s; raise optimizer.max_iterations, standardize "
            "the features (data.normalize=standardize), or take a larger l2",
            told,
        )


def warn_of_refit(row: Row) -> None:
    """Says where a refit did not end at a proven optimum."""
    if row["refit_converged"] == "false" and row["l2"]:
        told = "the refit at l2=%g did not converge: its gap is %.1e; raise optimizer.max_iterations"
        log.warning(told, row["l2"], row["refit_gap"])


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
    model: LinearClassifier, data: LinearDataModule, settings: Mapping[str, Any], seconds: float, chosen: Choice
) -> list[Row]:
    """Returns the rows of ``results.csv``: settings, what became of each classifier and what it measures."""
    assert data.train is not None
    weight = len(data.train[1]) if data.sample_weight is None else data.sample_weight.sum().item()
    common: dict[str, Any] = {key: shown(value) for key, value in settings.items() if key != "l2"}
    common |= {"classes": " ".join(map(str, data.classes)), "scaling": data.scaling, "seconds": seconds}
    final = {name: list(map(measured, values.tolist())) for name, values in model.final.items()}
    counts = zip(model.hparams["l2"], model.steps.tolist(), model.best_step.tolist(), strict=True)
    rows = [
        {
            **common,
            "l2": l2,
            "C": model.inverse_penalty(l2, weight),
            "epoch": None if data.one_at_a_time else -(-steps // data.batches),
            "steps": steps,
            "best_step": best_step,
            **{name: values[path] for name, values in final.items()},
        }
        for path, (l2, steps, best_step) in enumerate(counts)
    ]
    scored = f"val_{chosen.selection.metric}"
    for entry, (row, score) in enumerate(zip(rows, chosen.scores, strict=True)):
        row |= {name: row.get(name, measured(value)) for name, value in chosen.validation[entry].items()}
        row[f"{scored}_se"] = measured(score.standard_error)
        row["selected"] = shown(entry == chosen.entry)
    rows[chosen.entry] |= {name: None if value is None else measured(value) for name, value in chosen.columns.items()}
    return [dict.fromkeys(COLUMNS) | row for row in rows]


def chosen_classifier(model: LinearClassifier, data: LinearDataModule, chosen: Choice, row: Row) -> Classifier:
    """Returns the classifier of the selected row, refitted where that was asked for, for features as they are."""
    refitted = row["refit_objective"] is not None
    dtype = torch.promote_types(chosen.weight.dtype, torch.float32)  # safetensors' readers know bfloat16, NumPy not
    names = REFITTED if refitted else MEASURES
    undone = data.normalization is not None or data.unit_rows  # by the classifier
    return Classifier(
        chosen.weight.to("cpu", dtype),
        chosen.bias.to("cpu", dtype),
        task=model.task,
        classes=list(data.classes),
        l2=row["l2"],
        C=row["refit_C" if refitted else "C"],
        gap=row["refit_gap" if refitted else "gap"],
        feature_names=None if data.feature_names is None else list(data.feature_names),
        scaling=None if undone else data.scaling,
        unit_rows=data.unit_rows,
        measures={name: row[name] for name in names if row[name] is not None and math.isfinite(row[name])},
        files=data.digests(),
        versions={"handgrad": __version__, "torch": str(torch.__version__)},
    )


def measured(value: Any) -> Any:
    """Returns a number or a truth as results have it; None for what is no number."""
    return None if math.isnan(value) else shown(value)
