"""Puts figures, answers and numbers together to one HTML file that needs nothing else."""

import base64
import html
from pathlib import Path
from string import Template
from typing import NamedTuple

from report.answers import Answer
from report.numbers import Number

HERE = Path(__file__).parent


class Picture(NamedTuple):
    """A figure of the page: one image, or one per split side by side."""

    heading: str
    caption: str
    images: list[tuple[str, str, str]]  # file name without suffix, label, alternative text


class Section(NamedTuple):
    """A part of the page under a heading: pictures, each followed by the answers beside it."""

    anchor: str
    heading: str
    text: str
    parts: list[Picture | Answer]


def page(
    folder: Path,
    hero: dict[str, str | Picture],
    sections: list[Section],
    rows: list[Number],
    made: str,
    derivation: str,
) -> str:
    """Returns the whole page; the figures are read from ``folder`` and embedded.

    Args:
        folder: has the figures as SVG.
        hero: ``lead``, ``tiles`` (list items) and ``picture`` of the first screen.
        sections: the parts with figures and answers.
        rows: the table of all numbers.
        made: how the report came about, HTML.
        derivation: HTML.
    """
    template = Template((HERE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        **{**hero, "picture": picture_html(folder, hero["picture"])},
        contents="".join(f'<li><a href="#{s.anchor}">{s.heading}</a></li>' for s in sections),
        sections="".join(section_html(folder, section) for section in sections),
        numbers=numbers_html(rows),
        made=made,
        derivation=derivation,
    )


def section_html(folder: Path, section: Section) -> str:
    parts = [answer_html(part) if isinstance(part, Answer) else picture_html(folder, part) for part in section.parts]
    return f'<section id="{section.anchor}"><h2>{section.heading}</h2>{section.text}{"".join(parts)}</section>'


def picture_html(folder: Path, picture: Picture) -> str:
    images = "".join(
        f"<div><span class='split'>{label}</span>{image_html(folder / f'{name}.svg', alt)}</div>"
        if label
        else f"<div>{image_html(folder / f'{name}.svg', alt)}</div>"
        for name, label, alt in picture.images
    )
    kind = "pair" if len(picture.images) > 1 else "wide" if picture.images[0][1] else "narrow"
    caption = f"<figcaption><b>{picture.heading}</b> {picture.caption}</figcaption>"
    return f'<figure><div class="{kind}">{images}</div>{caption}</figure>'


def image_html(path: Path, alt: str) -> str:
    """Returns an SVG file as an image that is part of the page; scripts and links in it do nothing."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{html.escape(alt)}">'


def answer_html(answer: Answer) -> str:
    paragraphs = "".join(text if text.startswith("<div") else f"<p>{text}</p>" for text in answer.right)
    return (
        f'<article class="answer" id="task-{answer.task}"><h3><span>{answer.task}</span> {answer.question}</h3>'
        f'<p class="seed"><b>The report said:</b> {answer.seed}</p><div class="right">{paragraphs}</div></article>'
    )


def numbers_html(rows: list[Number]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("Figure or task", "Quantity", "Split", "Report", "Ours", "Note"))
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    box = "<div class='scroll tall' tabindex='0' role='region' aria-label='Every number'>"
    return f"{box}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
