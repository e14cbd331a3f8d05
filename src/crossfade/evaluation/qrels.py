"""Judgements on disk: TREC qrels, tables with a header, JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crossfade.errors import FormatError

__all__ = ["read_qrels"]

QUERY = ("query", "query_id", "query-id", "qid")
ITEM = ("gallery", "item", "doc", "docid", "doc_id", "corpus_id", "corpus-id", "image", "gallery_id")
GRADE = ("grade", "score", "relevance", "rel")


def read_qrels(path: Path) -> list[tuple[str, str, float]]:
    """(query id, gallery id, grade) from a file.

    ==============================  ===========================================================================
    ``.jsonl``                      one object a line with ``query``, ``gallery`` and ``grade`` (1 where missing)
    ``.parquet``                    columns of these names
    ``.csv``, ``.tsv``              with a header of these names, such as BEIR's ``query-id corpus-id score``
    anything else                   TREC: ``query iteration item grade``, separated by blanks
    ==============================  ===========================================================================

    Raises:
        FormatError: the file is missing, damaged, or a line has not these fields.
    """
    readers = {".jsonl": _json_lines, ".parquet": _parquet, ".csv": _table, ".tsv": _table}
    try:
        return list(readers.get(path.suffix.lower(), _trec)(path))
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing. Check the name.") from error
    except (UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{path} must hold judgements in UTF-8 and cannot be read ({error}).") from error


def _triple(row: Mapping[str, Any], path: Path, number: int) -> tuple[str, str, float]:
    found = []
    for names in (QUERY, ITEM, GRADE):
        name = next((name for name in names if row.get(name) not in (None, "")), None)
        if name is None and names is not GRADE:
            raise FormatError(
                f"{path}, row {number}: a judgement must name its {names[0]} item; found the fields {sorted(map(str, row))}."
            )
        found.append(1 if name is None else row[name])
    query, item, grade = found
    return str(query), str(item), _grade(grade, path, number)


def _grade(value: Any, path: Path, number: int) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}, row {number}: a grade must be a number; found {value!r}.") from error


def _json_lines(path: Path) -> Iterator[tuple[str, str, float]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise FormatError(f"{path}, row {number}: not JSON ({error}). It may be truncated.") from error
            if not isinstance(row, dict):
                raise FormatError(f"{path}, row {number}: must be an object; found {type(row).__name__}.")
            yield _triple(row, path, number)


def _parquet(path: Path) -> Iterator[tuple[str, str, float]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise FormatError(
            f"{path} must be Parquet and is not ({error}). It may be truncated: copy it again."
        ) from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield _triple(row, path, number)


def _table(path: Path) -> Iterator[tuple[str, str, float]]:
    with open(path, encoding="utf-8", newline="") as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        for number, row in enumerate(csv.DictReader(file, delimiter=delimiter), start=2):
            yield _triple(row, path, number)


def _trec(path: Path) -> Iterator[tuple[str, str, float]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 4:
                raise FormatError(
                    f"{path}, row {number}: TREC qrels have 4 fields (query iteration item grade); found {len(fields)}. "
                    "Name the file .tsv, .csv, .jsonl or .parquet where it is one of these."
                )
            yield fields[0], fields[2], _grade(fields[3], path, number)
