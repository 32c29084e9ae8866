"""Columns of tables as docs/tables.md describes them, and whether a run has exactly these."""

import re
from functools import cache
from pathlib import Path

from modularity.store import Run

DOCUMENT = Path(__file__).parents[2] / "docs" / "tables.md"
OF_SCANS = {"function_curve", "modularity_tests", "function_modularity"}
SCORES_FROM = "n"
"""`routing` repeats the columns of `perturbation` from this one on."""


@cache
def described() -> dict[str, dict[str, str]]:
    """Arrow type of every column by table, in the order of the document."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^##+ ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        columns = re.findall(r"^\| `(\w+)` \| (string|bool|int64|float64) \|", section, re.MULTILINE)
        found[section.split("\n", 1)[0]] = dict(columns)
    scores = list(found["perturbation"].items())
    start = [name for name, _ in scores].index(SCORES_FROM)
    found["routing"] |= dict(scores[start:])
    return found


def differences(run: Run, *, scan: bool = False) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """Tables whose columns or types are not the described ones: (of the run, of the document)."""
    wrong = {}
    for name in run.tables():
        schema = run.table(name).schema
        written = {f.name: str(f.type).removeprefix("large_").replace("double", "float64") for f in schema}
        expected = dict(described().get(name, {}))
        if scan and name in OF_SCANS:
            expected = {"checkpoint": "string", "step": "int64"} | expected
        if list(written.items()) != list(expected.items()):
            wrong[name] = (written, expected)
    return wrong
