"""How figures look, and how they are written: colours that colour-blind readers tell apart, large letters."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from handgrad.files import replace_file

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType  # from matplotlib 3.11

# Okabe and Ito's palette.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"
TRAIN, VAL = BLUE, VERMILLION

DIVERGING = LinearSegmentedColormap.from_list("diverging", ["#053061", "#4393c3", "#f7f7f7", "#d6604d", "#67001f"])

SIZE = (6.4, 4.3)
STYLE: "dict[RcKeyType, Any]" = {
    "font.size": 15,
    "axes.titlesize": 15,
    "axes.labelsize": 15,
    "xtick.labelsize": 14,
    "ytick.labelsize": 14,
    "legend.fontsize": 13,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # the same letters on every machine
    "svg.hashsalt": "handgrad",  # the same file every time
}
STEPS = "Number of Training Steps"


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Makes a function draw its figure in this style."""

    def wrapped(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    wrapped.__doc__ = draw.__doc__
    wrapped.__name__ = draw.__name__
    return wrapped


def axes(xlabel: str = STEPS, ylabel: str = "", size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """Returns a figure with one pair of axes."""
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.add_subplot()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return figure, ax


def png(figure: Figure, dpi: int = 120) -> bytes:
    """Returns ``figure`` as a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Returns ``figure`` as an SVG file, the same bytes every time."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", dpi=120, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes ``name.png`` and ``name.svg`` into ``folder``."""
    replace_file(folder / f"{name}.png", png(figure))
    replace_file(folder / f"{name}.svg", svg(figure))
