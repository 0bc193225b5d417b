"""The pictures of a sweep: accuracy and norm of the weights over what was swept, and the weights themselves."""

import math
import os
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from handgrad.errors import InputError
from handgrad.files import replace_file
from handgrad.plots.result_pictures import places
from handgrad.plots.style import BLACK, BLUE, GREY, SKY, VERMILLION, axes, png, styled
from handgrad.plots.weight_tiles import NEGATIVE, POSITIVE, ZERO, weight_image
from handgrad.runs.folder import BEST
from handgrad.runs.results import Row
from handgrad.runs.sweep import FILES, SEED, Job, accuracy_on_test, is_number, norm

ROWS = 24  # of weight images; of more jobs, evenly spread ones are drawn
LETTERS = 44  # of a name
WEIGHTS = LinearSegmentedColormap.from_list("weights", [each.tolist() for each in (NEGATIVE, ZERO, POSITIVE)])
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
        named = zip(jobs, names_of(jobs, keys), strict=True)
        if weights := [found for job, name in named if (found := best_weights(job, name)) is not None]:
            pictures["weights"] = png(draw_weights(evenly(weights, ROWS)))
    for name, content in pictures.items():
        replace_file(folder / f"{name}.png", content)
    log_pictures(folder, pictures)


class Group(NamedTuple):
    """What differs in the seed alone: a place on the axis.

    Attributes:
        value: of the setting that is swept, where there is one.
        rows: of results; none where all failed.
    """

    name: str
    value: Any
    rows: list[Row]
    failed: bool = False


def grouped(jobs: Sequence[Job], keys: Sequence[str]) -> list[Group]:
    """Returns the jobs' results by what was swept besides the seed, in their order; of a path each l2 by itself."""
    others = [key for key in keys if key != SEED]
    paths = any(len(job.results) > 1 for job in jobs)
    found: dict[tuple[str, float | None], Group] = {}
    names = names_of(jobs, others) if others or SEED not in keys else ["all seeds"] * len(jobs)
    for job, name in zip(jobs, names, strict=True):
        several = len(job.results) > 1
        for row in job.results:
            l2 = row.get("l2") if several else None
            value = job.overrides.get(others[0]) if len(others) == 1 else None if others else l2
            found.setdefault((name, l2), Group(name, value, [])).rows.append(row)
        if not job.results and (others or not paths):  # else there is no place for it
            value = job.overrides.get(others[0]) if len(others) == 1 else None
            group = found.setdefault((name, None), Group(name, value, []))
            found[name, None] = group._replace(failed=True)
    return list(found.values())


def metric_of(groups: Sequence[Group]) -> str:
    """Returns what l2 is selected by, on the validation set."""
    return f"val_{next((row.get('select.metric') for group in groups for row in group.rows), None) or 'loss'}"


def best_of(groups: Sequence[Group]) -> int | None:
    """Returns the place of the best mean of what l2 is selected by; None without results."""
    metric = metric_of(groups)
    means = {
        place: statistics.fmean(values)
        for place, group in enumerate(groups)
        if (values := [row[metric] for row in group.rows if is_number(row.get(metric))])
    }
    return (min if metric == "val_loss" else max)(means, key=lambda place: means[place]) if means else None


@styled
def draw_sweep(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """Draws validation accuracy and ‖w‖ of what was swept, over seeds as mean and standard deviation with points.

    If one number is swept they stand over its values, else beside the jobs' names, in their order from top to bottom. A
    star marks the best by the validation set; jobs that failed are crosses on the axis.
    """
    groups = grouped(jobs, keys)
    names = list(dict.fromkeys(group.name for group in groups))
    named = not all(is_number(group.value) for group in groups)
    size = (size_for(names, 7.4), 1.8 + 0.36 * len(names)) if named else (max(7.0, 0.45 * len(groups) + 2), 6.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True) if named else figure.subplots(2, 1, sharex=True)
    if named:
        name_rows(panels[0], names)
        place = np.array([names.index(group.name) for group in groups], dtype=float)
    else:
        key = next((key for key in keys if key != SEED), "l2")
        place = lay_out(panels[1], [group.value for group in groups], key)
        for line in panels[1].lines:  # which sets l2 = 0 apart
            panels[0].axvline(line.get_xdata()[0], color=GREY, linestyle=":", linewidth=1)
    measures = (
        (panels[0], "Validation accuracy", BLUE, "o", lambda row: row["val_accuracy"]),
        (panels[1], "‖w‖", VERMILLION, "s", lambda row: norm(row) or np.nan),
    )
    best = best_of(groups)
    for ax, label, colour, mark, measure in measures:
        drawn = [[measure(row) for row in group.rows] for group in groups]
        apart = [ax.get_xscale() == "log" and not group.value for group in groups]  # no line leads there
        draw_groups(Turned(ax, named), place, drawn, apart, colour, mark)
        (ax.set_xlabel if named else ax.set_ylabel)(label)
        if best is not None and ax is panels[0]:
            told = f"best {metric_of(groups).replace('_', ' ')}: {best_name(groups[best], keys)}"
            star = {"color": BLACK, "markersize": 15, "zorder": 5, "label": told}
            Turned(ax, named).plot([place[best]], [np.mean(drawn[best])], "*", **star)
        if failed := [x for x, group in zip(place, groups, strict=True) if group.failed]:
            on_axis = ax.get_yaxis_transform() if named else ax.get_xaxis_transform()
            cross = {"color": GREY, "markersize": 10, "transform": on_axis, "label": "failed"}
            Turned(ax, named).plot(failed, [0.03] * len(failed), "x", **cross)
        if named:
            ax.locator_params(axis="x", nbins=4)
    if (handles := panels[0].get_legend_handles_labels())[1] and named:
        figure.legend(*handles, loc="outside upper right", ncols=3)
    elif handles[1]:
        panels[0].legend(loc="best")
    return figure


class Turned(NamedTuple):
    """A panel whose places run from left to right or, where they have names, from top to bottom."""

    ax: Axes
    named: bool

    def plot(self, place: Sequence[float], values: Sequence[float], *style: Any, **styles: Any) -> None:
        self.ax.plot(*((values, place) if self.named else (place, values)), *style, **styles)

    def bars(self, place: Sequence[float], values: Sequence[float], sizes: Sequence[float], **styles: Any) -> None:
        if self.named:
            self.ax.errorbar(values, place, xerr=sizes, fmt="none", **styles)
        else:
            self.ax.errorbar(place, values, yerr=sizes, fmt="none", **styles)


def best_name(group: Group, keys: Sequence[str]) -> str:
    """Returns the name of a group; where l2 is along the axis, that."""
    name = f"l2={group.value:g}" if [*keys] == [SEED] and is_number(group.value) else group.name
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"


def draw_groups(
    panel: Turned,
    place: np.ndarray,
    drawn: Sequence[Sequence[float]],
    apart: Sequence[bool],
    colour: str,
    mark: str,
) -> None:
    """Draws the mean of each group, where it has several values these and their standard deviation too."""
    order = [i for i in np.argsort(place, kind="stable") if drawn[i]]
    x, y = [float(place[i]) for i in order], [float(np.mean(drawn[i])) for i in order]
    panel.plot(x, y, linestyle="", marker=mark, color=colour, markersize=8)
    if len(set(x)) == len(x) and not panel.named:
        joined = [n for n, i in enumerate(order) if not apart[i]]
        panel.plot([x[n] for n in joined], [y[n] for n in joined], color=colour)
    several = [i for i in order if len(drawn[i]) > 1]
    for i in several:
        panel.plot([place[i]] * len(drawn[i]), drawn[i], "o", color=GREY, markersize=4, alpha=0.6, zorder=3)
    if several:
        means, deviations = ([float(f(drawn[i])) for i in several] for f in (np.mean, partial(np.std, ddof=1)))
        label = f"mean ± s.d. of {len(drawn[several[0]])} seeds" if len({len(drawn[i]) for i in several}) == 1 else None
        at = [place[i] for i in several]
        panel.bars(at, means, deviations, color=colour, capsize=5, label=label or "mean ± s.d. over seeds")


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


def lay_out(ax: Axes, values: Sequence[float], key: str) -> np.ndarray:
    """Sets up the horizontal axis of a swept number; returns the place of each value.

    That of l2 is logarithmic, 0 stands apart.
    """
    ax.set_xlabel(key)
    sizes = [abs(value) for value in values if value]
    if key == "l2" and len(set(sizes)) > 1 and min(values) >= 0:
        ax.set_xscale("log")
        return places(ax, values)
    if sizes and max(sizes) / min(sizes) >= WIDE:
        ax.set_xscale("symlog", linthresh=min(sizes), linscale=0.8)
    ticks = evenly(sorted(set(values)), 10)
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.set_xticks([], minor=True)
    return np.array(values, dtype=float)


def evenly(items: list, count: int) -> list:
    """Returns at most ``count`` of ``items``, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


class Weights(NamedTuple):
    """Of a job: ``weight (L, K, S*S)``, and what each tile is called; None: nothing."""

    name: str
    weight: Tensor
    tiles: list[str] | None


def best_weights(job: Job, name: str) -> Weights | None:
    """Returns a job's best weights; None when there are none to draw."""
    if not job.results:
        return None
    from handgrad.runs.checkpoint import WholeCheckpointIO

    try:
        checkpoint = WholeCheckpointIO().load_checkpoint(job.folder / BEST, "cpu")
        weight = checkpoint["state_dict"]["weight"]
    except (InputError, OSError, KeyError):
        return None
    if weight.ndim != 3 or math.isqrt(weight.shape[2]) ** 2 != weight.shape[2]:
        return None
    classes = checkpoint.get("handgrad", {}).get("data", {}).get("classes") or []
    tiles = [str(each) for each in classes[-weight.shape[1] :]]  # of two classes and one output that of the second
    return Weights(name, weight.float(), tiles if len(tiles) == weight.shape[1] else None)


@styled
def draw_weights(found: Sequence[Weights]) -> Figure:
    """Draws weights of a job after the other, each with its name and its classes, all in the same colours.

    They stand below each other, narrow ones side by side.
    """
    limit = max(float(each.weight.abs().max()) for each in found) or 1.0
    images = [weight_image(each.weight, limit=limit).numpy() for each in found]
    wide, title, bar, letter = 9.0, 0.62, 0.75, 0.125  # inches: the picture; above each; at the foot; of a name
    inch = wide / max(480, *(image.shape[1] for image in images))  # per pixel
    lines: list[list[tuple[float, Weights, np.ndarray]]] = []  # of weights, each with where it begins
    end = wide
    for each, image in zip(found, images, strict=True):
        width = max(image.shape[1] * inch, letter * (len(each.name) + 2))
        if end + width > wide:
            lines.append([])
            end = 0.0
        lines[-1].append((end, each, image))
        end += width
    heights = [max(image.shape[0] for _, _, image in line) * inch for line in lines]
    figure = Figure(figsize=(wide, sum(heights) + title * len(lines) + bar))
    total = top = figure.get_figheight()
    for line, height in zip(lines, heights, strict=True):
        for left, each, image in line:
            figure.text(left / wide + 0.005, (top - 0.3) / total, each.name, fontsize=14)
            size = image.shape[1] * inch / wide, image.shape[0] * inch / total
            ax = figure.add_axes((left / wide, (top - title) / total - size[1], *size))
            ax.imshow(image, interpolation="nearest", aspect="auto")
            ax.set_axis_off()
            for i, tile in enumerate(each.tiles or ()):
                middle = (i + 0.5) * image.shape[1] / len(each.tiles or ())
                ax.text(middle, -2, tile, ha="center", va="bottom", fontsize=12, color=GREY)
        top -= title + height
    scale = ScalarMappable(Normalize(-limit, limit), WEIGHTS)
    at = figure.add_axes((0.3, 0.42 / total, 0.4, 0.14 / total))
    figure.colorbar(scale, at, orientation="horizontal", ticks=[-limit, 0, limit], format="%.2g", label="")
    figure.text(0.29, 0.42 / total, "weight", ha="right", fontsize=13)
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
