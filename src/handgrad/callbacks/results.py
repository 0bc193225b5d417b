"""Writes the run's results."""

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from handgrad.errors import InputError
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.runs.checkpoint import replace_file

MEASURES = [f"{split}_{name}" for name in ("loss", "accuracy") for split in ("train", "val", "test")]
MEASURES += ["weight_norm_squared"]
COLUMNS = ["task", "split", "l2", "epoch", "steps", "best_step", *MEASURES, "seconds", *(f"last_{m}" for m in MEASURES)]


class Results(pl.Callback):
    """Writes ``results.csv``, one row per l2 value, after the test; prints a table; fills TensorBoard's HParams.

    Args:
        folder: the run's folder.
        hparams: what is set for the whole run, by name; ``task`` and ``split`` are among it.
    """

    def __init__(self, folder: str | Path, hparams: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.hparams = dict(hparams)
        self.seconds = 0.0  # trained so far, before a resume too

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.started = time.monotonic() - self.seconds

    def on_train_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.seconds = time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": time.monotonic() - self.started, "hparams": self.hparams}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises an InputError if the stopped run had other settings."""
        for name, before in state_dict["hparams"].items():
            if before != self.hparams.get(name):
                raise InputError(f"{name}={self.hparams.get(name)}: the run was started with {name}={before}")
        self.seconds = state_dict["seconds"]

    def on_test_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if not trainer.is_global_zero:
            return
        rows = self.rows(pl_module, trainer.datamodule.batches)
        if trainer.logger:
            hparams = [{**self.hparams, "l2": row["l2"]} for row in rows]
            metrics = [{f"final/{m}": row[m] for m in MEASURES if m in row} for row in rows]
            trainer.logger.log_results(hparams, metrics)
            trainer.logger.save()
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        replace_file(self.folder / "results.csv", text.getvalue().encode())
        print(table(rows), f"\nFiles: {self.folder}")

    def rows(self, model: LinearClassifier, batches: int) -> list[dict[str, Any]]:
        final = {name: values.tolist() for name, values in model.final.items()}
        return [
            {
                "task": self.hparams["task"],
                "split": self.hparams["split"],
                "l2": l2,
                "epoch": -(-steps // batches),
                "steps": steps,
                "best_step": best_step,
                "seconds": self.seconds,
                **{name: values[path] for name, values in final.items()},
            }
            for path, (l2, steps, best_step) in enumerate(
                zip(model.hparams.l2, model.steps.tolist(), model.best_step.tolist(), strict=True)
            )
        ]


def table(rows: list[dict[str, Any]]) -> str:
    """Returns ``rows`` of results as aligned text, for people: the best weights' figures."""
    columns = {"l2": "l2", "steps": "steps", "best_step": "best at"}
    columns |= {m: m.replace("_", " ") for m in MEASURES[:-1] if m in rows[0]}
    cells = [[*columns.values(), "‖w‖"]]
    for row in rows:
        numbers = [f"{row[name]:.4f}" for name in columns if name in MEASURES]
        norm = f"{row['weight_norm_squared'] ** 0.5:.4f}"
        cells.append([f"{row['l2']:g}", str(row["steps"]), str(row["best_step"]), *numbers, norm])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
