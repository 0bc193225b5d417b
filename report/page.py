"""Puts figures, facts and numbers together to one HTML file that needs nothing else.

What the page says stands in ``templates/``: the questions of the assignment beside their figures, each with what the
seed said, in our words, and what is right. Every number there comes from the runs: ``report``, ``course`` and ``small``
are the facts of ``facts.py``.
"""

import base64
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from report.derivation import foothold
from report.facts import Facts, standard_error
from report.numbers import Number, over_seeds
from report.runs import COMMANDS

TEMPLATES = Path(__file__).parent / "templates"


def page(
    figures: Path,
    facts: dict[str, Facts],
    small: Facts,
    rows: list[Number],
    derivation: Markup,
    code: dict[str, list[str]] | None = None,
) -> str:
    """Returns the whole page.

    Args:
        figures: the folder with the figures as SVG, which become part of the page.
        facts: the facts of the splits ``report`` and ``course``.
        small: the facts of the runs on few training images.
        rows: the table of all numbers.
        derivation: HTML.
        code: the lines of the files that it links, by path.

    Raises:
        jinja2.UndefinedError: a fact is missing.
    """
    template = environment(figures).get_template("page.html")
    given = {"rows": rows, "derivation": derivation, "code": code or {}, "commands": COMMANDS}
    return template.render(**facts, small=small, **given)


def environment(figures: Path) -> Environment:
    """Returns what the templates are rendered with: text is escaped, and a missing fact is an error."""
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    made.filters.update(number=number, signed=signed, listed=listed)
    made.globals.update(
        foothold=foothold,
        over_seeds=over_seeds,
        standard_error=standard_error,
        data_uri=lambda name: data_uri(figures / f"{name}.svg"),
    )
    return made


def data_uri(path: Path) -> str:
    """Returns an SVG file as the source of an image; scripts and links in it do nothing."""
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def number(value: float, spec: str) -> str:
    """Returns a number in Python's format ``spec``; ``float`` is what names a missing fact."""
    return format(float(value), spec)


def signed(value: float) -> str:
    """Returns a difference as text, with its sign."""
    return number(value, "+.4f").replace("-", "−")


def listed(values: Iterable[int]) -> str:
    """Returns numbers as ``1, 2 and 3``."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last
