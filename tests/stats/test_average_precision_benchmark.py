import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "average_precision.py"
TINY = ["--rows", "60", "--neurons", "70", "--sample", "3", "--repeats", "1", "--permutations", "5"]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("average_precision_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_json_has_both_sides_and_their_difference(benchmark, capsys):
    assert benchmark.main([*TINY, "--subfunctions", "1", "9", "--activations", "dense", "float16", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [line["n_subfunctions"] for line in report["results"]] == [1, 9, 1, 9]
    assert all(line["max_error"] < 1e-12 and line["loop_seconds"] > 0 for line in report["results"])
    assert [line["n_permutations"] for line in report["nulls"]] == [5, 5]


def test_table(benchmark, capsys):
    assert benchmark.main([*TINY, "--subfunctions", "2", "--activations", "relu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["activations", "sub-functions"]
    assert lines[2].split()[:2] == ["relu", "2"]
    assert lines[3].startswith("null, relu: 5 permutations in")
