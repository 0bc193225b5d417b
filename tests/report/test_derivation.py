import re
from pathlib import Path

import pytest

from report.derivation import equalities, foothold, listings, render, render_file


def test_mathematics_becomes_mathml():
    html = render("Let $x_i$ be\n\n$$\\frac{a}{b}$$\n")
    assert html.count("<math") == 2
    assert html.count('displaystyle="true"') == html.count('<span class="formula">') == 1
    assert "<mfrac>" in html
    assert "$" not in html


def test_code_keeps_its_dollars():
    html = render("`$HOME` costs 5$ or 6$.\n\n```\necho $a$\n```\n")
    assert "<code>$HOME</code>" in html
    assert "echo $a$" in html
    assert "<math" not in html


def test_a_bar_in_a_formula_does_not_split_its_table_cell():
    html = render("| a | b |\n|---|---|\n| $|x|$ | $y$ |\n")
    assert html.count("<td ") == 2
    assert '<div class="scroll"><table class="stacked">' in html


def test_a_cell_knows_its_columns_name():
    html = render("| use | `f` |\n|---|---|\n| a | b |\n| c | d |\n")
    assert re.findall(r'<td data-name="(.*?)">(.*?)</td>', html) == [("use", "a"), ("f", "b"), ("use", "c"), ("f", "d")]


@pytest.mark.parametrize(
    ("latex", "sides"),
    [
        (r"a = \frac{b = c}{d} = e", ["a", r"= \frac{b = c}{d}", "= e"]),
        (r"\left( a = b \right) + c", [r"\left( a = b \right) + c"]),
        (r"\{ a \} = \sum_{k = 1} \leq b", [r"\{ a \}", r"= \sum_{k = 1} \leq b"]),
    ],
)
def test_a_formula_may_break_before_each_equality(latex, sides):
    assert equalities(latex) == sides
    assert render(f"$${latex}$$").count("<math") == len(sides)


@pytest.mark.parametrize("formula", ["$k'$", "$$\\sum_{k'} z_{lk'n}$$"])
def test_a_prime_is_no_superscript(formula):
    html = render(formula)
    assert "<mtext>&#x02032;</mtext>" in html
    assert "<msup>" not in html


def test_links_within_the_text_work_those_to_code_lead_to_its_listing_and_those_to_files_are_dropped():
    links = "[there](#what-is-it) [code](../src/x/y.py#L3) [file](architecture.md) [web](https://example.org/)"
    html = render(f"# What is it?\n\n{links}")
    assert '<h2 id="derivation-what-is-it">' in html
    assert 'href="#derivation-what-is-it"' in html
    assert f'href="#{foothold("src/x/y.py", 3)}"' in html
    assert "architecture.md" not in html
    assert ">web</a>" in html


def test_a_function_name_stands_apart_from_its_argument():
    assert re.search(r"<mi>ln</mi><mspace[^>]*/><msub>", render(r"$\ln p_n$"))
    assert "<mspace" not in render(r"$\ln(1 - p)$")


def test_the_projects_own_derivation():
    html = render_file(Path("docs/derivation.md"))
    assert html.count("<math") > 50
    assert not re.search(r"\\[a-z]+|mathematics\d", re.sub(r"<code>.*?</code>", "", html, flags=re.DOTALL))
    targets = set(re.findall(r'href="#([^"]+)"', html))
    code = listings(Path("docs/derivation.md"))
    lines = {foothold(path, number) for path, lines in code.items() for number in range(1, len(lines) + 1)}
    assert sum(map(len, code.values())) == len(lines), "no two files share a name"
    assert targets <= set(re.findall(r'id="([^"]+)"', html)) | lines
    assert targets & lines
