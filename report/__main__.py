"""``python -m report``: runs what is not finished, then writes figures, ``numbers.csv`` and ``index.html``."""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from handgrad.cli.streams import standard_streams
from handgrad.files import replace_file
from handgrad.plots.style import save
from report import figures
from report.derivation import listings, render_file
from report.facts import Facts, small_facts, split_facts
from report.numbers import as_csv, numbers
from report.page import page
from report.runs import PROCESSES, CommandFailed, perform_all
from report.splits import load_small, load_split

FOLDER = Path("outputs/report")
DERIVATION = Path("docs/derivation.md")
SPLITS = ("report", "course")


def draw_split(folder: Path, name: str) -> Facts:
    """Draws the figures of one split; returns its numbers."""
    split = load_split(folder / "runs", name)
    facts = split_facts(split)
    for number, draw in figures.PER_SPLIT.items():
        save(draw(split), folder / "figures", f"figure-{number}-{name}")
    save(figures.figure_3(split, facts["spikes"]), folder / "figures", f"figure-3-{name}")
    return facts


def draw_small(folder: Path) -> Facts:
    """Draws the figure on few training images; returns its numbers."""
    small = load_small(folder / "runs")
    save(figures.figure_small(small), folder / "figures", "figure-small")
    return small_facts(small)


def report(folder: Path, derivation: Path) -> Path:
    """Writes the report on the finished runs in ``folder/runs``; returns the page's path."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        splits = [pool.submit(draw_split, folder, name) for name in SPLITS]
        small = draw_small(folder)
        facts = {name: split.result() for name, split in zip(SPLITS, splits, strict=True)}

    rows = numbers(facts["report"], facts["course"], small)
    replace_file(folder / "numbers.csv", as_csv(rows).encode())
    text = page(folder / "figures", facts, small, rows, render_file(derivation), listings(derivation))
    replace_file(folder / "index.html", text.encode())
    return folder / "index.html"


def main() -> None:
    started = time.monotonic()
    print(f"Training what is not yet in {FOLDER / 'runs'}: minutes at first, seconds later", flush=True)
    try:
        perform_all(FOLDER / "runs")
    except CommandFailed as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; finished runs are kept for the next call")
    print(f"{report(FOLDER, DERIVATION)}: written after {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    with standard_streams():
        main()
