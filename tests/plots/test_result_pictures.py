"""The pictures of a run show what was measured, for two classes and for a thousand."""

import pytest
import torch

from handgrad.evaluation import Calibration
from handgrad.metrics import Score, outcome, reliability_of
from handgrad.plots.result_pictures import (
    CELLS,
    decades,
    draw_confusion,
    draw_few_shots,
    draw_reliability,
    draw_validation_curve,
    pooled,
)
from handgrad.selection import Selection

LOSS = Selection("loss", "best")


def test_the_curve_shows_each_value_with_its_error_and_a_star_at_the_choice():
    l2, scores = [0.2, 0.0, 2.0, 0.02], [Score(0.3, 0.01), Score(0.4, 0.02), Score(0.5, 0.03), Score(0.35, 0.04)]
    (ax,) = draw_validation_curve(l2, scores, LOSS, 0).axes
    assert ax.get_xscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "0.02", "0.2", "2"]
    ((dots, _, (bars,)),) = ax.containers
    assert list(dots.get_xdata()[1:]) == [0.02, 0.2, 2.0]
    assert 0 < dots.get_xdata()[0] < 0.02 / 2.9, "0 stands apart"
    assert list(dots.get_ydata()) == [0.4, 0.35, 0.3, 0.5]
    assert [round(float(bar[1, 1] - bar[0, 1]), 9) for bar in bars.get_segments()] == [0.04, 0.08, 0.02, 0.06]
    line, star = (line for line in ax.lines if line is not dots and len(line.get_xdata()) in (3, 1))
    assert list(line.get_xdata()) == [0.02, 0.2, 2.0], "no line leads to 0"
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([0.2], [0.3])
    assert "selected: l2 = 0.2" in star.get_label()


@pytest.mark.parametrize(("metric", "bound"), [("loss", 0.32), ("accuracy", 0.48)])
def test_the_bound_of_one_standard_error_is_drawn(metric, bound):
    scores = [Score(0.3, 0.02), Score(0.5, 0.02)]
    selection = Selection(metric, "one_standard_error")
    (ax,) = draw_validation_curve([1.0, 0.1], scores, selection, selection.choose([1.0, 0.1], scores)).axes
    (line,) = (line for line in ax.lines if line.get_linestyle() == "--")
    assert list(line.get_ydata()) == pytest.approx([bound, bound])


def test_a_long_path_has_a_band_for_its_errors_and_few_ticks():
    l2 = [10 ** (-8 * i / 99) for i in range(100)]
    (ax,) = draw_validation_curve(l2, [Score(0.5, 0.1)] * 100, LOSS, 0).axes
    assert not ax.containers
    assert len(ax.collections) == 1
    assert len(ax.get_xticks()) <= 7


@pytest.mark.parametrize(
    ("ends", "powers"), [((0.02, 2), [-1, 0]), ((1e-8, 1), [-8, -6, -4, -2, 0]), ((1e-3, 1e3), list(range(-3, 4)))]
)
def test_decades(ends, powers):
    assert decades(*ends) == powers


def test_few_classes_are_written_out():
    confusion = torch.tensor([[6.0, 2.0], [0.0, 4.0]])
    left, right = draw_confusion(confusion, ["no", "yes"], "test").axes
    assert [text.get_text() for text in left.texts] == ["6", "2", "4"]
    assert left.images[0].get_array().tolist() == [[0.75, 0.25], [0, 1]]
    assert [bar.get_width() for bar in right.patches] == [0.75, 1.0]
    assert left.get_title() == "test set, 12 samples"
    assert right.get_title() == "mean 0.875"
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["no", "yes"]


def test_of_a_thousand_classes_some_are_named_and_no_confusion_is_lost():
    confusion = torch.eye(1000) * 9
    confusion[3, 998] = 1
    left, right = draw_confusion(confusion, [f"a class with a long name {i}" for i in range(1000)], "val").axes
    shown = left.images[0].get_array()
    assert shown.shape == (CELLS, CELLS)
    assert shown[1, 499] == pytest.approx(0.1)
    assert not left.texts
    names = [tick.get_text() for tick in left.get_yticklabels()]
    assert 20 <= len(names) <= 26
    assert max(map(len, names)) == 18
    assert len(right.patches) == 1
    assert torch.equal(pooled(torch.eye(3), 1), torch.eye(3))


def test_a_class_without_samples_has_no_bar():
    _, right = draw_confusion(torch.tensor([[3.0, 1.0], [0.0, 0.0]]), [0, 1], "test").axes
    assert [bar.get_width() for bar in right.patches] == [0.75, 0.0]
    assert right.get_title() == "mean 0.750"


def test_the_reliability_curve_shows_both_and_their_errors():
    logits = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) * 2
    target = torch.arange(300) % 4
    curves = [reliability_of(outcome(logits / T, target)) for T in (1, 3.0)]
    found = Calibration(3.0, *curves)
    upper, lower = draw_reliability(found, "test").axes
    labels = [text.get_text() for text in upper.get_legend().get_texts()]
    assert labels == [f"as fitted: ECE {found.error:.4f}", f"temperature 3: ECE {found.scaled_error:.4f}"]
    for line, curve in zip(upper.lines[1:], curves, strict=True):
        filled = curve.share > 0
        assert list(line.get_ydata()) == curve.accuracy[filled].tolist()
        assert list(line.get_xdata()) == curve.confidence[filled].tolist()
    assert upper.get_ylabel() == "Accuracy, test set"
    assert lower.get_xlabel() == "Confidence"


def test_few_shot_draws_have_a_point_each_and_their_mean():
    rows = [{"shots": shots, "test_accuracy": shots / 20 + draw / 10} for shots in (1, 2, 16) for draw in range(3)]
    figure = draw_few_shots(rows, "test_accuracy")
    (ax,) = figure.axes
    points = [line for line in ax.lines if len(line.get_xdata()) == 3 and len(set(line.get_xdata())) == 1]
    assert len(points) == 3
    means = next(line.get_ydata() for line in ax.lines if list(line.get_xdata()) == [1, 2, 16])
    assert list(means) == pytest.approx([0.15, 0.2, 0.9])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "16"]
    assert ax.get_ylabel() == "Test accuracy"
