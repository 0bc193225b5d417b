"""Every link from the derivation into the code names the line that holds the code quoted in it."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "derivation.md"
LINK = re.compile(r"\[`(?P<name>[\w.]+): (?P<code>[^`]+)`\]\((?P<path>\.\./src/[\w./]+)#L(?P<line>\d+)\)")


def test_links_lead_to_the_code_they_quote():
    links = list(LINK.finditer(PAGE.read_text(encoding="utf-8")))
    assert len(links) >= 25
    for link in links:
        file = PAGE.parent / link["path"]
        assert file.name == link["name"]
        line = file.read_text(encoding="utf-8").splitlines()[int(link["line"]) - 1]
        assert link["code"] in line, f"{link['path']}#L{link['line']} is now {line.strip()!r}"


def test_no_link_into_the_code_goes_unchecked():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("](../") == len(LINK.findall(text))


def test_display_formulas_are_single_lines():
    """GitHub and latex2mathml both read a formula whose two $$ stand on one line."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        assert line.count("$$") in (0, 2), line
        assert line.count("$") % 2 == 0, line
