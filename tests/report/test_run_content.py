"""What the page shows of a run, against its tables; planted neurons are found, missing parts are named."""

import json
import shutil

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from modularity.report import render_report, report_content
from modularity.report.figures import figures
from modularity.store import create_run, open_run
from modularity.types import content_digest


@pytest.fixture(scope="module")
def content(tiny_run):
    return report_content(tiny_run)


def rows_of(run, table, **wanted):
    return [row for row in run.table(table).to_pylist() if all(row[name] == value for name, value in wanted.items())]


def only(run, folder, *kinds):
    """A copy of the run that has only the items of these kinds."""
    shutil.copytree(run.uri, folder)
    for record in run.commits().values():
        if record.item.kind not in kinds:
            [path] = (folder / "commits").rglob(f"*{record.item.id}*")
            path.unlink()
    copy = open_run(str(folder))
    copy.update(state="running")
    return open_run(str(folder))


def test_sources_of_parts_are_shown(tiny_run, tmp_path):
    copy = shutil.copytree(tiny_run.uri, tmp_path / "run")
    manifest = open_run(str(copy)).manifest
    config = json.loads(json.dumps(manifest.config))
    function = config["functions"][0]
    function["source"], function["parts"] = None, {"a": {"source": "a.jsonl"}, "b": {"source": ["b.jsonl"]}}
    changed = manifest.replace(config=config, config_digest=content_digest(config))
    (copy / "run.json").write_bytes(changed.to_bytes())
    shown = report_content(open_run(str(copy))).functions[0].source
    assert json.loads(shown) == {"a": "a.jsonl", "b": ["b.jsonl"]}


def test_summary_and_functions(content, tiny_run):
    assert content.run.site == "encoder/ffn.neurons"
    assert (content.run.layers, content.run.n_neurons, content.run.n_experts) == ((0, 1), 320, 8)
    assert content.run.n_permutations == 40
    assert content.title.endswith(content.run.model)
    assert not content.run.model.startswith("/")
    words, topics = content.functions
    assert [(part.name, part.n_selection, part.n_evaluation) for part in words.subfunctions] == [
        ("river", 70, 70),
        ("stone", 70, 70),
    ]
    assert (words.n_examples, topics.n_examples) == (280, 90)
    assert [part.name for part in topics.subfunctions] == ["night_or_day", "sky"]
    assert words.n_tokens == tiny_run.manifest.notes["tokens"]["words"]
    assert words.pooling == "max"
    q_value_SLF = tiny_run.results("words")["q_value"].values
    assert words.n_significant == (np.nanmin(q_value_SLF, axis=0) <= 0.05).sum() >= 40


def test_curves_are_those_of_the_table(content, tiny_run):
    for curve in content.curves:
        rows = rows_of(tiny_run, "function_curve", function=curve.function)
        assert curve.layers == (0, 1)
        np.testing.assert_array_equal(curve.best_L, [row["normalised_evaluation"] for row in rows])
        np.testing.assert_array_equal(curve.null_high_L, [row["null_high"] for row in rows])
        assert curve.p_value == min(row["p_value_all_layers"] for row in rows)
        assert (curve.low_L <= curve.best_L).all()
    assert content.curves[0].best_L[0] > 0.9  # planted in layer 0


def test_heat_maps_have_a_row_for_each_function_and_sub_function(content, tiny_run):
    functions, subfunctions = content.heatmaps
    assert functions.row_names == ("words", "topics")
    assert subfunctions.row_names == ("river", "stone", "night_or_day", "sky")
    assert subfunctions.row_groups == ("words", "words", "topics", "topics")
    [row] = rows_of(tiny_run, "best_neurons", subfunction="sky", layer=1)
    assert subfunctions.value_YL[3, 1] == row["normalised_evaluation"]
    p_values = [row["p_value_max"] for row in rows_of(tiny_run, "best_neurons")]
    assert sorted(subfunctions.p_value_YL.ravel()) == pytest.approx(sorted(false_discovery_control(p_values)))
    assert subfunctions.p_value_YL[3, 1] >= row["p_value_max"]


def test_overlaps_are_symmetric_and_chance_is_named(content, tiny_run):
    functions, subfunctions = content.overlaps
    for matrix in content.overlaps:
        np.testing.assert_array_equal(matrix.value_SS, matrix.value_SS.T)
        assert (matrix.k, matrix.n_neurons, matrix.n_layers) == (16, 160, 2)
        assert matrix.chance == 0.1
    assert (np.diag(subfunctions.value_SS) == 1).all()
    assert subfunctions.names == ("river", "stone", "night_or_day", "sky")
    [row] = rows_of(tiny_run, "overlap_subfunctions", subfunction_a="sky", subfunction_b="river")
    assert subfunctions.value_SS[0, 3] == row["top_overlap"]
    assert subfunctions.p_value_SS[0, 3] == row["q_value"]
    assert subfunctions.label_p_SS[0, 3] == subfunctions.label_p_SS[3, 0] == row["p_labels"]
    assert subfunctions.label_value_SS[0, 3] == row["overlap_labels"]
    [block] = rows_of(tiny_run, "overlap_functions", function_a="topics", function_b="words")
    assert functions.value_SS[0, 1] == block["top_overlap"]
    blocks = rows_of(tiny_run, "overlap_functions")
    p_values = [row["p_above" if row["function_a"] == row["function_b"] else "p_below"] for row in blocks]
    q_values = false_discovery_control(p_values)
    assert functions.p_value_SS[0, 1] == functions.p_value_SS[1, 0] == pytest.approx(q_values[blocks.index(block)])


def test_top_neurons_have_their_examples_and_experts(content, tiny_run):
    first = content.neurons[0]
    assert (first.function, first.layer, first.functional) == ("words", 0, True)
    assert first.neuron % 8 in (3, 6)  # planted
    partition = tiny_run.results("partition")
    row = partition["partition"].values.tolist().index("balanced")
    assert first.expert == partition["expert"].values[row, 0, first.neuron]
    assert [len(first.highest), len(first.lowest)] == [3, 3]
    assert all(first.subfunction in example.text.split() for example in first.highest)
    assert all(example.positive for example in first.highest)
    values = [example.value for example in first.highest]
    assert values == sorted(values, reverse=True)
    assert len(content.neurons) == 4 * 4


def test_provenance_holds_config_hash_and_commands(content, tiny_run):
    assert json.loads(content.provenance.config) == tiny_run.manifest.config
    shown = {name: value for group in content.provenance.groups for name, value in group.pairs}
    assert shown["content hash"] == tiny_run.content_hash()
    assert shown["parameter_hash"] == tiny_run.manifest.identity["model"]["parameter_hash"]
    assert {"torch", "zarr", "words", "topics", "predictivity"} <= set(shown)
    assert any(command == f"modularity verify {tiny_run.uri}" for _, command in content.provenance.commands)


@pytest.mark.parametrize(
    ("kinds", "filled"),
    [
        ((), set()),
        (("functions",), set()),
        (("functions", "capture"), set()),
        (("functions", "capture", "partition", "predictivity", "summary"), {"curves", "heatmaps", "neurons"}),
        (
            ("functions", "capture", "partition", "predictivity", "experts"),
            {"expert_curves", "function_expert_curves", "expert_maps", "sensitivity"},
        ),
        (
            ("functions", "capture", "partition", "predictivity", "summary", "overlap"),
            {"curves", "heatmaps", "neurons", "overlaps"},
        ),
    ],
    ids=lambda value: "+".join(sorted(value)) or "nothing",
)
def test_a_partial_run_shows_what_there_is(kinds, filled, tiny_run, tmp_path):
    content = report_content(only(tiny_run, tmp_path / "partial", *kinds))
    parts = ("curves", "heatmaps", "overlaps", "expert_curves", "function_expert_curves", "expert_maps", "sensitivity",
             "neurons")  # fmt: skip
    assert {part for part in parts if getattr(content, part)} == filled
    assert "The run is running: parts of this page may be missing." in content.notes
    assert "<html" in render_report(content)
    assert bool(figures(content)) == bool(filled - {"neurons"})


def test_a_run_that_has_only_its_manifest(tiny_run, tmp_path):
    run = create_run(str(tmp_path / "new"), tiny_run.manifest)
    assert "<html" in render_report(report_content(run))


def test_a_function_that_is_summarised_before_the_others(tiny_run, tmp_path):
    folder = tmp_path / "partial"
    shutil.copytree(tiny_run.uri, folder)
    for record in tiny_run.commits().values():
        late = record.item.kind in ("experts", "overlap", "summary")
        if late and "function=words" not in str(record.item):
            [path] = (folder / "commits").rglob(f"*{record.item.id}*")
            path.unlink()
    content = report_content(open_run(str(folder)))
    assert [curve.function for curve in content.curves] == ["words"]
    assert [heatmap.name for heatmap in content.heatmaps] == ["subfunctions"]
    assert {neuron.function for neuron in content.neurons} == {"words"}
    assert "<html" in render_report(content)
