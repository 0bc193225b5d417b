import re
from pathlib import Path

from report.derivation import render, render_file


def test_mathematics_becomes_mathml():
    html = render("Let $x_i$ be\n\n$$\\frac{a}{b}$$\n")
    assert html.count("<math") == 2
    assert 'display="block"' in html
    assert "<mfrac>" in html
    assert "$" not in html


def test_code_keeps_its_dollars():
    html = render("`$HOME` costs 5$ or 6$.\n\n```\necho $a$\n```\n")
    assert "<code>$HOME</code>" in html
    assert "echo $a$" in html
    assert "<math" not in html


def test_a_bar_in_a_formula_does_not_split_its_table_cell():
    html = render("| a | b |\n|---|---|\n| $|x|$ | $y$ |\n")
    assert html.count("<td>") == 2
    assert '<div class="scroll"><table>' in html


def test_links_within_the_text_work_and_those_to_files_are_dropped():
    html = render("# What is it?\n\n[there](#what-is-it) [code](../src/x.py#L3) [web](https://example.org/)")
    assert '<h2 id="derivation-what-is-it">' in html
    assert 'href="#derivation-what-is-it"' in html
    assert "x.py" not in html
    assert ">web</a>" in html


def test_a_function_name_stands_apart_from_its_argument():
    assert re.search(r"<mi>ln</mi><mspace[^>]*/><msub>", render(r"$\ln p_n$"))
    assert "<mspace" not in render(r"$\ln(1 - p)$")


def test_the_projects_own_derivation():
    html = render_file(Path("docs/derivation.md"))
    assert html.count("<math") > 50
    assert not re.search(r"\\[a-z]+|mathematics\d", re.sub(r"<code>.*?</code>", "", html, flags=re.DOTALL))
    targets = set(re.findall(r'href="#([^"]+)"', html))
    assert targets <= set(re.findall(r'id="([^"]+)"', html))
