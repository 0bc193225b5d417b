"""The pictures of a sweep: accuracy and norm of the weights over what was swept, and the weights themselves."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handgrad.errors import InputError
from handgrad.files import replace_file
from handgrad.plots.style import BLUE, GREY, SKY, VERMILLION, axes, png, styled
from handgrad.runs.folder import BEST
from handgrad.runs.sweep import FILES, Job, accuracy_on_test, is_number, norm

ROWS = 24  # of weight images; of more jobs, evenly spread ones are drawn
LETTERS = 44  # of a name
WIDE = 20  # a ratio of the largest to the smallest value from which on the axis is logarithmic


def write_pictures(folder: Path, jobs: Sequence[Job], keys: Sequence[str]) -> None:
    """Writes ``sweep.png``, ``files.png`` and ``weights.png``, also for TensorBoard, as far as there is what to draw.

    ``files.png`` is of a sweep over files of features.
    """
    pictures = {}
    if any(job.results for job in jobs):
        pictures["sweep"] = png(draw_sweep(jobs, keys))
        if FILES in keys:
            pictures["files"] = png(draw_files(jobs, keys))
        images = [(job.name(keys), image) for job in jobs if (image := best_weights(job)) is not None]
        if images:
            pictures["weights"] = png(draw_weights(evenly(images, ROWS)))
    for name, content in pictures.items():
        replace_file(folder / f"{name}.png", content)
    log_pictures(folder, pictures)


@styled
def draw_sweep(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """Draws validation accuracy and ‖w‖ of every job against the swept value; failed jobs are crosses on the axis."""
    figure = Figure(figsize=(max(7.0, 0.45 * len(jobs) + 2), 6.0), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    place = lay_out(panels[1], jobs, keys)
    measures = (
        (panels[0], "Validation accuracy", BLUE, "o", lambda row: row["val_accuracy"]),
        (panels[1], "‖w‖", VERMILLION, "s", lambda row: norm(row) or np.nan),
    )
    for ax, label, colour, mark, measure in measures:
        points = [(x, measure(row)) for x, job in zip(place, jobs, strict=True) for row in job.results]
        line = "-" if len(points) == sum(bool(job.results) for job in jobs) and isinstance(place, np.ndarray) else ""
        ax.plot(*zip(*sorted(points), strict=True), linestyle=line, marker=mark, color=colour, markersize=8)
        ax.set_ylabel(label)
        failed = [x for x, job in zip(place, jobs, strict=True) if not job.results]
        ax.plot(
            failed,
            [0.03] * len(failed),
            "x",
            color=GREY,
            markersize=10,
            transform=ax.get_xaxis_transform(),
            label="failed",
        )
        if failed:
            ax.legend(loc="best")
    return figure


@styled
def draw_files(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """Draws for each job, in their order from top to bottom, the accuracy of its selected l2."""
    figure, ax = axes("Accuracy of the selected l2", "", (8.0, 1.6 + 0.36 * len(jobs)))
    rows = [(place, row) for place, job in enumerate(jobs) for row in job.selected]
    tested = any(accuracy_on_test(row) is not None for _, row in rows)
    sets = [("validation", lambda row: row["val_accuracy"], SKY, "o")]
    sets += [("test", accuracy_on_test, BLUE, "D")] if tested else []
    for name, measure, colour, mark in sets:
        points = [(measure(row), place) for place, row in rows if measure(row) is not None]
        ax.plot(*zip(*points, strict=True), linestyle="", marker=mark, color=colour, markersize=9, label=name)
    failed = [place for place, job in enumerate(jobs) if not job.results]
    if failed:
        at = [0.02] * len(failed)
        ax.plot(at, failed, "x", color=GREY, markersize=10, transform=ax.get_yaxis_transform(), label="failed")
    ax.set_yticks(range(len(jobs)), names_of(jobs, keys))
    ax.set_ylim(len(jobs) - 0.5, -0.5)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def names_of(jobs: Sequence[Job], keys: Sequence[str]) -> list[str]:
    """Returns what sets the jobs apart: where it is files of one folder alone, their names; as far as it fits."""
    names = [job.name(keys) for job in jobs]
    if len(keys) == 1:
        found = [job.overrides.get(FILES) for job in jobs]
        paths = [", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in found]
        alike = len({Path(path).parent for path in paths}) == 1
        names = [Path(path).name if alike else path for path in paths]
    return [name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}" for name in names]


def lay_out(ax: Axes, jobs: Sequence[Job], keys: Sequence[str]) -> np.ndarray | range:
    """Sets up the horizontal axis; returns each job's place, as an array when they are numbers on a scale."""
    values = [job.overrides.get(keys[0]) for job in jobs] if len(keys) == 1 else []
    if not values or not all(is_number(value) for value in values):
        place = range(len(jobs))
        ax.set_xticks(place, [job.name(keys) for job in jobs], rotation=35, ha="right", rotation_mode="anchor")
        return place
    sizes = [abs(value) for value in values if value]
    if sizes and max(sizes) / min(sizes) >= WIDE:
        ax.set_xscale("symlog", linthresh=min(sizes), linscale=0.8)
    ticks = evenly(sorted(set(values)), 10)
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(keys[0])
    return np.array(values, dtype=float)


def evenly(items: list, count: int) -> list:
    """Returns at most ``count`` of ``items``, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def best_weights(job: Job) -> np.ndarray | None:
    """Returns the picture (height, width, 3) of a job's best weights; None when there are none to draw."""
    if not job.results:
        return None
    from handgrad.plots.weight_tiles import weight_image
    from handgrad.runs.checkpoint import WholeCheckpointIO

    try:
        checkpoint = WholeCheckpointIO().load_checkpoint(job.folder / BEST, "cpu")
        weight = checkpoint["state_dict"]["weight"]
    except (InputError, OSError, KeyError):
        return None
    if weight.ndim != 3 or math.isqrt(weight.shape[2]) ** 2 != weight.shape[2]:
        return None
    return weight_image(weight.float()).numpy()


@styled
def draw_weights(images: list[tuple[str, np.ndarray]]) -> Figure:
    """Draws named pictures one below the other, all at the same scale; each has a colour scale of its own."""
    heights, width = [image.shape[0] for _, image in images], max(image.shape[1] for _, image in images)
    inch = 9.0 / max(width, 480)  # per pixel
    title = 0.34
    figure = Figure(figsize=(max(width, 480) * inch, sum(heights) * inch + title * len(images)))
    total, top = figure.get_figheight(), figure.get_figheight()
    for (name, image), height in zip(images, heights, strict=True):
        figure.text(0.005, (top - 0.8 * title) / total, name, fontsize=14)
        top -= title + height * inch
        share = image.shape[1] * inch / figure.get_figwidth()
        ax = figure.add_axes((0, top / total, share, height * inch / total))
        ax.imshow(image, interpolation="nearest", aspect="auto")
        ax.set_axis_off()
    return figure


def log_pictures(folder: Path, pictures: dict[str, bytes]) -> None:
    """Writes the pictures into an event file in the sweep's folder."""
    if not pictures:
        return
    from handgrad.loggers.tensorboard import TensorBoardPathLogger

    logger = TensorBoardPathLogger(folder, [0.0])
    for name, content in pictures.items():
        logger.log_picture(name, content)
    logger.save()
