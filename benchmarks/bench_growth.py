"""How time and memory grow with samples, features, classes and l2 values: with one of them, the others kept.

A path costs its passes, each of two matrix products, and what is done beside them. What the products alone take is
measured with each path, so that the two can be seen to grow alike, or not.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import growth_ours
from benchmarks.harness import Options, Table

MB = 1e6


class Size(NamedTuple):
    """Of a problem: N, D, classes, and l2 values."""

    samples: int = 20_000
    features: int = 256
    classes: int = 10
    values: int = 5


AXES: dict[str, Sequence[int]] = {
    "samples": (10_000, 100_000, 1_000_000),
    "features": (128, 512, 2048),
    "classes": (2, 10, 100, 1000),
    "values": (1, 10, 100, 1000),
}
LARGE = Size(1_000_000, 512, 10, 20)  # for the share of the products
QUICK: dict[str, Sequence[int]] = {"samples": (100,), "classes": (2,), "values": (1,)}
NAMES = {"samples": "N", "features": "D", "classes": "K", "values": "L"}
COLUMNS = ["grows", *NAMES.values(), "processor s", "passes", "products alone, s", "whole over products", "MB"]
NOTES = [
    "Each row is a path from l2 = 0.1 to 1e-5 (of one value: 1e-3), proven to 1e-6, by the solver's call alone: one "
    "thread, processor seconds, one run, in a process of its own. Two classes are one sigmoid.",
    "Products alone: the two of each pass that was made, in its chunks and its dtype. MB: the largest resident size "
    "beside what lay in memory when the solver began, which are the features.",
]


def run(options: Options) -> Iterator[Table]:
    """Yields the table again after each row."""
    table = Table("growth", "Growth", COLUMNS, [], list(NOTES))
    base = Size(200, 8, 3, 2) if options.quick else Size()
    for axis, sizes in (QUICK if options.quick else AXES).items():
        for value in sizes:
            print(f"  {axis} {value:,}", file=sys.stderr, flush=True)
            size = base._replace(**{axis: value})
            table.rows.append(row(NAMES[axis], size, growth_ours.solve(*size)))
            yield table
    if not options.quick:
        table.rows.append(row("", LARGE, growth_ours.solve(*LARGE)))
        yield table


def row(grows: str, size: Size, found: dict[str, Any]) -> list[object]:
    """Returns the cells of a path."""
    if not found["gap"] <= growth_ours.TOLERANCE:
        raise RuntimeError(f"{size}: the gap is {found['gap']:.1e}")
    alone = found["products"]["cpu"]
    figures = [found["cpu"], round(found["passes"]), alone, found["cpu"] / alone, found["memory"] / MB]
    return [grows, *size, *figures]


def picture(tables: Mapping[str, Table], path: Path) -> None:
    """Draws seconds, those of the products alone, and memory over each axis, and saves it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    rows: list[Sequence[Any]] = tables["growth"].rows

    figure, axes = pyplot.subplots(2, 4, figsize=(12, 5), sharex="col", sharey="row", layout="constrained")
    for column, name in enumerate(NAMES.values()):
        mine = [row for row in rows if row[0] == name]
        x = [row[1 + column] for row in mine]
        top, below = axes[:, column]
        top.loglog(x, [row[5] for row in mine], "o-", label="the path")
        top.loglog(x, [row[7] for row in mine], "s--", label="its products alone")
        below.loglog(x, [max(row[9], 0.1) for row in mine], "o-")
        below.xaxis.set_minor_formatter(NullFormatter())
        below.set_xlabel({"N": "samples", "D": "features", "K": "classes", "L": "l2 values"}[name])
    axes[0, 0].set_ylabel("processor seconds")
    axes[1, 0].set_ylabel("MB beside the features")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
