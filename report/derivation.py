"""Renders GitHub-flavoured Markdown with LaTeX as HTML with MathML, which browsers show without any script."""

import itertools
import re
from pathlib import Path

import latex2mathml.converter
import markdown
from markupsafe import Markup

EXTENSIONS = ["tables", "fenced_code", "sane_lists", "toc"]
# In the order in which they are looked for: what lies in code is not mathematics.
TOKENS = re.compile(
    r"(?P<fence>^```.*?^```[ \t]*$)|(?P<code>(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|\$\$(?P<display>.+?)\$\$|\$(?P<inline>[^\s$](?:[^$\n]*(?:\n[^$\n]+)*?[^\s$])?)\$(?!\d)",
    re.DOTALL | re.MULTILINE,
)
FUNCTION = re.compile(r"<mi>(?:ln|log|exp)</mi>(?!<mo[^>]*>&#x00028;|</m)")
PRIME = re.compile(r"<msup>(<mi>\w</mi>)<mi>&#x02032;</mi></msup>")
CODE_LINK = re.compile(r'href="\.\./(?P<path>src/[\w./]+)#L(?P<line>\d+)"')
RELATIVE_LINK = re.compile(r'<a href="(?!https?:|#)[^"]*">(.*?)</a>', re.DOTALL)


def mathml(latex: str, display: bool) -> str:
    """Returns ``latex`` as MathML, with a thin space between a function's name and a bare argument.

    A formula on a line of its own is an element for each side of its equalities, so that a narrow page can break it
    before one. A prime is a letter beside its own: as the superscript it is read as, Chromium draws it as a speck.
    """
    sides = equalities(latex.strip()) if display else [latex.strip()]
    elements = [latex2mathml.converter.convert(side, display="block" if display else "inline") for side in sides]
    found = PRIME.sub(r"<mrow>\1<mtext>&#x02032;</mtext></mrow>", " ".join(elements))
    found = FUNCTION.sub(r'\g<0><mspace width="0.17em"/>', found)
    if not display:
        return found
    found = found.replace('display="block"', 'displaystyle="true"')
    return f'<span class="formula">{found}</span>'


def equalities(latex: str) -> list[str]:
    """Returns ``latex`` in parts, each of which begins with the equals sign that stands in no group or bracket."""
    parts, depth = [""], 0
    for token in re.findall(r"\\left\b|\\right\b|\\.|[^\\]", latex, re.DOTALL):
        depth += (token in ("{", "\\left")) - (token in ("}", "\\right"))
        if token == "=" and not depth:
            parts.append("")
        parts[-1] += token
    return [part.strip() for part in parts if part.strip()]


def render(text: str, level: int = 2, prefix: str = "derivation") -> str:
    """Returns Markdown ``text`` as HTML whose highest heading is ``h<level>``.

    Links to lines of code lead to the page's own listing of the file (see ``listings``). Links to other files of the
    project are dropped, their text stays: the page stands alone. Footholds within the text (``#...``) and links to the
    web stay.
    """
    formulas: list[str] = []

    def set_aside(match: re.Match) -> str:
        if match["display"] is None and match["inline"] is None:
            return match[0]
        display = match["display"] is not None
        formulas.append(mathml(match["display"] or match["inline"], display))
        return f"mathematics{len(formulas) - 1}x"

    text = TOKENS.sub(set_aside, text)
    configs = {"toc": {"baselevel": level, "slugify": lambda value, _: f"{prefix}-{slug(value)}"}}
    html = markdown.markdown(text, extensions=EXTENSIONS, extension_configs=configs)
    html = html.replace('href="#', f'href="#{prefix}-')
    html = CODE_LINK.sub(lambda link: f'href="#{foothold(link["path"], int(link["line"]))}"', html)
    html = RELATIVE_LINK.sub(r"\1", html)
    html = re.sub("<table>.*?</table>", stacked, html, flags=re.DOTALL)
    return re.sub(r"mathematics(\d+)x", lambda match: formulas[int(match[1])], html)


def stacked(table: re.Match) -> str:
    """Returns a table whose cells know their column's name, which stands beside them on a narrow page."""
    names = [re.sub("<[^>]*>", "", name) for name in re.findall("<th(?: [^>]*)?>(.*?)</th>", table[0], re.DOTALL)]
    column = itertools.cycle(names)
    cells = re.sub("<td(?=[ >])", lambda _: f'<td data-name="{next(column)}"', table[0])
    return cells.replace("<table>", '<div class="scroll"><table class="stacked">').replace("</table>", "</table></div>")


def foothold(path: str, line: int) -> str:
    """Returns the name of a line's foothold in the listing of the file ``path``."""
    return f"code-{Path(path).stem}-{line}"


def listings(page: Path) -> dict[str, list[str]]:
    """Returns the lines of each file whose code the Markdown file ``page`` links, by its path in the project."""
    links = re.findall(r"\]\(\.\./(src/[\w./]+)#L\d+\)", page.read_text(encoding="utf-8"))
    return {path: (page.parents[1] / path).read_text(encoding="utf-8").splitlines() for path in dict.fromkeys(links)}


def slug(heading: str) -> str:
    """Returns the name that GitHub gives a heading's foothold."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def render_file(path: Path) -> Markup:
    """Returns the Markdown file ``path``, which is one of the project's own, as HTML (see ``render``)."""
    return Markup(render(path.read_text(encoding="utf-8")))
