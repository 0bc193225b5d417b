"""The pictures of a run: the choice among its l2 values, the confusion of its classes, and its calibration."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from handgrad.evaluation import Calibration
from handgrad.metrics import Reliability, Score, per_class
from handgrad.plots.style import BLACK, BLUE, GREY, ORANGE, VERMILLION, axes, styled
from handgrad.selection import Selection

SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#9ecae1", "#2171b5", "#08306b"])
WRITTEN = 12  # classes up to which cells carry their numbers
NAMED, LETTERS = 26, 18  # classes that are named, and letters of a name
CELLS = 500  # along a side; of more classes a cell shows the largest of several
DOTS = 60  # l2 values up to which each has a bar for its error, and classes up to which each has one of its own


@styled
def draw_validation_curve(l2: Sequence[float], scores: Sequence[Score], selection: Selection, entry: int) -> Figure:
    """Draws the metric over l2 with its standard error; a star is the choice, l2 = 0 stands apart at the left."""
    name = selection.metric.replace("_", " ")
    figure, ax = axes("l2", f"Validation {name}", (7.2, 4.6))
    ax.set_xscale("log")
    place = places(ax, l2)
    order = np.argsort(place)
    x = place[order]
    y, error = (np.array([score[i] for score in scores], dtype=float)[order] for i in range(2))
    apart = sum(value == 0 for value in l2)  # no line leads from there to the others
    if len(l2) <= DOTS:
        ax.errorbar(x, y, error, fmt="o", color=BLUE, markersize=5, capsize=3, elinewidth=1.2)
    else:
        ax.fill_between(x[apart:], (y - error)[apart:], (y + error)[apart:], color=BLUE, alpha=0.25, linewidth=0)
    ax.plot(x[apart:], y[apart:], color=BLUE)
    chosen = scores[entry]
    ax.plot(
        [place[entry]],
        [chosen.value],
        "*",
        color=VERMILLION,
        markersize=17,
        zorder=5,
        label=f"selected: l2 = {l2[entry]:g}\n{name} {chosen.value:.4f}, s.e. {chosen.standard_error:.4f}",
    )
    if selection.rule != "best":
        draw_bound(ax, l2, scores, selection)
    ax.legend(loc="best")
    return figure


@styled
def draw_few_shots(rows: Sequence[Mapping[str, float]], name: str) -> Figure:
    """Draws a figure of few-shot draws over the shots: each draw, and the mean with the standard deviation.

    Args:
        rows: with ``shots`` and ``name``, a row for each draw.
    """
    figure, ax = axes("Samples of each class", name.replace("_", " ").capitalize(), (6.4, 4.3))
    shots = sorted({row["shots"] for row in rows})
    drawn = [np.array([row[name] for row in rows if row["shots"] == count]) for count in shots]
    for count, values in zip(shots, drawn, strict=True):
        ax.plot([count] * len(values), values, "o", color=GREY, markersize=4, alpha=0.5)
    means = [values.mean() for values in drawn]
    deviations = [values.std(ddof=1) if len(values) > 1 else 0.0 for values in drawn]
    ax.errorbar(shots, means, deviations, fmt="o-", color=BLUE, markersize=6, capsize=3, label="mean ± s.d.")
    ax.set_xscale("log", base=2)
    ax.set_xticks(shots, [str(count) for count in shots])
    ax.minorticks_off()
    ax.legend(loc="best")
    return figure


def draw_bound(ax: Axes, l2: Sequence[float], scores: Sequence[Score], selection: Selection) -> None:
    """Draws what is one standard error from the best."""
    best = scores[Selection(selection.metric, "best").choose(l2, scores)]
    bound = best.value + (best.standard_error if selection.metric == "loss" else -best.standard_error)
    ax.axhline(bound, color=GREY, linestyle="--", linewidth=1.4, label="one standard error from the best")


def places(ax: Axes, l2: Sequence[float]) -> np.ndarray:
    """Sets up the horizontal axis, which is logarithmic; returns each value's place on it."""
    positive = [value for value in l2 if value > 0]
    low, high = min(positive), max(positive)
    zero = low / max(3.0, (high / low) ** 0.12)
    ticks = sorted(positive) if len(positive) <= 6 else [10.0**i for i in decades(low, high)]
    labels = [f"{tick:g}" for tick in ticks]
    if 0 in l2:
        ticks, labels = [zero, *ticks], ["0", *labels]
        ax.axvline(math.sqrt(zero * low), color=GREY, linestyle=":", linewidth=1)
    ax.set_xticks(ticks, labels)
    ax.set_xticks([], minor=True)
    return np.array([value or zero for value in l2])


def decades(low: float, high: float) -> list[int]:
    """Returns at most seven whole powers of ten between two numbers, evenly spread."""
    whole = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    return list(whole[:: -(-len(whole) // 7)])


@styled
def draw_confusion(confusion: Tensor, classes: Sequence[int | str], split: str) -> Figure:
    """Draws how the samples of each class (a row) are labelled, as shares of the row, and beside it their recall."""
    count = len(classes)
    side = min(9.0, max(4.6, 0.42 * count))
    figure = Figure(figsize=(side + 3.6, side + 0.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(side, 1.7))
    shares = (confusion / confusion.sum(1, keepdim=True)).nan_to_num(0)
    shown = pooled(shares, -(-count // CELLS))
    left.imshow(
        shown.numpy(),
        cmap=SHADES,
        norm=PowerNorm(0.5, 0, 1),
        extent=(-0.5, count - 0.5, count - 0.5, -0.5),
        interpolation="nearest" if count <= 100 else "antialiased",
        aspect="auto",
    )
    left.grid(False)
    left.set(xlabel="Label given", ylabel="Class", title=f"{split} set, {int(confusion.sum())} samples")
    if count <= WRITTEN:
        write_numbers(left, confusion, shares)
    draw_recall(right, per_class(confusion).recall)
    name_classes(left, classes)
    return figure


def pooled(shares: Tensor, size: int) -> Tensor:
    """Returns the largest share of each square of ``size`` cells: a lone confusion is not lost among many classes."""
    if size == 1:
        return shares
    return torch.nn.functional.max_pool2d(shares[None, None], size, ceil_mode=True)[0, 0]


def write_numbers(ax: Axes, confusion: Tensor, shares: Tensor) -> None:
    """Writes into each cell how many samples it holds."""
    size = 13 if len(confusion) <= 6 else 10 if confusion.max() < 1000 else 8.5
    for i, row in enumerate(confusion.long().tolist()):
        for j, number in enumerate(row):
            if number:
                colour = "white" if shares[i, j] > 0.35 else BLACK
                ax.text(j, i, str(number), ha="center", va="center", color=colour, fontsize=size)


def draw_recall(ax: Axes, recall: Tensor) -> None:
    """Draws the classes' recall, a bar each."""
    values = recall.nan_to_num(0).numpy()
    if len(values) <= DOTS:
        ax.barh(range(len(values)), values, 0.75, color=BLUE)
    else:
        edges = np.arange(len(values) + 1) - 0.5
        ax.stairs(values, edges, orientation="horizontal", fill=True, color=BLUE)
    mean = recall.nanmean().item()
    ax.axvline(mean, color=VERMILLION, linewidth=1.4)
    ax.set(xlim=(0, 1), xticks=(0, 0.5, 1), xlabel="Accuracy", title=f"mean {mean:.3f}")
    ax.set_xticklabels(["0", "½", "1"])
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def name_classes(ax: Axes, classes: Sequence[int | str]) -> None:
    """Names the classes at both sides, evenly spread ones of many."""
    chosen = range(0, len(classes), -(-len(classes) // NAMED))
    names = [str(classes[i]) for i in chosen]
    names = [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in names]
    size = 14 if len(chosen) <= WRITTEN else 11
    upright = max(map(len, names)) <= 2
    ax.set_xticks(chosen, names, fontsize=size, rotation=0 if upright else 90)
    ax.set_yticks(chosen, names, fontsize=size)


@styled
def draw_reliability(found: Calibration, split: str) -> Figure:
    """Draws accuracy over confidence, without and with the temperature, and how often each confidence is given.

    A large mark stands for many samples.
    """
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2)
    parts = (
        (found.curve, BLUE, "o", f"as fitted: ECE {found.error:.4f}"),
        (found.scaled_curve, ORANGE, "s", f"temperature {found.temperature:.3g}: ECE {found.scaled_error:.4f}"),
    )
    for curve, colour, mark, label in parts:
        filled = curve.share > 0
        x, y = curve.confidence[filled].numpy(), curve.accuracy[filled].numpy()
        upper.plot(x, y, color=colour, linewidth=1.2, marker=mark, markersize=4, label=label)
        upper.scatter(x, y, 15 + 400 * curve.share[filled].numpy(), color=colour, marker=mark, alpha=0.5)
        draw_shares(lower, curve, colour)
    upper.set(ylabel=f"Accuracy, {split} set", ylim=(-0.04, 1.04))
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1))
    lower.set(xlabel="Confidence", ylabel="Share", xlim=(0, 1.02))
    return figure


def draw_shares(ax: Axes, curve: Reliability, colour: str) -> None:
    """Draws which share of the samples lies in each bin."""
    edges = np.linspace(0, 1, len(curve.share) + 1)
    ax.stairs(curve.share.numpy(), edges, color=colour, linewidth=1.8)
