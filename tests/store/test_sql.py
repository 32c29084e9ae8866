import re

import pytest
from store_demo import create_demo

from modularity.errors import InputError
from modularity.store import sql


def test_tables_are_views(run):
    answer = sql(run, "SELECT start, count(*) AS n FROM Rows GROUP BY 1 ORDER BY 1;")
    assert answer.to_pydict() == {"start": [0, 96, 192], "n": [96, 96, 58]}
    assert sql(run, "SHOW TABLES")["name"].to_pylist() == ["rows"]
    assert sql(run, "DESCRIBE rows")["column_name"].to_pylist() == ["example_id", "start"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("selec 1", "syntax error"),
        ("", "expected one SELECT, found nothing"),
        ("SELECT * FROM none", "Table with name none does not exist"),
        ("SELECT wrong FROM rows", '"wrong" not found'),
        ("SELECT 1; SELECT 2", "expected one SELECT, found SELECT, SELECT"),
        ("DROP VIEW rows", "found DROP; the tables of a run are read-only"),
        ("COPY rows TO '/tmp/out.csv'", "found COPY"),
        ("SET enable_external_access = true", "found SET"),
        ("ATTACH '/tmp/x.db'", "found ATTACH"),
        ("SELECT * FROM read_csv('/etc/hosts')", "file system operations are disabled"),
        ("SELECT * FROM read_text('/etc/hosts')", "file system operations are disabled"),
        ("SELECT * FROM '/etc/hosts'", "does not exist"),
        ("SELECT * FROM glob('/*')", "file system operations are disabled"),
        ("SELECT * FROM cause", "Table with name cause does not exist"),
    ],
)
def test_what_cannot_be_answered(run, text, cause):
    with pytest.raises(InputError, match=re.escape(cause)) as caught:
        sql(run, text)
    assert "tables:\n  rows(example_id string, start int64)" in str(caught.value)


def test_run_without_tables(tmp_path):
    with pytest.raises(InputError, match="tables:\n  none yet"):
        sql(create_demo(tmp_path / "run"), "SELECT * FROM rows")
