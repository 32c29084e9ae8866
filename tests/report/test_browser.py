"""The page in a real browser: nothing loaded, nothing wrong, values under the pointer, table, phone, print."""

from dataclasses import replace

import pytest

from modularity.report import render_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def content(content):
    """Fewer layers of experts, so that the page opens faster."""
    return replace(content, expert_maps=content.expert_maps[5:8])


@pytest.fixture(scope="module")
def address(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(content), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def tip_at(tip_over):
    """The tooltip after pointing at a place of a figure's drawing, given in its own units."""
    return lambda page, figure, x, y: tip_over(page, page.locator(f"figure#figure-{figure} .wide svg"), x, y)


def edges(page, figure, name):
    return [float(v) for v in page.locator(f"figure#figure-{figure} .wide svg").get_attribute(f"data-{name}").split()]


CELLS = (
    ("heatmap-functions", 1, 3),
    ("heatmap-subfunctions", 4, 5),
    ("overlap-functions", 0, 2),
    ("overlap-subfunctions", 1, 7),
)


def test_value_under_the_pointer_of_every_matrix(open_page, tip_at, content):
    page = open_page(height=1400)
    for figure, row, column in CELLS:
        xs, ys = edges(page, figure, "x"), edges(page, figure, "y")
        shown = tip_at(page, figure, xs[column] + 3, ys[row] + 3)
        index = int(figure.endswith("subfunctions"))
        heatmap, matrix = content.heatmaps[index], content.overlaps[index]
        if figure.startswith("heatmap"):
            value = f"{heatmap.value_YL[row, column]:.2f}"
            assert shown.startswith(
                f"{heatmap.row_names[row]} · layer {column}\nnormalised AP on held-out examples: {value}"
            )
        else:
            assert shown.startswith(f"{matrix.names[row]} × {matrix.names[column]}\n")
            assert f"{matrix.value_SS[row, column]:.3g}" in shown
            assert "times chance" in shown


def test_value_under_the_pointer_of_the_experts_of_a_chosen_layer(open_page, tip_at, content):
    page = open_page(height=1400)
    page.get_by_role("button", name="7", exact=True).click()
    assert page.locator("figure[data-layer]:visible").get_attribute("id") == "figure-experts-layer-7"
    xs, ys = edges(page, "experts-layer-7", "x"), edges(page, "experts-layer-7", "y")
    title, of_top = tip_at(page, "experts-layer-7", xs[0] + 3, ys[2] + 3).split("\n")[:2]
    expert = int(title.removeprefix("bat · expert "))
    assert of_top == f"of the top 30 neurons: {content.expert_maps[2].count_SE[2, expert]:g}"


POINTS = (
    ("predictivity", 5, "semantic · layer 5"),
    ("experts", 0, "semantic · layer 0"),
    ("sensitivity", 1, "semantic · top 1.0 %"),
)


def test_value_under_the_pointer_of_every_line_plot(open_page, tip_at):
    page = open_page()
    for figure, index, words in POINTS:
        points = page.locator(f"figure#figure-{figure} .wide svg").get_attribute("data-points").split()
        shown = tip_at(page, figure, *map(float, points[index].split(",")))
        assert shown.startswith(words)
        assert any(character.isdigit() for character in shown.split("\n")[1])


def test_tooltips_by_keyboard_and_by_tap(open_page):
    page = open_page()
    drawing = page.locator("figure#figure-heatmap-functions .wide svg")
    page.locator("figure#figure-predictivity summary").focus()
    page.keyboard.press("Tab")
    assert page.locator("#tip").inner_text().startswith("semantic · layer 0")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text().startswith("knowledge · layer 1")
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    assert drawing.evaluate("node => node === document.activeElement")
    phone = open_page(width=390, height=844, has_touch=True, is_mobile=True)
    drawing = phone.locator("figure#figure-heatmap-functions .narrow svg")
    drawing.scroll_into_view_if_needed()
    drawing.tap(position={"x": 150, "y": 20})
    assert phone.locator("#tip").is_visible()


def column(page, number):
    return page.locator(f"tbody:not(.out) .row > :nth-child({number})").evaluate_all(
        "cells => cells.map(c => c.dataset.value)"
    )


def test_table_sorts_filters_and_opens(open_page, content):
    page = open_page()
    table = page.locator("table.neurons")
    assert not page.locator(".detail").first.is_visible()
    page.get_by_role("button", name="Examples of neuron").first.click()
    first = content.neurons[0]
    assert page.locator(".detail").first.is_visible()
    assert first.highest[0].text in page.locator(".detail").first.inner_text()
    assert page.locator(".detail mark").first.inner_text() == "bank"
    table.get_by_role("button", name="q", exact=True).click()
    values = [float(value) for value in column(page, 8)]
    assert values == sorted(values)
    table.get_by_role("button", name="q", exact=True).click()
    assert [float(value) for value in column(page, 8)] == sorted(values, reverse=True)
    assert table.locator("th[aria-sort]").count() == 1
    page.locator("select[name=function]").select_option("task")
    assert set(column(page, 2)) == {"task"}
    assert page.locator("output").inner_text() == f"{sum(n.function == 'task' for n in content.neurons)} of 40 shown"
    page.locator("input[name=search]").fill("paraphrase")
    assert set(column(page, 3)) == {"paraphrase"}


def test_no_sideways_scrolling_on_a_phone(open_page, tmp_path):
    page = open_page(width=390, height=844, device_scale_factor=2)
    page.get_by_role("button", name="Examples of neuron").first.click()
    page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not page.locator(".wide svg").first.is_visible()
    page.screenshot(path=tmp_path / "phone.png")


def test_print_shows_everything_and_no_controls(open_page, tmp_path):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("figure[data-layer]:visible").count() == 3
    assert page.locator(".detail:visible").count() == 40
    for controls in ("nav", ".controls", ".layer-picker", ".values"):
        assert not page.locator(controls).first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(page.pdf(format="A4")) > 50_000


def test_dark_scheme_changes_paper_and_ink(open_page, tmp_path):
    page = open_page(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.screenshot(path=tmp_path / "dark.png", full_page=True)
    assert (tmp_path / "dark.png").stat().st_size > 100_000


def test_nothing_in_the_data_can_run(browser, nasty_content, tmp_path):
    path = tmp_path / "nasty.html"
    path.write_text(render_report(nasty_content), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.locator("figure svg:visible").first.hover()
    assert page.evaluate("window.hacked") is None
    assert page.title().startswith("</script><script>")
    page.close()
