"""The page of a similarity study in a real browser: one value of each figure under the pointer; phone and dark."""

import base64
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from modularity.report.similarity_content import SimilarityContent
from modularity.report.similarity_explorers import explorers
from modularity.report.similarity_page import render_similarity

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def content(similarity_run):
    return SimilarityContent(similarity_run, "tiny")


@pytest.fixture(scope="module")
def address(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("similarity-page") / "report.html"
    path.write_text(render_similarity(content), encoding="utf-8")
    return path.as_uri()


def choose(page, figure, layer):
    page.locator(f"#figure-{figure} input[name=layer]").evaluate(
        "(node, value) => { node.value = value; node.dispatchEvent(new Event('input', { bubbles: true })); }", layer
    )


def test_a_value_of_the_gram_matrix_and_of_a_zoomed_one(open_page, tip_over, content):
    page = open_page(height=1400)
    figure = page.locator("#figure-gram")
    figure.locator("select[name=similarity]").select_option("cosine")
    choose(page, "gram", 1)
    assert figure.locator("output").inner_text() == "depth 1"
    similar = content.similarities(content.gram("texts", "encoder/residual"), "cosine")[1]
    canvas = figure.locator("canvas")
    step = (canvas.bounding_box()["width"] - 15) / 60
    row, column = 7, 33
    shown = tip_over(page, canvas, 15 + (column + 0.5) * step, 15 + (row + 0.5) * step).split("\n")
    texts, positions = content.texts, content.row_position
    assert shown[0] == f"{texts[row // 5]['text_id']} @ {positions[row]}"
    assert shown[1] == f"× {texts[column // 5]['text_id']} @ {positions[column]}"
    value = float(shown[2].removeprefix("cosine ").replace("−", "-"))
    assert value == pytest.approx(similar[row, column], abs=0.0051)
    figure.get_by_role("button", name="Zoom in").click()
    zoomed = (canvas.bounding_box()["width"] - 15) / 30
    again = tip_over(page, canvas, 15 + 0.5 * zoomed, 15 + 0.5 * zoomed).split("\n")
    assert again[0] != f"{texts[0]['text_id']} @ {positions[0]}"
    figure.get_by_role("button", name="Show the whole matrix").click()
    page.mouse.move(0, 0)
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text().startswith(f"{texts[0]['text_id']} @ 1")


def places(page, figure):
    text = page.locator(f"#figure-{figure} svg.plane").get_attribute("data-points")
    return [tuple(map(float, pair.split(","))) for pair in text.split(" ")]


def test_a_value_of_a_stream(open_page, tip_over, content):
    page = open_page(height=1400)
    number = page.locator("#figure-streams input[name=dimension]")
    number.fill("9")
    number.press("Enter")
    number.blur()
    values = content.streams[:, :, 9]
    index = int(np.argmax(values[:, 1])) * 3 + 1  # the highest line at depth 1: nothing lies above it
    x, y = places(page, "streams")[index]
    shown = tip_over(page, page.locator("#figure-streams svg.plane"), x, y - 2).split("\n")
    assert shown[0] == content.texts[index // 3]["text_id"]
    assert shown[1].endswith("depth 1")
    found = float(re.sub("−", "-", shown[2].removeprefix("dimension 9: ")))
    assert found == pytest.approx(float(values.max(axis=0)[1]), rel=0.01)
    number.fill("99")
    number.press("Enter")
    assert "not on this page" in page.locator("#figure-streams .explore-note").inner_text()


def test_a_point_of_the_projection(open_page, tip_over, content):
    page = open_page(height=1400)
    choose(page, "projection", 2)
    points, _ = content.projections("encoder/residual", "pca")[2]
    index = int(np.argmax(points[:, 0]))
    x, y = places(page, "projection")[index]
    shown = tip_over(page, page.locator("#figure-projection svg.plane"), x + 3, y).split("\n")
    at = [float(value.replace("−", "-")) for value in shown[2].strip("()").split(", ")]
    assert at == pytest.approx(points[index].tolist(), rel=0.02, abs=0.02)
    page.locator("#figure-projection select[name=method]").select_option(index=1)
    assert page.locator("#figure-projection .explore-note").inner_text() == ""


def test_values_of_the_drawn_figures(open_page, tip_over, content):
    page = open_page(height=1400)
    for name, words in (("scores", "residual stream · layer 0"), ("dimensions", "residual stream · layer 0")):
        drawing = page.locator(f"#figure-{name} .wide svg")
        points = [map(float, point.split(",")) for point in drawing.get_attribute("data-points").split(" ")]
        tips = [tip_over(page, drawing, x, y) for x, y in points]
        assert any(tip.startswith(words) for tip in tips)
        assert name != "scores" or any(tip.startswith("random tokens · layer 0") for tip in tips)
    for name, table, kind in (("heads-centred", "category_scores", None), ("activity-expert", "activity", "expert")):
        drawing = page.locator(f"#figure-{name} .wide svg")
        x, y = (float(drawing.get_attribute(f"data-{axis}").split(" ")[1 if axis == "x" else 0]) for axis in "xy")
        value = float(tip_over(page, drawing, x + 3, y + 3).split("\n")[1].rpartition(": ")[2].replace("−", "-"))
        rows = content.rows(table, data="texts", layer=0)
        if kind is None:
            (row,) = (r for r in rows if r["head"] == 1 and r["measure"] == "centred")
            assert value == pytest.approx(row["score"], abs=0.0006)
        else:
            wanted = (kind, 1, content.categories[0])
            (row,) = (r for r in rows if (r["kind"], r["component"], r["category"]) == wanted)
            assert value == pytest.approx(row["effect"], abs=0.006)


def test_phone_and_dark(open_page, content):
    phone = open_page(width=390, height=844)
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    assert phone.locator("#figure-gram canvas").bounding_box()["width"] <= 350
    dark = open_page(color_scheme="dark")
    pixel = "node => [...node.getContext('2d').getImageData(node.width - 3, 40 * devicePixelRatio, 1, 1).data]"
    found = dark.locator("#figure-gram canvas").evaluate(pixel)
    ramp = explorers(content).gram["ramps"]["dark"]
    assert "#" + "".join(f"{value:02x}" for value in found[:3]) in ramp


def test_the_page_holds_base64_of_whole_matrices(content):
    packed = explorers(content).gram["sets"][0]["measures"]["cosine"][0]
    assert len(base64.b64decode(packed)) == 60 * 61 // 2
