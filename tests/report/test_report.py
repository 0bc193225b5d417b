import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from report.__main__ import report
from report.facts import Facts, small_facts, split_facts
from report.numbers import Number, own_bound
from report.page import environment, listed, page, signed

SCRIPT = """<script>alert("'")</script> & more"""


class Page(HTMLParser):
    """Gathers what the tests look at."""

    VOID = ("meta", "link", "img", "source", "br", "mspace")

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
def found(folder: Path) -> Page:
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_every_figure_is_there_as_png_and_svg(folder):
    names = {f"figure-{n}-{s}" for n in ("1", "2", "3", "4", "5", "6", "7", "8", "gap") for s in ("report", "course")}
    names |= {"figure-small", "figure-6-narrow-report", "figure-6-narrow-course"}
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{n}.{end}" for n in names for end in ("png", "svg")
    }


def test_the_page_needs_nothing_else(found):
    assert found.open == []
    assert not found.all("script")
    assert not [link for link in found.all("link") if not link["href"].startswith("data:")]
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in found.all("img"))
    assert "@import" not in found.words["style"]
    assert "url(" not in found.words["style"]


def test_the_page_has_all_figures_with_texts_a_title_and_a_language(found):
    images = found.all("img")
    assert len(images) == 20  # 9 figures on 2 splits, the one with little data, and one of them again on top
    assert all(len(image["alt"]) > 40 for image in images)
    assert found.all("html")[0]["lang"] == "en"
    assert found.words["title"] == "Handgrad: a course report, run again"
    assert len(found.all("source")) == 2, "figure 6 for narrow pages, on both splits"


def test_links_lead_somewhere(found):
    names = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    assert {link["href"][1:] for link in found.all("a") if link["href"].startswith("#")} <= names
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
    assert found["objective after the last update, l2 = 0.2", "course"]["ours"] == "0.777778"
    assert found["objective at the optimum, l2 = 0.2", "course"]["ours"] == "0.727778"
    left = found["share of the objective that SGD leaves, l2 = 0.2", "course"]
    assert (left["ours"], left["note"]) == ("6.43%", "SGD's own last_gap: 0.25")
    assert found["validation loss at the optimum, l2 = 0.02", "report"]["ours"] == "0.2800"
    assert found["validation accuracy at the optimum, l2 = 0.02", "report"]["ours"] == "0.8700"
    assert not {key for key in found if "the optimum, l2 = 0" in key[0] and key[0].endswith(" = 0")}
    assert found["final validation loss, 100 training images, l2 = 0.02", "course"]["ours"] == "0.3300"


def test_a_bound_above_the_objective_says_nothing():
    assert own_bound(None) == ""
    assert own_bound(0.16) == "SGD's own last_gap: 0.16"
    assert own_bound(1.0) == "SGD's own last_gap: 1; 1 says nothing"


def test_answer_4d_says_what_sgd_leaves(folder):
    text = " ".join(re.sub(r"<[^>]*>", "", (folder / "index.html").read_text(encoding="utf-8")).split())
    said = "leave on the table is, of the objective, 16.3% at l2 = 0.002, 13.9% at l2 = 0.02, 6.4% at l2 = 0.2."
    assert said in text
    assert "What 30 epochs of SGD" in text
    assert "At l2 = 0.002 the validation loss ends at 0.312 (without a penalty at 0.310)" in text
    assert "while the optimum has 0.262" in text
    assert "0.870, 0.870, 0.870 for l2 = 0.002, 0.02, 0.2." in text
    assert "course 0.2 0.77778 0.72778 6.43% 0.5100 0.4600" in text
    assert "each proven to lie at most 1e-06 of its value above the minimum" in text


@pytest.fixture
def facts(splits) -> dict[str, Facts]:
    return {name: split_facts(split) for name, split in splits.items()}


def test_facts_and_numbers_are_escaped(folder, facts, small):
    row = Number("data", SCRIPT, "report", "", "")
    text = page(folder / "figures", facts, small_facts(small) | {"images": SCRIPT}, [row], Markup("<h2>D</h2>"))
    assert "<script>" not in text
    assert "<h2>D</h2>" in text
    assert SCRIPT in Page(text).words["td"]
    assert any(SCRIPT in image["alt"] for image in Page(text).all("img"))


def test_a_caption_is_escaped(folder):
    call = """{% from "parts.html" import small_figure %}
    {% call small_figure("figure-small", "Figure", caption, "course") %}{{ caption }}{% endcall %}"""
    found = Page(environment(folder / "figures").from_string(call).render(caption=SCRIPT))
    assert not found.all("script")
    assert found.words["figcaption"].strip() == found.all("img")[0]["alt"] == SCRIPT


@pytest.mark.parametrize("name", ["stop_steps", "stop_best_loss", "shuffled_stops"], ids=["plain", "format", "list"])
def test_a_missing_fact_is_an_error(name, folder, facts, small):
    del facts["course"][name]
    with pytest.raises(UndefinedError, match=name):
        page(folder / "figures", facts, small_facts(small), [], Markup())


def test_a_missing_fact_of_one_l2_is_an_error(folder, facts, small):
    del facts["report"]["l2"][1]["norm"]
    with pytest.raises(UndefinedError, match="norm"):
        page(folder / "figures", facts, small_facts(small), [], Markup())


def test_a_missing_fact_of_an_optimum_is_an_error(folder, facts, small):
    del facts["course"]["l2"][1]["optimum"]["left"]
    with pytest.raises(UndefinedError, match="left"):
        page(folder / "figures", facts, small_facts(small), [], Markup())


def test_signs_and_lists_are_written_out():
    assert (signed(-0.5), signed(0.5)) == ("−0.5000", "+0.5000")
    assert (listed([1]), listed([1, 2, 3])) == ("1", "1, 2 and 3")
