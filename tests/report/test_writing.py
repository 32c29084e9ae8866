"""The report of a run as files, and its page in a browser: every figure shows the values of the tables."""

import shutil
from xml.etree import ElementTree

import pytest

from modularity.errors import InputError, StoreError
from modularity.report import write_report
from modularity.report.wording import significant
from modularity.types import ALL_LAYERS


def test_page_into_the_run_and_to_a_file(tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.uri, folder)
    assert write_report(str(folder)) == [f"{folder}/report.html"]
    assert write_report(str(folder), out=tmp_path / "a" / "b.html") == [str(tmp_path / "a" / "b.html")]
    assert (folder / "report.html").read_text() == (tmp_path / "a" / "b.html").read_text()


def test_figures_are_valid_svg_files(tiny_run, tmp_path):
    written = write_report(tiny_run.uri, out=tmp_path / "a.html", figures_folder=tmp_path / "figures")
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert [f"{tmp_path}/figures/{name}" for name in names] == sorted(written[1:])
    assert {"predictivity.svg", "experts-layer-0.svg", "sensitivity.svg", "overlap-functions.svg"} <= set(names)
    for path in written[1:]:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")  # written here


def test_a_place_that_cannot_be_written_is_named(tiny_run, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file/a\.html' cannot be written \(.*\); choose another place"):
        write_report(tiny_run.uri, out=tmp_path / "file" / "a.html")


def test_no_run(tmp_path):
    with pytest.raises(StoreError, match="there is no run at"):
        write_report(str(tmp_path / "nowhere"))


@pytest.fixture(scope="module")
def address(tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(tiny_run.uri, out=path)
    return path.as_uri()


def row_of(run, table, **wanted):
    [row] = [r for r in run.table(table).to_pylist() if all(r[name] == value for name, value in wanted.items())]
    return row


@pytest.mark.browser
def test_every_figure_shows_the_values_of_the_tables(open_page, tip_over, tiny_run):
    def value(table, column="normalised_evaluation", form=".2f", **wanted):
        return format(row_of(tiny_run, table, **wanted)[column], form)

    of_words = {"function": "words", "partition": "balanced"}
    shown_at = {**of_words, "top_fraction": 0.125, "layer": 0}
    count = value("expert_counts", "count", "g", subfunction="river", expert=1, **shown_at)
    proportion = row_of(tiny_run, "modularity_tests", figure="proportion", null="permuted labels", **shown_at)[
        "observed"
    ]
    overall = row_of(
        tiny_run, "modularity_tests", figure="proportion", **of_words, top_fraction=0.05, layer=ALL_LAYERS
    )["observed"]
    whole = row_of(tiny_run, "function_modularity", figure="proportion", null="permuted labels", **of_words, layer=0)[
        "observed"
    ]
    first = row_of(tiny_run, "partition_agreement", layer=1, partition_a="balanced", partition_b="random")
    agreed = f"adjusted Rand index: {significant(first['adjusted_rand'])}"
    functions = {"function_a": "topics", "function_b": "words"}
    pair = {"subfunction_a": "river", "subfunction_b": "stone"}
    expected = {
        "predictivity": ("words · layer 0", value("function_curve", function="words", layer=0)),
        "heatmap-functions": ("words · layer 1", value("function_curve", function="words", layer=1)),
        "heatmap-subfunctions": ("river · layer 1", value("best_neurons", subfunction="river", layer=1)),
        "overlap-functions": ("words × topics", value("overlap_functions", "top_overlap", ".3g", **functions)),
        "overlap-subfunctions": ("river × stone", value("overlap_subfunctions", "top_overlap", ".3g", **pair)),
        "experts": ("words · layer 0", f"proportion {100 * proportion:.3g} %"),
        "experts-functions": ("words · layer 0", f"proportion {significant(100 * whole)} %"),
        "experts-layer-0": ("river · expert 1", f"of the top 20 neurons: {count}"),
        "agreement": ("balanced · random · layer 1", agreed),
        "sensitivity": ("words · top 5.0 %", f"proportion {100 * overall:.3g} %"),
    }
    page = open_page(height=1400)
    page.locator(".layer-picker").get_by_role("button", name="0", exact=True).click()
    shown = {name: tip_over(page, *place(page, name)) for name in expected}
    assert {name: text for name, text in shown.items() if not text.startswith(expected[name][0])} == {}
    assert {name: text for name, text in shown.items() if expected[name][1] not in text} == {}
    figures = page.locator("figure[id]").evaluate_all("all => all.map(each => each.id)")
    assert {name.removeprefix("figure-") for name in figures} == {*expected, "experts-layer-1"}


def place(page, name):
    """Drawing of a figure, and its first point in a line plot, or the second cell in the first row of a matrix."""
    drawing = page.locator(f"figure#figure-{name} .wide svg")
    points = drawing.get_attribute("data-points")
    if points:
        return drawing, *map(float, points.split()[0].split(","))
    edges = (drawing.get_attribute(f"data-{axis}").split()[index] for axis, index in (("x", 1), ("y", 0)))
    return drawing, *(float(edge) + 3 for edge in edges)
