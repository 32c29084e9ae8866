import re

import pytest
from store_demo import create_demo

from modularity.errors import InputError
from modularity.store import sql, table_columns


def test_tables_are_views(run):
    answer = sql(run, "SELECT start, count(*) AS n FROM Rows GROUP BY 1 ORDER BY 1;")
    assert answer.to_pydict() == {"start": [0, 96, 192], "n": [96, 96, 58]}
    assert sql(run, "SHOW TABLES")["name"].to_pylist() == ["rows"]
    assert sql(run, "DESCRIBE rows")["column_name"].to_pylist() == ["example_id", "start"]


def test_a_repeated_column_name_gets_a_number(run):
    answer = sql(
        run, "SELECT a.start, b.start, 1 AS start_2, 2 AS start FROM rows a JOIN rows b USING (example_id) LIMIT 1"
    )
    assert answer.column_names == ["start", "start_2", "start_2_2", "start_3"]


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
    message = str(caught.value)
    assert message.endswith(f"`modularity sql {run.uri}` without a query lists all tables and columns")
    assert len(message.splitlines()) <= 6


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("SELECT * FROM rws", "nearest tables: rows"),
        ("SELECT strat FROM rows", "nearest columns of rows: start"),
        ("SELECT r.Exmple_id FROM Rows r", "nearest columns of rows: example_id"),
        ("SELECT wrong FROM rows", "columns of rows: example_id, start"),
    ],
)
def test_the_nearest_names_are_offered(run, text, line):
    with pytest.raises(InputError) as caught:
        sql(run, text)
    assert line in str(caught.value).splitlines()
    assert "Did you mean" not in str(caught.value)
    assert "Candidate" not in str(caught.value)


def test_run_without_tables(tmp_path):
    empty = create_demo(tmp_path / "run")
    with pytest.raises(InputError, match="has no tables yet: run the job again"):
        sql(empty, "SELECT * FROM rows")
    assert table_columns(empty).num_rows == 0


def test_all_tables_with_their_columns(run):
    (row,) = table_columns(run).to_pylist()
    assert row == {"table": "rows", "rows": 250, "columns": "example_id string, start int64"}
