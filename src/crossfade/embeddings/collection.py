"""The vectors of one data set in one space: its images, its texts, and which text describes which image.

On disk it is a folder with ``image/`` and ``text/`` (whichever there are, each as :meth:`Embeddings.save` writes it) and
``links.parquet``. One modality alone may also be any single file or folder that Crossfade reads.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossfade.embeddings.core import Embeddings
from crossfade.errors import ConfigError, FormatError
from crossfade.spaces import MODALITIES, Modality, Space, require_same

__all__ = ["Collection", "Links", "open_collection", "read_links", "write_links"]

Links = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Collection:
    """Embeddings by modality, all of one space, with their links as (text id, image id)."""

    sets: Mapping[Modality, Embeddings]
    links: Links = ()

    def __post_init__(self) -> None:
        if not self.sets:
            raise ConfigError("A collection must hold images, texts or both, and holds neither.")
        for embeddings in self.sets.values():
            require_same(embeddings.space, self.space, what=f"The {embeddings.modality} vectors of one collection")

    @property
    def space(self) -> Space:
        """The space that all of its vectors live in."""
        return next(iter(self.sets.values())).space


def open_collection(
    named: Mapping[str, str],
    *,
    space: Space | None = None,
    links: Path | None = None,
    metadata: Sequence[str] = (),
) -> Collection:
    """Open stored vectors.

    Args:
        named: modality → location; under the empty name, a location that says itself what it holds.
        space: where the vectors live, for files that do not say it.
        metadata: the columns of Parquet and Arrow files to keep, where they have them.
        links: a file of links; by default ``links.parquet`` in the folder, if it is there.

    Raises:
        FormatError: a location cannot be read.
        SpaceMismatch: its parts live in several spaces.
    """
    from crossfade.embeddings.locations import open_embeddings

    sets: dict[Modality, Embeddings] = {}
    found_links = links
    for name, location in named.items():
        path = Path(location)
        parts = {m: path / m for m in MODALITIES if (path / m / "embeddings.json").exists()}
        if name in MODALITIES:
            where = parts.get(name, path)
            opened = [open_embeddings(where, space=space, modality=name, metadata=metadata)]
        elif parts:
            opened = [open_embeddings(where, space=space) for where in parts.values()]
        else:
            opened = [open_embeddings(path, space=space, metadata=metadata)]
        sets.update({embeddings.modality: embeddings for embeddings in opened})
        if found_links is None and (path / "links.parquet").exists():
            found_links = path / "links.parquet"
    return Collection(sets, read_links(found_links) if found_links else ())


def write_links(path: Path, links: Links) -> None:
    """Write links as Parquet with the columns ``text`` and ``image``, in one step."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from crossfade.files import atomic_file

    table = pa.table({"text": [text for text, _ in links], "image": [image for _, image in links]})
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)


def read_links(path: Path) -> Links:
    """Read links from Parquet, CSV or JSONL with the columns ``text`` and ``image``.

    Raises:
        FormatError: the file is missing, of another format, or lacks a column.
    """
    try:
        return tuple(_links(path))
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing. Check the name of the file of links.") from error
    except (KeyError, ValueError, OSError) as error:
        raise FormatError(
            f"{path} must hold the columns text and image as Parquet, CSV or JSONL; found otherwise ({error})."
        ) from error


def _links(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path, columns=["text", "image"])
        columns = (table.column(name).to_pylist() for name in ("text", "image"))
        yield from ((str(text), str(image)) for text, image in zip(*columns, strict=True))
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from ((row["text"], row["image"]) for row in csv.DictReader(file))
    elif path.suffix in (".jsonl", ".ndjson"):
        with path.open(encoding="utf-8") as file:
            rows = (json.loads(line) for line in file if line.strip())
            yield from ((str(row["text"]), str(row["image"])) for row in rows)
    else:
        raise ValueError(f"unknown ending {path.suffix!r}")
