import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "balanced_kmeans.py"


def test_small_mode_prints_both_sides(capsys):
    pytest.importorskip("k_means_constrained")
    runpy.run_path(str(SCRIPT))["main"](["--small", "--json"])
    results = json.loads(capsys.readouterr().out)
    assert {result["data"] for result in results} == {"gaussian", "planted"}
    assert all(result["objective"] < 1.001 for result in results)
    assert {result["method"] for result in results} >= {"modularity", "k-means-constrained x2"}


def test_help_has_an_example_and_bad_numbers_are_refused(capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python benchmarks/balanced_kmeans.py --small --repeats 3" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--repeats", "0"])
    assert "--repeats is 0: expected at least 1" in capsys.readouterr().err
