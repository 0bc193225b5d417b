"""The pictures of a sweep: accuracy and norm of the weights over what was swept, and the weights themselves."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        named = zip(names_of(jobs, keys), jobs, strict=True)
        images = [(name, image) for name, job in named if (image := best_weights(job)) is not None]
        if images:
            pictures["weights"] = png(draw_weights(evenly(images, ROWS)))
    for name, content in pictures.items():
        replace_file(folder / f"{name}.png", content)
    log_pictures(folder, pictures)


@styled
def draw_sweep(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """Draws validation accuracy and ‖w‖ of every job; failed jobs are crosses on the axis.

    If one number is swept they stand over its values, else beside the jobs' names, in their order from top to bottom.
    """
    values: list[Any] = [job.overrides.get(keys[0]) for job in jobs] if len(keys) == 1 else []
    named = not values or not all(is_number(value) for value in values)
    names = names_of(jobs, keys)
    size = (size_for(names, 7.4), 1.6 + 0.36 * len(jobs)) if named else (max(7.0, 0.45 * len(jobs) + 2), 6.0)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True) if named else figure.subplots(2, 1, sharex=True)
    place = range(len(jobs)) if named else values
    measures = (
        (panels[0], "Validation accuracy", BLUE, "o", lambda row: row["val_accuracy"]),
        (panels[1], "‖w‖", VERMILLION, "s", lambda row: norm(row) or np.nan),
    )
    for ax, label, colour, mark, measure in measures:
        points = sorted((x, measure(row)) for x, job in zip(place, jobs, strict=True) for row in job.results)
        line = "-" if len(points) == sum(bool(job.results) for job in jobs) and not named else ""
        along, across = zip(*points, strict=True)
        failed = [x for x, job in zip(place, jobs, strict=True) if not job.results]
        crosses = {"color": GREY, "markersize": 10, "label": "failed"}
        if named:
            ax.plot(across, along, linestyle=line, marker=mark, color=colour, markersize=8)
            ax.plot([0.03] * len(failed), failed, "x", transform=ax.get_yaxis_transform(), **crosses)
            ax.locator_params(axis="x", nbins=4)
            ax.set_xlabel(label)
        else:
            ax.plot(along, across, linestyle=line, marker=mark, color=colour, markersize=8)
            ax.plot(failed, [0.03] * len(failed), "x", transform=ax.get_xaxis_transform(), **crosses)
            ax.set_ylabel(label)
        if failed:
            ax.legend(loc="best")
    if named:
        name_rows(panels[0], names)
    else:
        lay_out(panels[1], values, keys[0])
    return figure


@styled
def draw_files(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """Draws for each job, in their order from top to bottom, the accuracy of its selected l2."""
    names = names_of(jobs, keys)
    figure, ax = axes("Accuracy of the selected l2", "", (size_for(names, 4.5), 1.6 + 0.36 * len(jobs)))
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
    name_rows(ax, names)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def size_for(names: Sequence[str], beside: float) -> float:
    """Returns the width of a figure, in inches, with ``names`` at its left and so much beside them."""
    return max(8.0, beside + 0.12 * max(map(len, names)))


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names the places 0, 1, 2 and so on of the vertical axis, from top to bottom."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def names_of(jobs: Sequence[Job], keys: Sequence[str]) -> list[str]:
    """Returns what sets the jobs apart, as far as it fits: files without the folders that all have in common."""
    found = [job.overrides.get(FILES) for job in jobs]
    files = [[str(path) for path in (value if isinstance(value, list) else [value])] for value in found]
    try:
        common = os.path.commonpath([os.path.dirname(path) for paths in files for path in paths])
    except ValueError:  # some from the root on, some from here
        common = ""
    names = []
    for job, paths in zip(jobs, files, strict=True):
        shorter = ", ".join(os.path.relpath(path, common) if common else path for path in paths)
        known = {**job.overrides, **({FILES: shorter} if FILES in keys and job.overrides else {})}
        names.append(shorter if list(keys) == [FILES] else job._replace(overrides=known).name(keys))
    cut = [name if len(name) <= LETTERS else f"{name[: LETTERS // 2]}…{name[1 - LETTERS // 2 :]}" for name in names]
    return cut if len(set(cut)) == len(set(names)) else names


def lay_out(ax: Axes, values: Sequence[float], key: str) -> None:
    """Sets up the horizontal axis of a swept number."""
    sizes = [abs(value) for value in values if value]
    if sizes and max(sizes) / min(sizes) >= WIDE:
        ax.set_xscale("symlog", linthresh=min(sizes), linscale=0.8)
    ticks = evenly(sorted(set(values)), 10)
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(key)


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
