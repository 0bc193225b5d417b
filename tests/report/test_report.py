import csv
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report.__main__ import report


class Page(HTMLParser):
    """Gathers what the tests look at."""

    VOID = ("meta", "link", "img", "br", "mspace")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.words[self.open[-1]] = self.words.get(self.open[-1], "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(finished: Path) -> Path:
    return report(finished, Path("docs/derivation.md")).parent


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_every_figure_is_there_as_png_and_svg(folder):
    names = {f"figure-{n}-{s}" for n in ("1", "2", "3", "4", "5", "6", "7", "8", "gap") for s in ("report", "course")}
    names |= {"figure-small"}
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{n}.{end}" for n in names for end in ("png", "svg")
    }


def test_the_page_needs_nothing_else(page):
    assert page.open == []
    assert not page.all("script")
    assert not [link for link in page.all("link") if not link["href"].startswith("data:")]
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.all("img"))
    assert "@import" not in page.words["style"]
    assert "url(" not in page.words["style"]


def test_the_page_has_all_figures_with_texts_a_title_and_a_language(page):
    images = page.all("img")
    assert len(images) == 20  # 9 figures on 2 splits, the one with little data, and one of them again on top
    assert all(len(image["alt"]) > 40 for image in images)
    assert page.all("html")[0]["lang"] == "en"
    assert page.words["title"] == "Handgrad: a course report, run again"


def test_links_lead_somewhere(page):
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")} <= names
    assert {f"task-{task}" for task in ("2d", "2e", "3d", "4a", "4b", "4c", "4d", "4e")} <= names


def test_the_table_of_numbers(folder):
    with open(folder / "numbers.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["figure_or_task", "quantity", "split", "seed", "ours", "note"]
    found = {(row["quantity"], row["split"]): row for row in rows}
    assert len(found) == len(rows)
    stop = found["updates at the early stop", "report"]
    assert (stop["seed"], stop["ours"]) == ("545", "240")
    assert found["global step of the early stop", "report"]["seed"] == "15"
    assert found["updates after which the unshuffled accuracy drops", "course"]["ours"].startswith("36 60 84")
    assert found["‖w‖, l2 = 2", "report"]["ours"] == "0.6667"
    assert found["final validation loss, 100 training images, l2 = 0.02", "course"]["ours"] == "0.3300"
