"""Rows of a run's tables."""

from modularity.report.run_tables import RunTables


def test_rows_are_chosen_by_columns_and_read_once(tiny_run, monkeypatch):
    tables = RunTables(tiny_run)
    rows = tables.rows("best_neurons", function="words", layer=0)
    assert [row["subfunction"] for row in rows] == ["river", "stone"]
    monkeypatch.setattr(type(tiny_run), "table", None)
    assert tables.rows("best_neurons", function="words", layer=0, subfunction="stone") == rows[1:]


def test_a_table_that_is_not_there_has_no_rows(tiny_run):
    assert RunTables(tiny_run).rows("no_such_table", function="words") == []


def test_texts_by_function_and_id(tiny_run):
    texts = RunTables(tiny_run).texts
    assert texts["words", "river-0"]["text"]
    assert len(texts) == 280 + 90


def test_functions_and_sub_functions_are_in_the_order_of_the_job(tiny_run):
    tables = RunTables(tiny_run)
    assert tables.functions == ("words", "topics")
    rows = tables.rows("best_neurons")
    assert [row["function"] for row in rows] == ["words"] * 4 + ["topics"] * 4
    mixed = [("topics", "sky"), ("other", "x"), ("words", "stone"), ("words", "river"), ("topics", "sky")]
    assert tables.in_order(mixed) == [("words", "river"), ("words", "stone"), ("topics", "sky"), ("other", "x")]
