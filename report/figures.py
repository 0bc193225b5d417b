"""The figures: one function each, which reads runs and returns a matplotlib Figure."""

import math
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handgrad.plots.style import (
    BLACK,
    BLUE,
    DIVERGING,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    TRAIN,
    VAL,
    VERMILLION,
    axes,
    styled,
)
from report.events import Curve, Run, block_mean
from report.splits import Split

L2_COLOURS = (BLACK, BLUE, GREEN, ORANGE, VERMILLION)
TITLE, IMAGE, WIDTH = 0.5, 1.05, 0.9  # inches of figure 6: a title, and an image below it, its height and width
OPTIMUM = "D"  # the marker of a certified optimum
L2_STYLES = ("-", (0, (5, 1.5)), "-.", "-", (0, (2, 1)))


def draw_losses(ax: Axes, curves: dict[str, Curve]) -> None:
    """Draws both losses: the training loss as its mean over 10 steps in a band of one standard deviation."""
    step, mean, spread = block_mean(curves["loss/train"])
    ax.fill_between(step, mean - spread, mean + spread, color=TRAIN, alpha=0.25, linewidth=0, zorder=1)
    ax.plot(step, mean, color=TRAIN, linewidth=1.2, label="training (mean of 10 steps ± 1 s.d.)", zorder=2)
    ax.plot(*curves["loss/val"], color=VAL, label="validation", zorder=3)


def draw_accuracies(ax: Axes, curves: dict[str, Curve]) -> None:
    """Draws the accuracy on both sets at every check."""
    ax.plot(*curves["accuracy/train"], color=TRAIN, label="training")
    ax.plot(*curves["accuracy/val"], color=VAL, label="validation", linewidth=1.4)
    ax.legend(loc="lower right")


def legend_above(ax: Axes, columns: int) -> None:
    """Names the lines above the picture, where the names hide nothing."""
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=columns, columnspacing=1.2)


def draw_optimum(ax: Axes, value: float, colour: str) -> None:
    """Draws what was measured at a certified optimum, whatever the step: a thin line that ends in a diamond."""
    low, high = ax.get_ylim()
    if low <= value <= high:
        ax.axhline(value, color=colour, linestyle=(0, (6, 3)), linewidth=1, zorder=2.5)
        end = {"transform": ax.get_yaxis_transform(), "clip_on": False, "zorder": 5}
        ax.plot(1, value, OPTIMUM, color=colour, markersize=8, markeredgecolor=BLACK, **end)


def name_optimum(ax: Axes) -> None:
    """Names the lines of ``draw_optimum`` in the legend."""
    look = {"linestyle": (0, (6, 3)), "linewidth": 1, "markersize": 8, "markeredgecolor": BLACK}
    ax.plot([], [], marker=OPTIMUM, color=GREY, label="optimum", **look)


def name_beside(ax: Axes, name: str, values: list[float]) -> None:
    """Writes ``name`` to the right of ``ax``, at the middle of those ``values`` that lie in the picture."""
    low, high = ax.get_ylim()
    seen = [value for value in values if low <= value <= high]
    if seen:
        place = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
        ax.annotate(name, (1, sum(seen) / len(seen)), (11, 0), va="center", fontsize=12, **place)


@styled
def figure_1(split: Split) -> Figure:
    """Logistic regression: losses."""
    figure, ax = axes(ylabel="Cross-entropy loss")
    draw_losses(ax, split.logistic.curves())
    ax.set(ylim=(0, 0.2), xlim=(0, None))
    legend_above(ax, 2)
    return figure


@styled
def figure_2(split: Split) -> Figure:
    """Logistic regression: accuracies."""
    figure, ax = axes(ylabel="Accuracy")
    draw_accuracies(ax, split.logistic.curves())
    ax.set(ylim=(0.93, 0.99), xlim=(0, None))
    return figure


@styled
def figure_3(split: Split, spikes: np.ndarray) -> Figure:
    """Logistic regression, early stopping: validation accuracy without and with shuffling, ``spikes`` marked."""
    figure, ax = axes(ylabel="Validation accuracy")
    for number, run in enumerate(split.shuffled.values()):
        label = f"shuffled, {len(split.shuffled)} seeds" if number == 0 else None
        draw_until_stop(ax, run, color=SKY, linewidth=0.7, label=label, zorder=2)
    draw_until_stop(ax, split.stopped, color=VERMILLION, linewidth=1.6, label="not shuffled", zorder=3)
    ax.plot([], [], "o", color=GREY, label="stopped")
    ax.set(ylim=(0.93, 0.99), xlim=(0, None))
    if len(spikes):
        mark_spikes(ax, split.stopped.curves()["accuracy/val"], spikes)
    legend_above(ax, 2)
    return figure


def draw_until_stop(ax: Axes, run: Run, **style) -> None:
    curve = run.curves()["accuracy/val"]
    ax.plot(*curve, **style)
    ax.plot(curve.step[-1], curve.value[-1], "o", color=style["color"], markeredgecolor=BLACK, zorder=4, clip_on=False)


def mark_spikes(ax: Axes, curve: Curve, spikes: np.ndarray) -> None:
    """Marks the checks after the batch that throws the weights off, at the lower edge where they leave the picture."""
    bottom = ax.get_ylim()[0]
    heights = [max(curve.at(step), bottom) for step in spikes]
    period = spikes[1] - spikes[0] if len(spikes) > 1 else 0
    label = f"every {period} updates" if period else "spike"
    ax.plot(
        spikes, heights, "v", color=PURPLE, markersize=11, markeredgecolor=BLACK, clip_on=False, label=label, zorder=5
    )


@styled
def figure_4(split: Split) -> Figure:
    """Softmax regression: losses without penalty, beside those at the optimum of each l2 > 0."""
    figure, ax = axes(ylabel="Cross-entropy loss")
    draw_losses(ax, split.path.curves(0.0))
    ax.set(ylim=(0.2, 0.6), xlim=(0, None))
    for l2, row in split.certified().items():
        losses = {TRAIN: row["train_loss"], VAL: row["val_loss"]}
        for colour, loss in losses.items():
            draw_optimum(ax, loss, colour)
        name_beside(ax, f"l2 = {l2:g}", list(losses.values()))
    name_optimum(ax)
    legend_above(ax, 2)
    return figure


@styled
def figure_5(split: Split) -> Figure:
    """Softmax regression: accuracies."""
    figure, ax = axes(ylabel="Accuracy")
    draw_accuracies(ax, split.path.curves(0.0))
    ax.set(ylim=(0.89, 0.93), xlim=(0, None))
    return figure


@styled
def figure_6(split: Split, columns: int = 10) -> Figure:
    """Final weights as images at the smallest and the largest l2, and the class means; one scale for each.

    Args:
        columns: images side by side, 5 for a narrow page.
    """
    found = split.path.weights
    chosen = (int(found["l2"].argmin()), int(found["l2"].argmax()))
    rows = [(f"l2 = {found['l2'][i]:g}: correlation {found['correlation'][i]:.2f}", found["weight"][i]) for i in chosen]
    rows.append(("class mean − global mean", found["class_means"]))
    inches = TITLE + IMAGE * -(-len(rows[0][1]) // columns)
    figure = Figure(figsize=(WIDTH * columns + 1, inches * len(rows)))
    for number, (title, images) in enumerate(rows):
        draw_images(figure, 1 - (number + 1) / len(rows), inches, title, images, columns)
    return figure


def draw_images(figure: Figure, bottom: float, inches: float, title: str, images: np.ndarray, columns: int) -> None:
    """Draws ``images (K, S*S)``, ``columns`` side by side, on one scale, white at zero, in a band of ``figure``.

    ``bottom`` is a share of the figure, the band is ``inches`` high.
    """
    side, largest = math.isqrt(images.shape[1]), float(np.abs(images).max())
    inch, width = 1 / figure.get_figheight(), WIDTH / figure.get_figwidth()
    figure.text(0.05 * width, bottom + (inches - 0.31) * inch, title, fontsize=16)
    for k, image in enumerate(images):
        low = inches - TITLE - IMAGE * (k // columns + 1) + 0.06
        ax = figure.add_axes((k % columns * width, bottom + low * inch, 0.97 * width, IMAGE * inch))
        ax.imshow(image.reshape(side, side), cmap=DIVERGING, vmin=-largest, vmax=largest, interpolation="nearest")
        ax.set_axis_off()
    bar = figure.add_axes(((columns + 0.1) * width, bottom + 0.12 * inch, 0.13 * width, (inches - TITLE - 0.12) * inch))
    figure.colorbar(ax.images[0], cax=bar, ticks=[-largest, 0, largest], format="%.2g").ax.tick_params(labelsize=13)


@styled
def figure_7(split: Split) -> Figure:
    """Softmax regression: validation accuracy for each l2, and at the optimum of each l2 > 0."""
    figure, ax = axes(ylabel="Validation accuracy")
    certified = split.certified()
    ax.set(ylim=(0.7, 0.95))
    for l2, colour, line in zip(sorted(split.path.l2), L2_COLOURS, L2_STYLES, strict=True):
        ax.plot(
            *split.path.curves(l2)["accuracy/val"], color=colour, linestyle=line, linewidth=1.5, label=f"l2 = {l2:g}"
        )
        if l2 in certified:
            draw_optimum(ax, certified[l2]["val_accuracy"], colour)
    ax.set(xlim=(0, None))
    name_optimum(ax)
    legend_above(ax, 3)
    return figure


@styled
def figure_8(split: Split) -> Figure:
    """The norm of the final weights, and its square, against l2."""
    rows = sorted(split.path.results, key=lambda row: row["l2"])
    squared = np.array([row["last_weight_norm_squared"] for row in rows])
    figure, (upper, lower) = l2_panels()
    for ax, values, colour, mark, label in (
        (upper, np.sqrt(squared), BLUE, "o", "‖w‖"),
        (lower, squared, VERMILLION, "s", "‖w‖²"),
    ):
        draw_against_l2(ax, [row["l2"] for row in rows], values, color=colour, marker=mark)
        ax.set(ylim=(0, None), ylabel=label)
    return figure


def l2_panels() -> tuple[Figure, np.ndarray]:
    """Returns a figure with two axes, one above the other, for what depends on l2."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    panels[1].set_xlabel("l2 (log axis; 0 set apart)")
    return figure, panels


def l2_axis(ax: Axes, l2: list[float]) -> np.ndarray:
    """Lays out a logarithmic l2 axis with 0 set apart at its left end; returns the place of each value."""
    positive = [value for value in l2 if value > 0]
    apart = math.log10(min(positive)) - 1.2
    place = np.array([math.log10(value) if value > 0 else apart for value in l2])
    ax.set_xticks(place, [f"{value:g}" for value in l2])
    if 0 in l2:
        ax.axvline(apart + 0.6, color=GREY, linestyle=":", linewidth=1.5)
    return place


def draw_against_l2(ax: Axes, l2: list[float], values: np.ndarray, **style) -> None:
    """Draws ``values`` at ascending ``l2``: those at l2 > 0 as a line, that at 0 as a point of its own."""
    place = l2_axis(ax, l2)
    first = sum(value == 0 for value in l2)
    ax.plot(place[first:], values[first:], markersize=8, **style)
    ax.plot(place[:first], values[:first], markersize=8, **{**style, "linestyle": "", "label": None})


@styled
def figure_gap(split: Split) -> Figure:
    """Task 4d: final losses on both sets against l2, and the gap between them."""
    rows = sorted(split.path.results, key=lambda row: row["l2"])
    train, val = (np.array([row[f"last_{name}_loss"] for row in rows]) for name in ("train", "val"))
    l2 = [row["l2"] for row in rows]
    figure, (upper, lower) = l2_panels()
    draw_against_l2(upper, l2, train, color=TRAIN, marker="o", label="training")
    draw_against_l2(upper, l2, val, color=VAL, marker="s", linestyle=(0, (4, 2)), label="validation")
    upper.set(ylim=(0, None), ylabel="Loss")
    legend_above(upper, 2)
    lower.axhline(0, color=BLACK, linewidth=1)
    draw_against_l2(lower, l2, val - train, color=PURPLE, marker="D")
    lower.set(ylabel="Validation − training")
    return figure


@styled
def figure_small(small: Run) -> Figure:
    """Task 4d: validation loss on few training images, without and with l2."""
    figure, ax = axes(ylabel="Validation loss")
    for l2, colour, line in zip(sorted(small.l2), (BLACK, GREEN), ("-", "-."), strict=True):
        curve = small.curves(l2)["loss/val"]
        ax.plot(*curve, color=colour, linestyle=line, label=f"l2 = {l2:g}")
        best = int(curve.value.argmin())
        ax.plot(curve.step[best], curve.value[best], "v", color=colour, markersize=9, label="_smallest")
    ax.plot([], [], "v", color=GREY, markersize=9, linestyle="", label="smallest")
    ax.set(xscale="log", ylim=(0.95, 1.35))
    legend_above(ax, 3)
    return figure


PER_SPLIT = {
    "1": figure_1,
    "2": figure_2,
    "4": figure_4,
    "5": figure_5,
    "6": figure_6,
    "6-narrow": partial(figure_6, columns=5),
    "7": figure_7,
    "8": figure_8,
    "gap": figure_gap,
}
