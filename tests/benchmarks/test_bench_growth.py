"""The rows of the benchmark of growth, from what its processes would say; that it runs: test_benchmarks.py."""

import pytest

from benchmarks.bench_growth import COLUMNS, NAMES, Size, picture, row
from benchmarks.growth_ours import drawn, in_use
from benchmarks.harness import Table

FOUND = {"cpu": 6.0, "wall": 7.0, "passes": 40.0, "gap": 5e-7, "memory": 3e6, "products": {"cpu": 2.0, "wall": 3.0}}


def test_a_row_says_what_grows_and_how_the_whole_stands_to_its_products():
    cells = row("K", Size(classes=100), FOUND)
    assert dict(zip(COLUMNS, cells, strict=True)) == {
        "grows": "K",
        **{"N": 20_000, "D": 256, "K": 100, "L": 5, "processor s": 6.0, "passes": 40, "MB": 3.0},
        **{"products alone, s": 2.0, "whole over products": 3.0},
    }


def test_a_path_that_is_not_proven_is_no_figure():
    with pytest.raises(RuntimeError, match=r"the gap is 1\.1e-06"):
        row("N", Size(), FOUND | {"gap": 1.1e-6})


@pytest.mark.slow
def test_the_picture_is_written(tmp_path):
    rows = [row(axis, Size(), FOUND) for axis in NAMES.values()]
    picture({"growth": Table("growth", "Growth", COLUMNS, rows)}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"


def test_data_are_drawn_by_parts_and_memory_is_told():
    x, y = drawn(30, 7, 3)
    assert (x.shape, y.shape, set(y.tolist()) <= {0, 1, 2}) == ((30, 7), (30,), True)
    assert 0.2 < x.square().sum(1).mean() < 5
    assert in_use() >= 0
