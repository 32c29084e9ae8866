"""The store: one run under one URI, on disk or in an object store; see `docs/store_format.md`.

run.json                                  manifest
commits/<item id>.json                    one record per finished work item, made after its data
activations/<function>/<stack>/<site>     Zarr v3 arrays (row, layer, units) with coordinates
results/<name>/<array>                    Zarr v3 arrays, one chunk per block
tables/<name>/<item id>.parquet           tidy rows
"""

from modularity.store.activations import RowCoordinates
from modularity.store.encoding import bfloat16_from_bits, bfloat16_to_bits, stored_dtype
from modularity.store.export import TableFormat, table_bytes, table_text, write_table_file
from modularity.store.layout import rows_per_item
from modularity.store.ledger import ArrayWrite, CommitRecord, StoredObject, TableWrite
from modularity.store.manifest import SCHEMA_VERSION, Manifest, RunState, check_same_run, differing_keys
from modularity.store.query import query
from modularity.store.results import ResultArray
from modularity.store.reuse import reusable_items, take_items
from modularity.store.run import Run, content_hash, create_run, find_run, open_run
from modularity.store.scan_record import (
    CHECKPOINTS,
    SERIES,
    ScannedCheckpoint,
    ScanRecord,
    checkpoint_path,
    checkpoint_run,
    find_scan,
    is_scan,
    open_summary,
    read_scan,
    scan_problems,
    write_scan,
)
from modularity.store.space import MissingObjectError, Space, open_space
from modularity.store.sql import sql, table_columns
from modularity.store.study_record import StudyRecord, is_study, read_study, write_study
from modularity.store.tables import table_from_columns
from modularity.store.verify import StoreProblem, StoreReport, is_complete, missing_or_resized, verify_store

__all__ = [
    "CHECKPOINTS",
    "SCHEMA_VERSION",
    "SERIES",
    "ArrayWrite",
    "CommitRecord",
    "Manifest",
    "MissingObjectError",
    "ResultArray",
    "RowCoordinates",
    "Run",
    "RunState",
    "ScanRecord",
    "ScannedCheckpoint",
    "Space",
    "StoreProblem",
    "StoreReport",
    "StoredObject",
    "StudyRecord",
    "TableFormat",
    "TableWrite",
    "bfloat16_from_bits",
    "bfloat16_to_bits",
    "check_same_run",
    "checkpoint_path",
    "checkpoint_run",
    "content_hash",
    "create_run",
    "differing_keys",
    "find_run",
    "find_scan",
    "is_complete",
    "is_scan",
    "is_study",
    "missing_or_resized",
    "open_run",
    "open_space",
    "open_summary",
    "query",
    "read_scan",
    "read_study",
    "reusable_items",
    "rows_per_item",
    "scan_problems",
    "sql",
    "stored_dtype",
    "table_bytes",
    "table_columns",
    "table_from_columns",
    "table_text",
    "take_items",
    "verify_store",
    "write_scan",
    "write_study",
    "write_table_file",
]
