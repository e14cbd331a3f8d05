"""Vectors in Parquet and in Arrow IPC (Feather V2) files.

One row an item: an id (a string or a whole number), a vector (a list of float16, float32 or float64, of fixed size or
not) and any other columns, of which metadata are chosen by name. The schema's metadata say what the vectors are: under
``crossfade.space`` the space as JSON, under ``crossfade.modality`` the modality. Files that do not say it need both
named.

Arrow files that are not compressed are memory-mapped and read nothing until asked. Parquet is decoded: it is held in
memory, or, with ``into``, copied row group by row group into a folder of Crossfade's own that is memory-mapped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.embeddings.columns import (
    ids_array,
    ids_of,
    metadata_array,
    metadata_of,
    reading,
    require_column,
    vectors_array,
    vectors_of,
)
from crossfade.embeddings.core import Embeddings
from crossfade.embeddings.folder import EmbeddingsWriter, load_folder
from crossfade.embeddings.ids import Ids
from crossfade.embeddings.rows import Rows
from crossfade.embeddings.shards import refuse_existing, resolve_modality, resolve_space, shard_files
from crossfade.errors import ConfigError, FormatError, InvalidVectors, SpaceMismatch
from crossfade.files import atomic_file, atomic_folder
from crossfade.spaces import MODALITIES, Modality, Space

__all__ = [
    "column_names",
    "read_arrow",
    "read_columns",
    "read_parquet",
    "write_arrow",
    "write_columns",
    "write_parquet",
]

SPACE_KEY, MODALITY_KEY = b"crossfade.space", b"crossfade.modality"
PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")
ROW_GROUP = 65_536
READ_ROWS = 65_536

Location = str | Path | Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows of a table: ids is None where none were asked for."""

    vectors: npt.NDArray[Any]
    ids: Ids | None
    metadata: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Columns:
    """The names of the columns to read."""

    ids: str | None
    vectors: str
    metadata: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        names = [self.vectors, *self.metadata] if self.ids is None else [self.ids, self.vectors, *self.metadata]
        return list(dict.fromkeys(names))

    def require(self, schema: pa.Schema, path: Path) -> None:
        for name, option in ((self.ids, "ids"), (self.vectors, "vectors"), *((n, "metadata") for n in self.metadata)):
            if name is not None:
                require_column(schema, name, path=path, option=option)

    def piece(self, batch: pa.RecordBatch, *, path: Path, first_row: int) -> _Piece:
        vectors = vectors_of(batch.column(self.vectors), path=path, first_row=first_row)
        ids = None if self.ids is None else ids_of(batch.column(self.ids), path=path, first_row=first_row)
        return _Piece(vectors, ids, {name: metadata_of(batch.column(name)) for name in self.metadata})


def read_parquet(
    path: Location,
    *,
    space: Space | None = None,
    modality: Modality | None = None,
    ids: str | None = "id",
    vectors: str = "vector",
    metadata: Sequence[str] = (),
    into: str | Path | None = None,
) -> Embeddings:
    """Read vectors from Parquet.

    Args:
        path: a file, several in a list, a pattern, or a folder of them.
        space: where the vectors live; may be left out where the files say it.
        modality: ``image`` or ``text``; may be left out where the files say it or the space holds one only.
        ids: the column of ids; None numbers the rows from 0.
        vectors: the column of vectors.
        metadata: the columns to keep for slicing results.
        into: a folder to copy the vectors to, so that they need not fit in memory; it must not exist.

    Raises:
        FormatError: a file is missing, truncated or damaged, or has no such column.
        SpaceMismatch: a file says another space or modality.
        ConfigError: no space or modality is known.
        InvalidVectors: rows are missing, of several lengths, not floating-point numbers or not finite.
        InvalidIds: ids are missing, empty or repeat.
    """
    files = shard_files(path, PARQUET_SUFFIXES)
    columns = _Columns(ids, vectors, tuple(metadata))
    space, modality = _what(files, [_parquet_schema(file) for file in files], columns, space, modality)
    if into is None:
        pieces = [piece for file in files for piece in _parquet_pieces(file, columns)]
        return _joined(pieces, files, space, modality, on_disk=False)
    with atomic_folder(Path(into)) as temporary:
        writer = EmbeddingsWriter(temporary, space, modality)
        for file in files:
            for piece in _parquet_pieces(file, columns):
                names = np.arange(writer.count, writer.count + len(piece.vectors)).astype(np.str_)
                writer.append(names if piece.ids is None else piece.ids, piece.vectors, piece.metadata)
        writer.finish()
    return load_folder(Path(into))


def read_arrow(
    path: Location,
    *,
    space: Space | None = None,
    modality: Modality | None = None,
    ids: str | None = "id",
    vectors: str = "vector",
    metadata: Sequence[str] = (),
) -> Embeddings:
    """Open vectors in Arrow IPC files or streams, memory-mapped and without a copy unless they are compressed.

    The arguments and errors are those of :func:`read_parquet`.
    """
    files = shard_files(path, ARROW_SUFFIXES)
    columns = _Columns(ids, vectors, tuple(metadata))
    schemas, pieces, mapped = [], [], True
    for file in files:
        with reading(file):
            if file.stat().st_size == 0:
                raise FormatError(f"{file} is empty. It may be truncated: copy it again.")
            source = pa.memory_map(str(file))
            schema, batches = _arrow_batches(source)
            columns.require(schema, file)
            schemas.append(schema)
            row = 0
            for batch in batches:
                pieces.append(columns.piece(batch, path=file, first_row=row))
                mapped &= _inside(pieces[-1].vectors, source)
                row += batch.num_rows
    space, modality = _what(files, schemas, columns, space, modality)
    return _joined(pieces, files, space, modality, on_disk=mapped)


def write_parquet(
    embeddings: Embeddings, path: str | Path, *, ids: str = "id", vectors: str = "vector", overwrite: bool = False
) -> None:
    """Write ids, vectors and metadata columns as one Parquet file, row group by row group and all or nothing.

    Args:
        embeddings: what to write; the numbers keep their format.
        path: the file.
        ids: the name to give the column of ids.
        vectors: the name to give the column of vectors.
        overwrite: whether a file that stands there may be replaced.

    Raises:
        StorageError: the file exists and may not be overwritten, or cannot be written.
        ConfigError: a metadata column has the name of the ids or the vectors.
    """
    path = Path(path)
    refuse_existing(path, overwrite=overwrite)
    schema = _schema(embeddings, ids, vectors)
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with atomic_file(path) as temporary, open(temporary, "wb") as file, ExitStack() as stack:
        writer = stack.enter_context(
            pq.ParquetWriter(
                file,
                schema,
                compression=dict.fromkeys(texts, "zstd"),  # float vectors do not shrink
                use_dictionary=[name for name in texts if name != ids],  # type: ignore[arg-type]
                write_page_checksum=True,
                write_statistics=texts,
            )
        )
        for batch in _batches(embeddings, schema):
            writer.write_batch(batch, row_group_size=ROW_GROUP)


def write_arrow(
    embeddings: Embeddings, path: str | Path, *, ids: str = "id", vectors: str = "vector", overwrite: bool = False
) -> None:
    """Write ids, vectors and metadata columns as one Arrow IPC file (Feather V2), uncompressed and all or nothing.

    The arguments and errors are those of :func:`write_parquet`.
    """
    path = Path(path)
    refuse_existing(path, overwrite=overwrite)
    schema = _schema(embeddings, ids, vectors)
    with atomic_file(path) as temporary, open(temporary, "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in _batches(embeddings, schema):
            writer.write_batch(batch)


def table_columns(path: Location) -> tuple[str, ...]:
    """The columns of the first of these Parquet or Arrow files.

    Raises:
        FormatError: it is missing or damaged.
    """
    file = shard_files(path, (*PARQUET_SUFFIXES, *ARROW_SUFFIXES))[0]
    if file.suffix in PARQUET_SUFFIXES:
        return tuple(_parquet_schema(file).names)
    with reading(file), pa.memory_map(str(file)) as source:
        return tuple(_arrow_batches(source)[0].names)


def write_columns(path: Path, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write metadata columns of one length as Parquet, in one step.

    Raises:
        FormatError: a column's values are of a type, or of several types, that Parquet cannot hold.
        StorageError: it could not be written.
    """
    table = pa.table({name: metadata_array(name, np.asarray(column)) for name, column in columns.items()})
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def read_columns(path: Path, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read metadata columns from Parquet: those of ``names``, or all.

    Raises:
        FormatError: the file is missing or damaged, or has no such column.
    """
    with reading(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        for name in names or ():
            require_column(file.schema_arrow, name, path=path, option="ids or metadata")
        table = file.read(columns=None if names is None else list(names))
        columns = {name: table.column(name) for name in table.column_names}
        return {
            name: metadata_of(pa.concat_arrays(column.chunks) if column.chunks else pa.nulls(0, column.type))
            for name, column in columns.items()
        }


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file.

    Raises:
        FormatError: the file is missing or damaged.
    """
    return list(_parquet_schema(path).names)


def _said(schema: pa.Schema, path: Path) -> tuple[Space | None, Modality | None]:
    """What a table's schema says of its vectors: space and modality, each None where it says nothing.

    Raises:
        FormatError: it says something that is no space or modality.
    """
    notes = schema.metadata or {}
    space: Space | None = None
    if SPACE_KEY in notes:
        try:
            space = Space.from_dict(json.loads(notes[SPACE_KEY]))
        except (ValueError, AttributeError, TypeError) as error:
            raise FormatError(
                f"{path} says a space that is none ({error}). Write it again, or remove the note."
            ) from error
    modality = notes.get(MODALITY_KEY, b"").decode(errors="replace")
    for known in MODALITIES:
        if modality == known:
            return space, known
    if modality:
        raise FormatError(f"{path} says the modality {modality!r}; known are {', '.join(MODALITIES)}.")
    return space, None


def _parquet_schema(file: Path) -> pa.Schema:
    with reading(file):
        return pq.read_schema(file)


def _parquet_pieces(file: Path, columns: _Columns) -> Iterator[_Piece]:
    with reading(file), pq.ParquetFile(file, page_checksum_verification=True) as opened:
        row = 0
        for batch in opened.iter_batches(batch_size=READ_ROWS, columns=columns.all):
            yield columns.piece(batch, path=file, first_row=row)
            row += batch.num_rows


def _arrow_batches(source: pa.MemoryMappedFile) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    if is_file:
        opened = pa.ipc.open_file(source)
        return opened.schema, [opened.get_batch(number) for number in range(opened.num_record_batches)]
    stream = pa.ipc.open_stream(source)
    return stream.schema, list(stream)


def _inside(vectors: npt.NDArray[Any], source: pa.MemoryMappedFile) -> bool:
    """Whether the array lies in the memory map, rather than in memory that it was decompressed to."""
    source.seek(0)
    start = int(source.read_buffer(source.size()).address)
    return start <= int(vectors.__array_interface__["data"][0]) < start + source.size()


def _what(
    files: list[Path], schemas: list[pa.Schema], columns: _Columns, space: Space | None, modality: Modality | None
) -> tuple[Space, Modality]:
    """The space and the modality that all files agree on."""
    for file, schema in zip(files, schemas, strict=True):
        columns.require(schema, file)
    said = [_said(schema, file) for file, schema in zip(files, schemas, strict=True)]
    for file, one in zip(files, said, strict=True):
        if one != said[0]:
            raise SpaceMismatch(f"{files[0]} and {file} say that they hold different vectors. Read them one by one.")
    kind = schemas[0].field(columns.vectors).type
    dimension = int(kind.list_size) if pa.types.is_fixed_size_list(kind) else None
    if dimension is None:
        known = said[0][0] or space
        dimension = 0 if known is None else known.dimension
    space = resolve_space(said[0][0], space, source=files[0], dimension=dimension)
    return space, resolve_modality(said[0][1], modality, source=files[0], space=space)


def _joined(pieces: list[_Piece], files: list[Path], space: Space, modality: Modality, *, on_disk: bool) -> Embeddings:
    pieces = [piece for piece in pieces if len(piece.vectors)]
    if not pieces:
        raise InvalidVectors(f"A set of embeddings must not be empty, and {files[0]} has no rows.")
    rows = Rows([piece.vectors for piece in pieces], on_disk=on_disk)
    named = [piece.ids for piece in pieces if piece.ids is not None]
    columns = {name: np.concatenate([piece.metadata[name] for piece in pieces]) for name in pieces[0].metadata}
    ids = np.concatenate(named) if named else np.arange(len(rows))
    return Embeddings(ids, rows, space, modality, metadata=columns)


def _schema(embeddings: Embeddings, ids: str, vectors: str) -> pa.Schema:
    clash = sorted({ids, vectors} & set(embeddings.metadata))
    if clash or ids == vectors:
        raise ConfigError(
            f"Columns must have different names; {clash or ids!r} is taken twice. Name ids=… and vectors=…."
        )
    number = pa.from_numpy_dtype(embeddings.rows.dtype)
    fields = [pa.field(ids, pa.string()), pa.field(vectors, pa.list_(number, embeddings.dimension))]
    fields += [pa.field(name, metadata_array(name, column).type) for name, column in embeddings.metadata.items()]
    space = {**embeddings.space.to_dict(), "fingerprint": embeddings.space.fingerprint}
    notes: dict[bytes | str, bytes | str] = {
        SPACE_KEY: json.dumps(space, ensure_ascii=False).encode(),
        MODALITY_KEY: embeddings.modality,
    }
    return pa.schema(fields, metadata=notes)


def _batches(embeddings: Embeddings, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(embeddings), ROW_GROUP):
        part = slice(start, start + ROW_GROUP)
        arrays = [ids_array(embeddings.ids[part]), vectors_array(embeddings.rows.stored(start, start + ROW_GROUP))]
        for name, column in embeddings.metadata.items():
            arrays.append(metadata_array(name, column[part]).cast(schema.field(name).type))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
