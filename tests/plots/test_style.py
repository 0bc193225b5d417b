"""Figures are the same bytes every time, in one style that holds for them alone."""

import io
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from handgrad.plots.style import DIVERGING, SIZE, STEPS, STYLE, axes, png, save, styled, svg

pytestmark = pytest.mark.slow  # matplotlib draws


@styled
def draw(values=(1, 3, 2)) -> Figure:
    """Draws."""
    figure, ax = axes(ylabel="Loss")
    ax.plot(values, label="train")
    ax.fill_between(range(len(values)), values)  # clip paths, whose names in an SVG are hashed
    ax.legend()
    return figure


@pytest.mark.parametrize("write", [png, svg])
def test_the_same_bytes_every_time(write):
    assert write(draw()) == write(draw())
    figure = draw()
    assert write(figure) == write(figure)
    assert write(draw()) != write(draw((1, 3, 2.5)))


def test_a_png_has_the_asked_for_size_and_tells_nothing_else():
    for dpi in (50, 120):
        with Image.open(io.BytesIO(png(draw(), dpi))) as image:
            assert image.size == tuple(round(length * dpi) for length in SIZE)
            assert image.info.keys() <= {"dpi"}
            assert np.asarray(image)[0, 0].tolist() == [255, 255, 255, 255]


def test_an_svg_draws_its_letters_and_has_no_date():
    text = svg(draw()).decode()
    assert text.lstrip().startswith("<?xml")
    assert "<text" not in text
    assert not re.search(r"\d{4}-\d\d-\d\dT|[Mm]atplotlib v", text)


def test_files_are_written_into_a_new_folder(tmp_path):
    save(draw(), tmp_path / "a" / "b", "loss")
    assert {path.name: path.read_bytes() for path in (tmp_path / "a" / "b").iterdir()} == {
        "loss.png": png(draw()),
        "loss.svg": svg(draw()),
    }


def test_the_style_holds_for_the_figure_alone():
    before = dict(matplotlib.rcParams)
    (ax,) = draw().axes
    assert ax.xaxis.label.get_fontsize() == STYLE["axes.labelsize"] != before["axes.labelsize"]
    assert not ax.spines["top"].get_visible()
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match="mine"):
        styled(lambda: (_ for _ in ()).throw(ValueError("mine")))()
    assert dict(matplotlib.rcParams) == before


def test_a_styled_function_keeps_its_name_and_its_arguments():
    assert (draw.__name__, draw.__doc__) == ("draw", "Draws.")
    (ax,) = draw(values=(5, 6)).axes
    assert list(ax.lines[0].get_ydata()) == [5, 6]


def test_axes_are_labelled():
    figure, ax = axes(ylabel="Loss", size=(3, 2))
    assert figure.axes == [ax]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (STEPS, "Loss")
    assert figure.get_size_inches().tolist() == [3, 2]


def test_the_diverging_colours_are_blue_white_red():
    blue, white, red = (DIVERGING(value)[:3] for value in (0.0, 0.5, 1.0))
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert min(white) > 0.95
