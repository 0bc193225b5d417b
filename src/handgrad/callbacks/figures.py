"""Draws what came of a run: the choice among the l2 values, and what the chosen classifier gives."""

from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from torch import Tensor

from handgrad.choice import Choice
from handgrad.files import replace_file
from handgrad.loggers.tensorboard import TensorBoardPathLogger
from handgrad.metrics import per_class
from handgrad.runs.folder import PER_CLASS
from handgrad.runs.results import Row, csv_file


class Figures(pl.Callback):
    """Writes ``validation_curve.png`` (of a path), ``confusion.png``, ``reliability.png`` and ``per_class.csv``.

    And ``few_shots.png``, where there were draws.

    They go into the run's folder, the pictures into TensorBoard too; of several labels a sample there is the curve
    alone. ``handgrad.fit.fit`` calls it when the choice has been made, which none of Lightning's hooks is for.
    """

    def draw(
        self,
        chosen: Choice,
        l2: Sequence[float],
        classes: Sequence[int | str],
        folder: Path | None,
        logger: TensorBoardPathLogger | None,
        few_shots: Sequence[Row] = (),
    ) -> None:
        """Draws as far as there is something to draw, and somewhere to leave it."""
        if folder and (confusion := chosen.report.confusion) is not None:
            replace_file(folder / PER_CLASS, per_class_csv(confusion, chosen.report.split, classes))
        for name, content in pictures(chosen, l2, classes, few_shots).items() if folder or logger else ():
            if folder:
                replace_file(folder / f"{name}.png", content)
            if logger:
                logger.log_picture(name, content)


def pictures(
    chosen: Choice, l2: Sequence[float], classes: Sequence[int | str], few_shots: Sequence[Row] = ()
) -> dict[str, bytes]:
    """Returns the pictures of a run, by name, as PNG files."""
    from handgrad.plots import result_pictures as draw  # loads matplotlib
    from handgrad.plots.style import png

    report, figures = chosen.report, {}
    if len(l2) > 1:
        figures["validation_curve"] = draw.draw_validation_curve(l2, chosen.scores, chosen.selection, chosen.entry)
    if report.confusion is not None:
        figures["confusion"] = draw.draw_confusion(report.confusion, classes, report.split)
    if (found := report.calibration) is not None:
        figures["reliability"] = draw.draw_reliability(found, report.split)
    if few_shots:
        metric = chosen.selection.metric
        name = f"test_{metric}" if f"test_{metric}" in few_shots[0] else f"val_{metric}"
        figures["few_shots"] = draw.draw_few_shots(few_shots, name)
    return {name: png(figure, dpi=100) for name, figure in figures.items()}


def per_class_csv(confusion: Tensor, split: str, classes: Sequence[int | str]) -> bytes:
    """Returns the table of the classes as a CSV file; empty: not defined."""
    table = per_class(confusion)
    columns = {name: values.tolist() for name, values in table._asdict().items()}
    rows = [
        {"set": split, "class": name}
        | {column: "" if values[i] != values[i] else values[i] for column, values in columns.items()}
        | {"samples": int(columns["samples"][i])}
        for i, name in enumerate(classes)
    ]
    return csv_file(["set", "class", *columns], rows)
