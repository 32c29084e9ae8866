"""Tidy tables: one Parquet file (zstd) per work item, found through the commit records and never by a glob.

The file's metadata names the table, the item, the digest of its schema and the run's config. The same rows give the
same bytes with the same version of pyarrow.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modularity.errors import InputError, StoreError
from modularity.store.layout import check_name
from modularity.store.ledger import Ledger, StoredObject, TableWrite
from modularity.store.space import MissingObjectError, Space
from modularity.types import WorkItem, content_digest

TABLES = "tables"
TABLE_FORMAT = 1


class Tables:
    """The tables of a run."""

    def __init__(self, space: Space, ledger: Ledger, config_digest: str) -> None:
        self.space, self.ledger, self.config_digest = space, ledger, config_digest

    def write(self, name: str, item: WorkItem, table: pa.Table) -> TableWrite:
        """Write the rows of one item as `tables/<name>/<item id>.parquet`; give the result to `commit`."""
        if not name.isidentifier():
            raise InputError(
                f"table {name!r} cannot be named in SQL: use letters, digits and '_', and start with a letter"
            )
        path = f"{TABLES}/{check_name(name, 'table')}/{item.id}.parquet"
        data = parquet_bytes(
            table,
            {
                "modularity:format": str(TABLE_FORMAT),
                "modularity:table": name,
                "modularity:item": item.id,
                "modularity:schema": schema_digest(table.schema),
                "modularity:config": self.config_digest,
            },
        )
        self.space.write(path, data)
        return TableWrite(name, table.num_rows, StoredObject(path, hashlib.sha256(data).hexdigest(), len(data)))

    def names(self) -> tuple[str, ...]:
        """Names of the tables that committed items wrote, sorted."""
        return tuple(sorted({write.table for record in self.ledger.records().values() for write in record.tables}))

    def read(self, name: str) -> pa.Table:
        """All committed rows of a table, items in the order of their parameters.

        Raises
        ------
        InputError
            No committed item wrote this table; the message lists the tables that exist.
        StoreError
            A file is missing or damaged, or two files have different schemas.
        """
        writes = [w for record in self.ledger.records().values() for w in record.tables if w.table == name]
        if not writes:
            known = ", ".join(self.names()) or "none yet"
            raise InputError(f"table {name!r} does not exist in {self.space.uri}; tables: {known}")
        parts = [self._read_file(write.object) for write in writes]
        for part, write in zip(parts, writes):
            if not part.schema.equals(parts[0].schema):
                raise StoreError(
                    f"{self.space.address(write.object.path)} has the columns {schema_text(part.schema)}, "
                    f"{writes[0].object.path} has {schema_text(parts[0].schema)}; a table needs one schema"
                )
        return pa.concat_tables(parts)

    def _read_file(self, stored: StoredObject) -> pa.Table:
        try:
            data = self.space.read(stored.path)
        except MissingObjectError:
            raise self.ledger.explain(stored.path, "the file is missing") from None
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise self.ledger.explain(stored.path, "the file is damaged: its hash does not match")
        return pq.read_table(io.BytesIO(data)).replace_schema_metadata(None)


def parquet_bytes(table: pa.Table, metadata: dict[str, str] | None = None) -> bytes:
    """A table as Parquet with zstd, deterministic for equal rows."""
    buffer = io.BytesIO()
    plain = table.combine_chunks().replace_schema_metadata(metadata or None)
    pq.write_table(plain, buffer, compression="zstd", compression_level=3, store_schema=True)
    return buffer.getvalue()


def schema_text(schema: pa.Schema) -> str:
    """`name type, ...` in order."""
    return ", ".join(f"{column.name} {column.type}" for column in schema)


def schema_digest(schema: pa.Schema) -> str:
    """Digest of the names and types of the columns, in order."""
    return content_digest([[column.name, str(column.type)] for column in schema])


def table_from_columns(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A table from plain Python columns of equal length, types inferred: for rooms that do not import pyarrow."""
    return pa.table({name: pa.array(values) for name, values in columns.items()})
