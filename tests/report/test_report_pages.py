"""The report as a browser shows it on a phone and a desk, and prints it."""

import re

import pytest
from report_pages import A4_HEIGHT, BROKEN_WORDS, MARGIN, page_of, printed

from fnostab.report.documents import to_html

STUDIES = {
    "2 arms": {"arms": 2},
    "4 arms": {"arms": 4},
    "7 arms": {"arms": 7},
    "stress": {"arms": 4, "knob": (1, 3, 9)},
}
ROWS = """[...document.querySelectorAll('.pictures')].map(grid => Object.values([...grid.children].reduce(
    (rows, panel) => { const y = panel.offsetTop; rows[y] = (rows[y] || 0) + 1; return rows; }, {})))"""
LINES = """cells => cells.map(cell => {
    const text = document.createRange(); text.selectNodeContents(cell); return text.getClientRects().length; })"""
LINES_OF_SHORT_NAMES = LINES.replace("cells.", "cells.filter(cell => cell.innerText && cell.innerText.length < 9).")


@pytest.fixture(scope="module", params=STUDIES)
def report(request, browser, png, tmp_path_factory):
    """Page of a report, at any width."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(to_html(page_of(png, **STUDIES[request.param])))
    page = browser.new_page()
    page.goto(path.as_uri())
    yield page
    page.close()


@pytest.mark.parametrize("width", [390, 800, 900, 1400])
def test_no_width_scrolls_sideways(report, width):
    report.set_viewport_size({"width": width, "height": 844})
    assert report.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [800, 1400])
def test_no_panel_stands_alone_beside_others(report, width):
    report.set_viewport_size({"width": width, "height": 844})
    for rows in report.evaluate(ROWS):
        assert sum(rows) == 1 or 1 not in rows, rows


@pytest.mark.parametrize("width", [900, 1400])
def test_names_of_arms_are_not_broken(report, width):
    report.set_viewport_size({"width": width, "height": 844})
    lines = report.locator("table.cards :is(td, th):first-child").evaluate_all(LINES_OF_SHORT_NAMES)
    assert set(lines) == {1}


def test_a_drawing_is_at_most_half_as_large_again_as_it_was_made(report):
    report.set_viewport_size({"width": 1400, "height": 844})
    scales = report.locator("figure svg").evaluate_all("all => all.map(each => each.getScreenCTM().a)")
    assert max(scales) <= 1.5 * 96 / 72 + 0.01  # pixels a point


def test_on_a_phone_panels_have_the_whole_width(report):
    report.set_viewport_size({"width": 390, "height": 844})
    assert {n for rows in report.evaluate(ROWS) for n in rows} == {1}
    assert min(report.locator(".pictures figure").evaluate_all("all => all.map(each => each.offsetWidth)")) > 340


def test_on_a_phone_drawings_of_many_panels_keep_a_size_that_can_be_read(report):
    report.set_viewport_size({"width": 390, "height": 844})
    scales = report.locator(".pictures.wide svg").evaluate_all("all => all.map(each => each.getScreenCTM().a)")
    assert min(scales) > 0.66 * 96 / 72  # pixels a point


def test_on_a_phone_numbers_and_headings_of_the_table_of_trials_are_not_broken(report):
    report.set_viewport_size({"width": 390, "height": 844})
    report.evaluate(
        "document.querySelectorAll('table.trials tbody td:nth-child(4)').forEach(td => td.textContent = '0.09342')"
    )
    lines = report.locator("table.trials :is(tbody td:is(:nth-child(4), .outcome), th:nth-child(2))").evaluate_all(
        LINES
    )
    assert set(lines) == {1}
    words = report.locator("table.trials th").evaluate_all(BROKEN_WORDS)
    assert words == []


def test_links_lead_to_runs_and_places_that_are_there(report):
    hrefs = report.locator("a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    within = {href for href in hrefs if href.startswith("#")}
    assert all(report.locator(f"[id='{href[1:]}']").count() == 1 for href in within)
    runs = set(hrefs) - within
    assert runs
    assert all(re.search(r"/#/experiments/1/runs/\w{32}\?workflowType=machine_learning$", href) for href in runs)
    picture = report.locator(".photograph").first
    picture.locator("a").first.click()
    picture.get_by_text("close").click()
    assert report.url.endswith("exemplary")


def test_a_fifth_of_the_first_page_at_most_is_empty(report):
    texts, _ = next(printed(report))
    assert max(texts) > MARGIN + 0.8 * (A4_HEIGHT - 2 * MARGIN)


def test_no_page_parts_a_picture_from_its_caption_or_its_heading(report):
    for texts, pictures in printed(report):
        assert all(any(0 < text - picture < 30 for text in texts) for picture in pictures)
        assert not pictures or min(texts) < min(pictures)
