"""Tables as Parquet, CSV or JSON: to a file, or as text."""

import io
import json
import math
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.csv

from modularity.errors import InputError
from modularity.store.tables import parquet_bytes

TableFormat = Literal["parquet", "csv", "json"]


_NO_CSV = (
    pa.types.is_nested,
    pa.types.is_interval,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
)


def table_bytes(table: pa.Table, format: TableFormat) -> bytes:
    """A table as Parquet (zstd), CSV with a header (UTF-8), or a JSON array of objects, where NaN and inf are null.

    Lists, structs and other values that CSV has no form for are JSON texts there.
    """
    if format == "parquet":
        return parquet_bytes(table)
    if format == "csv":
        buffer = io.BytesIO()
        pyarrow.csv.write_csv(_plain_columns(table), buffer)
        return buffer.getvalue()
    if format == "json":
        lines = ",\n".join(_json(row) for batch in table.to_batches(max_chunksize=10_000) for row in batch.to_pylist())
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


def _plain_columns(table: pa.Table) -> pa.Table:
    """The table with columns of types that CSV has no form for as JSON texts."""
    for index, field in enumerate(table.schema):
        if any(check(field.type) for check in _NO_CSV):
            texts = [None if value is None else _json(value) for value in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table


def _json(value: object) -> str:
    return json.dumps(
        _finite(value),
        ensure_ascii=False,
        default=lambda other: other.hex() if isinstance(other, bytes) else str(other),
    )


def _finite(value: object) -> object:
    """JSON has neither NaN nor infinities: both are null, also inside lists and structs."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
