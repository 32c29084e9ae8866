"""Tables as Parquet, CSV or JSON: to a file, or as text."""

import io
import json
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.csv

from modularity.errors import InputError
from modularity.store.tables import parquet_bytes

TableFormat = Literal["parquet", "csv", "json"]


def table_bytes(table: pa.Table, format: TableFormat) -> bytes:
    """A table as Parquet (zstd), CSV with a header (UTF-8), or a JSON array of objects, where NaN and inf are null."""
    if format == "parquet":
        return parquet_bytes(table)
    if format == "csv":
        buffer = io.BytesIO()
        pyarrow.csv.write_csv(table, buffer)
        return buffer.getvalue()
    if format == "json":
        lines = ",\n".join(
            _json_row(row) for batch in table.to_batches(max_chunksize=10_000) for row in batch.to_pylist()
        )
        return f"[{lines}]\n".encode()
    raise InputError(f"{format=} is not known; expected one of {', '.join(get_args(TableFormat))}")


def table_text(table: pa.Table, format: TableFormat) -> str:
    """A table as CSV or JSON text; InputError for Parquet, which is no text."""
    if format == "parquet":
        raise InputError("format='parquet' is binary and needs a file; name one, or use csv or json")
    return table_bytes(table, format).decode()


def write_table_file(table: pa.Table, path: str | Path, *, format: TableFormat | None = None) -> Path:
    """Write a table to a file; without `format` the ending of the name (.parquet, .csv, .json) decides."""
    path = Path(path)
    chosen = format or path.suffix.removeprefix(".").lower()
    if chosen not in get_args(TableFormat):
        raise InputError(f"{str(path)!r} ends in none of .parquet, .csv, .json; rename it or give a format")
    try:
        path.write_bytes(table_bytes(table, chosen))  # type: ignore[arg-type]  # checked against the literals
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror}); choose another file") from None
    return path


def _json_row(row: dict[str, object]) -> str:
    finite = {
        k: None if isinstance(v, float) and (v != v or v in (float("inf"), -float("inf"))) else v
        for k, v in row.items()
    }
    return json.dumps(finite, ensure_ascii=False, default=str)
