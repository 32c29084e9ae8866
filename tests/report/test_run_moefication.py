"""The page of a MoEfication: what findings say with and without an effect, figures, notes; looked at in a browser."""

from pathlib import Path

import pytest

from modularity.report import render_report, report_content, write_report
from modularity.report.figures import page_figures
from modularity.report.run_moefication import headline_share
from modularity.store import Manifest, Run, create_run, table_from_columns
from modularity.types import WorkItem

PARTITIONS, ROUTERS, SHARES = ("balanced", "random"), ("oracle", "mlp", "random"), (0.1, 0.2, 1.0)
PLACES = {"mass": ("layer 0", "layer 2", "all layers"), "loss": ("texts", "all texts"), "kl": ("texts", "all texts"),
          "agreement": ("texts", "all texts"), "accuracy": ("sst2", "mean of tasks")}  # fmt: skip


def quality(partition: str, router: str, share: float, *, effect: float) -> float:
    """Share of what is lost that is kept: more for true experts and for routers that know."""
    known = {"oracle": 1.0, "mlp": 0.9, "random": 0.0}[router] * (effect if partition == "balanced" else effect / 2)
    return share + (1 - share) * known * 0.8


def curve_rows(*, effect: float) -> list[dict]:
    rows = []
    for measure, places in PLACES.items():
        for place in places:
            for partition in PARTITIONS:
                for router in ROUTERS:
                    for share in SHARES:
                        kept = quality(partition, router, share, effect=effect)
                        whole = {"loss": 3.0, "kl": 0.0, "accuracy": 0.95}.get(measure, 1.0)
                        value = whole + 1 - kept if measure in ("loss", "kl") else whole * kept
                        rows.append(
                            {
                                "measure": measure, "place": place, "partition": partition, "router": router,
                                "share": share, "selected": share, "neurons": share, "value": value,
                                "low": value - 0.01, "high": value + 0.01, "seed_low": value - 0.02,
                                "seed_high": value + 0.005, "whole": whole, "change": value - whole,
                                "change_low": value - whole - 0.01, "change_high": value - whole + 0.01,
                                "chance": share if measure == "mass" else 0.5, "ffn_flops": share, "flops": share,
                                "n_units": 40, "n_values": 400, "n_seeds": 2,
                            }
                        )  # fmt: skip
    return rows


def test_rows_of(advantage: float, seed_low: float, q_value: float) -> list[dict]:
    return [
        {
            "measure": measure, "place": places[-1], "partition": "balanced", "router": "mlp", "share": 0.2,
            "against": against, "value": 0.7, "null": 0.7 - advantage, "advantage": advantage,
            "low": advantage - 0.01, "high": advantage + 0.01, "seed_low": seed_low, "seed_high": advantage + 0.02,
            "p_value": q_value, "q_value": q_value, "smallest_p_value": 1e-4, "n_units": 40, "n_seeds": 2,
        }
        for measure, places in PLACES.items()
        for against in ("random experts", "random router")
    ]  # fmt: skip


test_rows_of.__test__ = False  # type: ignore[attr-defined]  # rows of the table, no test


def export_rows() -> list[dict]:
    return [
        {"folder": "<b>model</b>", "partition": "balanced", "seed": 0, "router": "mlp", "compared": compared,
         "share": share, "difference": difference, "allowed": 1e-4, "median_difference": 0.0, "agreement": 1.0,
         "n_texts": 64}
        for compared, share, difference in (
            ("checkpoint", 1.0, 3e-7), ("all experts", 1.0, 0.0), ("some experts", 0.2, 4e-7),
        )
    ]  # fmt: skip


def run_with(out: Path, tables: dict[str, list[dict]], **changes: object) -> Run:
    side = {"texts": {"n_texts": 40, "n_tokens": 440, "n_truncated": 0}}
    config = {
        "job": "moefication", "partitions": list(PARTITIONS), "routers": list(ROUTERS), "shares": list(SHARES),
        "seeds": [0, 1], "training": {"share": 0.2}, "source": None,
    }  # fmt: skip
    notes = {
        "analysed": "decoder/ffn.neurons", "layers": [0, 2], "n_neurons": [64, 64], "n_experts": 10, "device": "cpu",
        "texts": {"training": side, "evaluation": {"texts": {**side["texts"], "n_truncated": 3}}},
        "tasks": [{"name": "sst2", "function": "texts", "subfunction": "sst2", "words": ["good", "bad"],
                   "n_examples": 40, "n_tokens": 440, "n_truncated": 0, "share_positive": 0.5}],
        "plan": ["layers 0, 2 are divided into 10 experts"],
    }  # fmt: skip
    manifest = Manifest.of(
        "moefication", config=config, identity={"model": {"name": "opt-tiny"}, "data": {}}, notes={**notes, **changes}
    )
    run = create_run(str(out), manifest)
    item = WorkItem.of("selection_tables")
    written = [
        run.write_table(name, item, table_from_columns({key: [row[key] for row in rows] for key in rows[0]}))
        for name, rows in tables.items()
    ]
    if written:
        run.commit(item, tables=written)
    run.update(state="finished")
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    tables = {
        "selection_curve": curve_rows(effect=1.0),
        "selection_tests": test_rows_of(0.2, 0.15, 0.001),
        "moefied_export": export_rows(),
    }
    return run_with(tmp_path_factory.mktemp("page") / "run", tables)


def test_findings_of_a_model_with_experts(whole: Run) -> None:
    content = report_content(whole)
    subjects = [(finding.subject, finding.strength) for finding in content.findings]
    assert subjects == [
        ("experts by weights, mass", "supported"), ("experts by weights, loss", "supported"),
        ("experts by weights, accuracy", "supported"), ("export", "descriptive"),
    ]  # fmt: skip
    mass, loss, accuracy, export = (finding.text for finding in content.findings)
    assert "20 % of the experts, chosen by the trained router, hold 77.6 % [76.6, 78.6]" in mass
    assert "(at best 84.0 %)" in mass
    assert "as many random experts, chosen alike, hold 48.8 %" in mass
    assert "Advantage over random experts 0.200 [0.190, 0.210], over seeds 0.150 to 0.220, corrected p = 0.001" in mass
    assert "rises by 0.224 [0.214, 0.234] nats, from 3.000, at 20 % of the FFN operations" in loss
    assert "with always the more frequent label in 50.0 %" in accuracy
    assert "the difference from the plain checkpoint is 0;" in export


@pytest.mark.parametrize(
    ("advantage", "seed_low", "q_value"), [(0.2, 0.1, 0.2), (0.2, -0.01, 0.001), (-0.2, -0.3, 0.001)]
)
def test_nothing_is_claimed_without_significance_sign_and_every_seed(
    tmp_path: Path, advantage: float, seed_low: float, q_value: float
) -> None:
    tables = {
        "selection_curve": curve_rows(effect=0.1), "selection_tests": test_rows_of(advantage, seed_low, q_value),
    }  # fmt: skip
    findings = report_content(run_with(tmp_path / "run", tables)).findings
    assert {finding.strength for finding in findings} == {"unsupported"}
    assert all("It is not shown that this is better than both controls" in finding.text for finding in findings)


def test_one_seed_is_not_enough(tmp_path: Path) -> None:
    tests = [{**row, "n_seeds": 1} for row in test_rows_of(0.2, 0.2, 0.001)]
    tables = {"selection_curve": curve_rows(effect=1.0), "selection_tests": tests}
    findings = report_content(run_with(tmp_path / "run", tables)).findings
    assert {finding.strength for finding in findings} == {"unsupported"}
    assert all("with one seed nothing is known of the chance" in finding.text for finding in findings)
    assert all("over seeds" not in finding.text for finding in findings)


def test_figures_have_all_lines_bands_and_values(whole: Run) -> None:
    shares, layers = page_figures(report_content(whole))
    assert (shares.name, layers.name) == ("selection", "selection-layers")
    assert shares.wide.count('class="tint tint-line"') == 6  # measures × partitions
    assert shares.wide.count('class="tint tint-null"') == 6
    assert len(shares.table.rows) == 3 * 2 * 3 * 3
    assert shares.table.rows[0] == (
        "experts by weights", "oracle", "mass kept", "10 %", "0.820", "[0.800, 0.830]", "1.000", "10 %",
    )  # fmt: skip
    rise = next(row for row in shares.table.rows if row[1:4] == ("trained router", "loss", "20 %"))
    assert rise[4:7] == ("0.224", "[0.204, 0.234]", "3.000")
    assert len(layers.table.rows) == 2 * 3 * 2
    assert "Mass kept in each layer by 20 % of its experts" in layers.title


def test_the_headline_share_is_that_of_the_training() -> None:
    assert headline_share({"training": {"share": 0.2}, "shares": [0.5, 0.1, 0.3, 1.0]}) == 0.1
    assert headline_share({"training": {"share": 0.2}, "shares": [1.0]}) == 1.0


def test_the_page_names_what_is_missing_and_escapes(whole: Run, tmp_path: Path) -> None:
    html = render_report(report_content(whole))
    assert "&lt;b&gt;model&lt;/b&gt;" in html
    assert "Whether a token needs few experts" in html
    assert "3 texts of the evaluation side were longer than the limit" in html
    assert "Association is not use" not in html
    empty = render_report(report_content(run_with(tmp_path / "run", {})))
    assert "Nothing was measured with selected experts yet." in empty


@pytest.fixture(scope="module")
def address(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(whole.uri, out=path)
    return path.as_uri()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_lines_and_bands_are_drawn_within_the_page(open_page, width: int, scheme: str) -> None:
    page = open_page(width=width, color_scheme=scheme)
    shown = page.locator(f"#figure-selection .{'wide' if width > 700 else 'narrow'} svg")
    assert shown.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    fills = {
        name: shown.locator(f".tint-{name}").first.evaluate("e => getComputedStyle(e).fill")
        for name in ("line", "control1", "null")
    }
    assert len(set(fills.values())) == 3
    assert "none" not in fills.values()


@pytest.mark.browser
def test_a_point_tells_all_routers(open_page, tip_over) -> None:
    page = open_page()
    drawing = page.locator("#figure-selection .wide svg")
    x, y = map(float, drawing.get_attribute("data-points").split()[1].split(","))
    told = tip_over(page, drawing, x, y)
    for part in (
        "experts by weights · 20 %",
        "trained router 0.776 [0.756, 0.786]",
        "oracle 0.840",
        "random router 0.200",
    ):
        assert part in told
