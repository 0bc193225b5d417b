"""Renders GitHub-flavoured Markdown with LaTeX as HTML with MathML, which browsers show without any script."""

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
RELATIVE_LINK = re.compile(r'<a href="(?!https?:|#)[^"]*">(.*?)</a>', re.DOTALL)


def mathml(latex: str, display: bool) -> str:
    """Returns ``latex`` as a MathML element, with a thin space between a function's name and a bare argument."""
    element = latex2mathml.converter.convert(latex.strip(), display="block" if display else "inline")
    return FUNCTION.sub(r'\g<0><mspace width="0.17em"/>', element)


def render(text: str, level: int = 2, prefix: str = "derivation") -> str:
    """Returns Markdown ``text`` as HTML whose highest heading is ``h<level>``.

    Links to other files of the project are dropped, their text stays: the page stands alone. Footholds within the text
    (``#...``) and links to the web stay.
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
    html = RELATIVE_LINK.sub(r"\1", html)
    html = html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    return re.sub(r"mathematics(\d+)x", lambda match: formulas[int(match[1])], html)


def slug(heading: str) -> str:
    """Returns the name that GitHub gives a heading's foothold."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def render_file(path: Path) -> Markup:
    """Returns the Markdown file ``path``, which is one of the project's own, as HTML (see ``render``)."""
    return Markup(render(path.read_text(encoding="utf-8")))
