"""What a Hydra multirun leaves for its user: one table, two pictures and their copies in TensorBoard."""

import csv
import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handgrad.errors import InputError
from handgrad.plots.style import BLUE, GREY, VERMILLION, png, styled
from handgrad.runs.checkpoint import replace_file
from handgrad.runs.overrides import Overrides, parse_overrides
from handgrad.runs.results import read_results

SHOWN = ("steps", "best_step", "val_loss", "val_accuracy", "test_accuracy")
ROWS = 24  # of weight images; of more jobs, evenly spread ones are drawn
WIDE = 20  # a ratio of the largest to the smallest value from which on the axis is logarithmic


class Job(NamedTuple):
    """One run of a sweep; ``results`` is empty when it failed."""

    folder: Path
    overrides: Overrides
    results: list[dict[str, Any]]

    @property
    def status(self) -> str:
        return "ok" if self.results else "failed"

    def name(self, keys: list[str]) -> str:
        """Returns what sets it apart from the other jobs."""
        return ", ".join(f"{key}={self.overrides.get(key)}" for key in keys) or self.folder.name


def sweep_report(folder: Path) -> str:
    """Writes ``results.csv``, ``sweep.png`` and ``weights.png`` into a sweep's folder, and both pictures for
    TensorBoard; returns the results as an aligned table.

    A job without a readable ``results.csv`` counts as failed: it gets a row with that status and nothing measured.
    """
    folder = Path(folder)
    jobs = read_jobs(folder)
    if not jobs:
        return f"{folder}: no jobs"
    keys = swept_keys(jobs)
    replace_file(folder / "results.csv", as_csv(jobs).encode())
    pictures = {}
    if any(job.results for job in jobs):
        pictures["sweep"] = png(draw_sweep(jobs, keys))
        images = [(job.name(keys), image) for job in jobs if (image := best_weights(job)) is not None]
        if images:
            pictures["weights"] = png(draw_weights(evenly(images, ROWS)))
    for name, content in pictures.items():
        replace_file(folder / f"{name}.png", content)
    log_pictures(folder, pictures)
    return table(jobs, keys)


def read_jobs(folder: Path) -> list[Job]:
    """Returns the jobs of the sweep in ``folder``, in the order in which Hydra numbered them."""
    found = []
    for path in folder.glob("*/.hydra/overrides.yaml"):
        try:
            overrides = parse_overrides(yaml.safe_load(path.read_text()) or [])
            number = yaml.safe_load((path.parent / "hydra.yaml").read_text())["hydra"]["job"]["num"]
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            overrides, number = {}, math.inf
        job = Job(path.parents[1], overrides, results_or_none(path.parents[1] / "results.csv"))
        found.append((number if isinstance(number, int) else math.inf, path.parents[1].name, job))
    return [job for *_, job in sorted(found, key=lambda entry: entry[:2])]


def results_or_none(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a job's results; none when they are missing or unreadable."""
    try:
        rows = read_results(path)
    except (OSError, ValueError, csv.Error):
        return []
    return rows if all(isinstance(row.get("val_accuracy"), float) for row in rows) else []


def swept_keys(jobs: list[Job]) -> list[str]:
    """Returns the overrides in which the jobs differ."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    return [key for key in keys if len({repr(job.overrides.get(key)) for job in jobs}) > 1]


def as_csv(jobs: list[Job]) -> str:
    """Returns all jobs' results as the text of a CSV file: status, overrides, then what was measured."""
    overrides = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    measured = dict.fromkeys(key for job in jobs for row in job.results for key in row)
    text = io.StringIO()
    columns = ["job", "status", *overrides, *(key for key in measured if key not in overrides)]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for job in jobs:
        for row in job.results or [{}]:
            writer.writerow({"job": job.folder.name, "status": job.status, **job.overrides, **row})
    return text.getvalue()


def table(jobs: list[Job], keys: list[str]) -> str:
    """Returns the results as aligned text, for people: the best weights' figures."""
    shown = [name for name in SHOWN if any(row.get(name) is not None for job in jobs for row in job.results)]
    paths = any(len(job.results) > 1 for job in jobs)
    lines = [["job", *(["l2"] if paths else []), *(name.replace("_", " ") for name in shown), "‖w‖"]]
    for job in jobs:
        for row in job.results:
            l2 = [f"{row.get('l2', 0.0):g}"] if paths else []
            lines.append([job.name(keys), *l2, *(cell(row.get(name)) for name in shown), cell(norm(row))])
        if not job.results:
            lines.append([job.name(keys), "failed", *[""] * (len(lines[0]) - 2)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if value == round(value) or abs(value) < 1e-3 else f"{value:.4f}"


def norm(row: dict[str, Any]) -> float | None:
    """Returns ‖w‖ of the best weights."""
    squared = row.get("weight_norm_squared")
    return math.sqrt(squared) if isinstance(squared, float) else None


@styled
def draw_sweep(jobs: list[Job], keys: list[str]) -> Figure:
    """Draws validation accuracy and ‖w‖ of every job against the swept value; failed jobs are crosses on the axis."""
    figure = Figure(figsize=(max(7.0, 0.45 * len(jobs) + 2), 6.0), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    place = lay_out(panels[1], jobs, keys)
    measures = ((panels[0], "Validation accuracy", BLUE, "o", lambda row: row["val_accuracy"]),)
    measures += ((panels[1], "‖w‖", VERMILLION, "s", lambda row: norm(row) or np.nan),)
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


def lay_out(ax: Axes, jobs: list[Job], keys: list[str]) -> np.ndarray | range:
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


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def evenly(items: list, count: int) -> list:
    """Returns at most ``count`` of ``items``, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def best_weights(job: Job) -> np.ndarray | None:
    """Returns the picture (height, width, 3) of a job's best weights; None when there are none to draw."""
    if not job.results:
        return None
    from handgrad.callbacks.weight_images import weight_image
    from handgrad.runs.checkpoint import WholeCheckpointIO

    try:
        checkpoint = WholeCheckpointIO().load_checkpoint(job.folder / "checkpoints" / "best.ckpt", "cpu")
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
    from PIL import Image

    from handgrad.loggers.tensorboard import TensorBoardPathLogger

    logger = TensorBoardPathLogger(folder, [0.0])
    for name, content in pictures.items():
        image, buffer = Image.open(io.BytesIO(content)).convert("RGB"), io.BytesIO()
        image.save(buffer, "PNG")
        logger.log_image(name, buffer.getvalue(), (image.height, image.width), 0)
    logger.save()
