"""The report's page in a real browser."""

import pytest

from report.__main__ import DERIVATION, report
from tests.test_browser import errors, needs_chromium

FIGURES = """
return [...document.querySelectorAll('img')].map((image) => [image.alt, image.complete && image.naturalWidth]);
"""
CUT = """
const wide = (e) => e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth;
return [...document.querySelectorAll('.formula, math, table, td, .scroll, img')].filter(wide).map((e) => e.outerHTML);
"""


@needs_chromium
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_shows_every_figure_and_logs_no_error(width, finished, browser):
    page = report(finished, DERIVATION)
    browser.set_window_size(width, 1000)
    browser.get(page.as_uri())
    figures = browser.execute_script(FIGURES)
    assert len(figures) >= 16, "eight figures on two splits"
    assert all(alt and drawn for alt, drawn in figures)
    assert browser.execute_script("return document.querySelectorAll('math').length") > 20
    assert browser.execute_script("return document.querySelectorAll('table tr').length") > 20
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(overflow) <= 0
    assert not browser.execute_script(CUT), "what must be scrolled sideways to be seen"
    assert not errors(browser)
