"""The Grafana dashboard shows exactly the metrics that docs/metrics.md lists and that jobs record, by good queries."""

import json
import re
from pathlib import Path
from typing import Any

from modularity.runtime.metrics import COUNTERS, GAUGES

REPO = Path(__file__).parent.parent.parent
DASHBOARD: dict[str, Any] = json.loads((REPO / "cluster" / "grafana" / "modularity.json").read_text())
NAME = re.compile(r"ray_modularity_[a-z_]+")


def documented() -> dict[str, str]:
    """Kind of each metric in the docs."""
    rows = re.findall(r"^\| `(ray_\w+)` \| (\w+) \|", (REPO / "docs" / "metrics.md").read_text(), re.MULTILINE)
    return dict(rows)


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_it_shows_the_documented_metrics_and_no_others() -> None:
    shown = {name for query in queries() for name in NAME.findall(query)}
    assert shown == set(documented())
    kinds = dict.fromkeys(COUNTERS, "counter") | dict.fromkeys(GAUGES, "gauge")
    assert documented() == {f"ray_{name}": kind for name, kind in kinds.items()}


def test_names_follow_the_rules_of_prometheus() -> None:
    for name, kind in documented().items():
        assert name.endswith("_total") is (kind == "counter"), name
        assert name.endswith("_ratio") or kind != "gauge" or "items" in name


def test_rates_are_taken_of_counters_only_and_brackets_close() -> None:
    for query in queries():
        assert all(query.count(left) == query.count(right) for left, right in ("()", "{}", "[]"))
        for name in re.findall(r"rate\((\w+)", query):
            assert documented()[name] == "counter"
        if "rate(" in query:
            assert "[$__rate_interval]" in query


def test_panels_do_not_overlap_and_every_variable_exists() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    known = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD["panels"])))
    assert used <= known | {"__rate_interval"}
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
