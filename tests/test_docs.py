"""What the pages say of files and functions is so."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
STOP = re.compile(r"^\d+\. \[`(?P<file>[\w./]+)`\]\((?P<link>[\w./]+)\) `(?P<name>\w+)`:", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


def walks() -> list[list[re.Match]]:
    """Returns the stops of each walk of the architecture's page."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    return [list(STOP.finditer(part)) for part in re.split(r"^From one ", text, flags=re.MULTILINE)[1:]]


def test_there_are_two_walks_of_at_most_eight_stops_and_no_file_comes_twice():
    assert len(walks()) == 2
    for stops in walks():
        files = [stop["file"] for stop in stops]
        assert 6 <= len(files) == len(set(files)) <= 8


@pytest.mark.parametrize("stop", [stop for walk in walks() for stop in walk], ids=lambda stop: stop["file"])
def test_each_stop_names_a_function_of_its_file(stop):
    assert stop["link"] == f"../{stop['file']}"
    text = (REPOSITORY / stop["file"]).read_text(encoding="utf-8")
    assert re.search(rf"^ *def {stop['name']}\(", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
