import numpy as np
import pytest
from matplotlib.colors import to_rgb

from handgrad.plots import style
from report import figures

STEPS = "Number of Training Steps"
LIMITS = {"1": (0, 0.2), "2": (0.93, 0.99), "4": (0.2, 0.6), "5": (0.89, 0.93), "7": (0.7, 0.95)}


@pytest.mark.parametrize(("number", "limits"), LIMITS.items())
def test_curves_are_drawn_over_updates_in_the_reports_range(splits, number, limits):
    (ax,) = figures.PER_SPLIT[number](splits["report"]).axes
    assert ax.get_xlabel() == STEPS
    assert ax.get_ylim() == limits
    assert ax.get_ylabel()


def test_the_training_loss_is_a_ten_step_mean_under_the_validation_loss(splits):
    (ax,) = figures.figure_1(splits["report"]).axes
    train, val = ax.lines
    assert len(train.get_xdata()) == 24
    assert train.get_xdata()[0] == 4.5
    (band,) = ax.collections
    assert band.get_alpha() < 0.5
    assert band.get_zorder() < train.get_zorder() < val.get_zorder()


def optima(ax) -> list[float]:
    return [line.get_ydata()[0] for line in ax.lines if line.get_marker() == figures.OPTIMUM and len(line.get_ydata())]


def test_figure_4_draws_both_losses_of_each_optimum_in_the_picture(splits):
    figure = figures.figure_4(splits["course"])
    (ax,) = figure.axes
    assert optima(ax) == pytest.approx([0.252, 0.262, 0.27, 0.28, 0.45, 0.46])
    assert [text.get_text() for text in ax.texts] == ["l2 = 0.002", "l2 = 0.02", "l2 = 0.2"]
    assert [text.xy[1] for text in ax.texts] == pytest.approx([0.257, 0.275, 0.455])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["training (mean of 10 steps ± 1 s.d.)", "validation", "optimum"]


def test_an_optimum_outside_the_picture_is_neither_drawn_nor_named():
    _, ax = style.axes()
    ax.set_ylim(0.2, 0.6)
    figures.draw_optimum(ax, 1.3, style.TRAIN)
    figures.name_beside(ax, "l2 = 2", [1.3, 1.2])
    figures.name_beside(ax, "l2 = 0.2", [0.7, 0.5])
    assert not ax.lines
    assert [(text.get_text(), text.xy[1]) for text in ax.texts] == [("l2 = 0.2", 0.5)]


def test_figure_7_draws_each_optimum_in_its_curves_colour(splits):
    figure = figures.figure_7(splits["report"])
    (ax,) = figure.axes
    assert optima(ax) == pytest.approx([0.87, 0.87, 0.87])
    marks = [line for line in ax.lines if line.get_marker() == figures.OPTIMUM]
    curves = {line.get_label(): line.get_color() for line in ax.lines}
    assert [mark.get_color() for mark in marks[:3]] == [curves[f"l2 = {l2}"] for l2 in ("0.002", "0.02", "0.2")]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["l2 = 0", "l2 = 0.002", "l2 = 0.02", "l2 = 0.2", "l2 = 2", "optimum"]


def test_figure_3_marks_the_spikes(splits):
    spikes = np.array([36, 60])
    figure = figures.figure_3(splits["course"], spikes)
    (ax,) = figure.axes
    assert ax.get_ylim() == (0.93, 0.99)
    marked = next(line for line in ax.lines if line.get_label() == "every 24 updates")
    assert marked.get_xdata().tolist() == [36, 60]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["shuffled, 5 seeds", "not shuffled", "stopped", "every 24 updates"]


def test_figure_6_has_one_scale_per_row(splits):
    figure = figures.figure_6(splits["course"])
    scales = [ax.images[0].get_clim() for ax in figure.axes if ax.images and ax.images[0].get_array().shape == (28, 28)]
    assert len(scales) == 30
    assert [len(set(scales[row : row + 10])) for row in (0, 10, 20)] == [1, 1, 1]
    assert all(low == -high for low, high in scales)
    assert [text.get_text() for text in figure.texts][:2] == ["l2 = 0: correlation 0.70", "l2 = 2: correlation 0.99"]


def test_figure_6_of_a_narrow_page_has_five_images_side_by_side(splits):
    figure = figures.figure_6(splits["course"], columns=5)
    boxes = [ax.get_position() for ax in figure.axes if ax.images and ax.images[0].get_array().shape == (28, 28)]
    assert len(boxes) == 30
    assert len({round(box.x0, 6) for box in boxes}) == 5
    assert len({round(box.y0, 6) for box in boxes}) == 6
    assert figure.get_figwidth() < 6


def test_figure_8_draws_both_norms_and_sets_zero_apart(splits):
    upper, lower = figures.figure_8(splits["report"]).axes
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("‖w‖", "‖w‖²")
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["0", "0.002", "0.02", "0.2", "2"]
    line, zero = (line for line in lower.lines if line.get_marker() == "s")
    assert np.diff(line.get_xdata()) == pytest.approx([1, 1, 1])
    assert zero.get_ydata().tolist() == [4.0]
    assert (upper.lines[1].get_ydata() ** 2).tolist() == pytest.approx(line.get_ydata().tolist())


def test_figure_gap_draws_validation_minus_training(splits):
    _, lower = figures.figure_gap(splits["report"]).axes
    gap = next(line for line in lower.lines if line.get_marker() == "D")
    assert gap.get_ydata() == pytest.approx(np.full(4, 0.01))


def test_figure_small_has_a_line_per_l2(small):
    figure = figures.figure_small(small)
    assert figure.axes[0].get_xscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["l2 = 0", "l2 = 0.02", "smallest"]


def test_svg_is_the_same_every_time_and_png_is_one(splits):
    assert style.svg(figures.figure_2(splits["report"])) == style.svg(figures.figure_2(splits["report"]))
    assert b"<dc:date>" not in style.svg(figures.figure_2(splits["report"]))
    assert style.png(figures.figure_2(splits["report"])).startswith(b"\x89PNG")


def test_lines_of_figure_7_differ_in_lightness_or_pattern():
    looks = zip(figures.L2_COLOURS, figures.L2_STYLES, strict=True)
    light = {(round(float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722))), 1), str(line)) for colour, line in looks}
    assert len(light) == 5
