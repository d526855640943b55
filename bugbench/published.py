"""Verdicts as they are published: all that a results folder knows of its cases, in two tables.

::

    <folder>/cases.parquet     a row per case: its measured truth, see bugbench.records.Record
    <folder>/verdicts.parquet  a row per case and detector, see bugbench.scoring.verdict

The leaderboard can be recomputed from them, and :mod:`bugbench.merge` takes them over into another results folder.
Lists are lists, the oracle's settings and the suspects are JSON; pages of the files carry checksums.
"""

import io
import json
import re
import types
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
from bugbench import atomic
from bugbench.integrity import Damaged
from bugbench.records import Cases, Record, checked, verdict_rows
from bugbench.scoring import VERDICT_TYPES, verdict_table

CASES, VERDICTS = "cases.parquet", "verdicts.parquet"
ARROW: Mapping[Any, pa.DataType] = {
    **{str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(), dict[str, Any]: pa.string()},
    **{list[int]: pa.list_(pa.int64()), list[str]: pa.list_(pa.string())},
    **{"string": pa.string(), "bool": pa.bool_(), "boolean": pa.bool_(), "int64": pa.int64(), "Int64": pa.int64()},
    **{"float64": pa.float64()},
}
PLAIN = re.compile(r"(?!\.)[^/\0]+")  # a name that can be a file's and stays in its folder


def _schemas() -> dict[str, pa.Schema]:
    fields = get_type_hints(Record)
    kinds = {name: get_args(t)[0] if isinstance(t, types.UnionType) else t for name, t in fields.items()}
    verdicts: dict[str, Any] = {**VERDICT_TYPES, "lines": list[int], "accepts": list[str]}
    return {
        CASES: pa.schema([(name, ARROW[kind]) for name, kind in kinds.items()]),
        VERDICTS: pa.schema([(name, ARROW[kind]) for name, kind in verdicts.items()]),
    }


SCHEMAS = _schemas()


def write(folder: Path, cases: Cases) -> None:
    """Write both tables, each in one step."""
    records = [asdict(record) | {"oracle": json.dumps(record.oracle)} for record in cases.records]
    for file, rows in ((CASES, records), (VERDICTS, verdict_rows(cases.verdicts))):
        sink = io.BytesIO()
        table = pa.Table.from_pylist(rows, SCHEMAS[file])
        pq.write_table(table, sink, compression="zstd", compression_level=12, write_page_checksum=True)
        atomic.write(folder / file, sink.getvalue())


def read(folder: Path) -> Cases:
    """Return the cases and verdicts published in ``folder``.

    Raises:
        FileNotFoundError: a table is not there.
        Damaged: a table is not what was written, or of a version that wrote something else.
    """
    found = {file: _rows(folder / file) for file in (CASES, VERDICTS)}
    said: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in found[VERDICTS]:
        _check_names(folder / VERDICTS, row, ("detector", "version"))
        said.setdefault((row["workload"], row["bug"], row["seed"]), []).append(row)
    records, rows = [], []
    for row in found[CASES]:
        path = folder / CASES
        _check_names(path, row, ("workload", "bug", "trace_key", "twin_key", "data"))
        own = said.pop((row["workload"], row["bug"], row["seed"]), [])
        record, verdicts = checked(path, {"record": row | {"oracle": json.loads(row["oracle"])}, "verdicts": own})
        records.append(record)
        rows += verdicts
    if said:
        workload, bug, seed = min(said)
        raise Damaged(folder / VERDICTS, f"verdicts on {workload}/{bug}/seed-{seed}, which {CASES} does not have")
    return Cases(records, verdict_table(rows), [])


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file; `python -m bugbench.report` writes it")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise Damaged(path, f"no readable table: {str(error).splitlines()[0]}") from error
    kinds, expected = ({f.name: f.type for f in schema} for schema in (table.schema, SCHEMAS[path.name]))
    if different := [name for name in {**expected, **kinds} if kinds.get(name) != expected.get(name)]:
        raise Damaged(path, f"not what this version writes: {different[0]}")
    return table.to_pylist()


def _check_names(path: Path, row: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    """Refuse names that would lead out of the folders that they name."""
    for column in columns:
        if row[column] and not PLAIN.fullmatch(row[column]):
            raise Damaged(path, f"{column} {row[column]!r} cannot be the name of a file")
