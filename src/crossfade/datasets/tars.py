"""Samples of a webdataset tar: consecutive members whose names agree up to the first dot."""

from __future__ import annotations

import os
import re
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from crossfade.datasets.images import IMAGE_SUFFIXES
from crossfade.datasets.lines import decode, parse_json, unreadable
from crossfade.errors import DatasetError

__all__ = ["Member", "Sample", "Truncated", "expand", "open_shard", "samples"]

Truncated = Literal["raise", "skip"]
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, slots=True)
class Member:
    """Where one file of a tar lies: ``size`` bytes at ``offset``."""

    offset: int
    size: int


@dataclass(slots=True)
class Sample:
    """The members of one key, by extension without the dot, in lower case."""

    shard: Path
    key: str
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def image(self) -> Member | None:
        """The image, or None."""
        return next((member for extension, member in self.members.items() if f".{extension}" in IMAGE_SUFFIXES), None)

    def text(self, file: BinaryIO, extension: str) -> str | None:
        """The UTF-8 text of a member, or None where the sample has none.

        Raises:
            DatasetError: it is not UTF-8.
        """
        member = self.members.get(extension)
        if member is None:
            return None
        file.seek(member.offset)
        return decode(file.read(member.size), source=f"{self.shard}, member {self.key}.{extension}")

    def json(self, file: BinaryIO) -> dict[str, Any]:
        """The .json member, or an empty mapping.

        Raises:
            DatasetError: it is not a JSON object in UTF-8.
        """
        text = self.text(file, "json")
        if text is None:
            return {}
        value = parse_json(text, source=f"{self.shard}, member {self.key}.json")
        if not isinstance(value, dict):
            raise DatasetError(
                f"{self.shard}, member {self.key}.json, must be a JSON object; found {type(value).__name__}."
            )
        return value


def samples(shard: Path, file: BinaryIO, *, truncated: Truncated = "raise") -> Iterator[Sample]:
    """The samples of an open, uncompressed tar in its order, in one pass that reads the members' headers only.

    Every whole sample before a break is yielded. One that is cut is not, nor one at the break that lacks a member which
    the sample before it has.

    Args:
        shard: its path, for errors.
        file: the same, open.
        truncated: after the last whole sample of an archive that ends early, ``raise``, or ``skip`` the rest with a
            warning.

    Raises:
        DatasetError: it ends early, holds a name twice, or is not an uncompressed tar.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        archive = tarfile.TarFile(fileobj=file, mode="r")
    except (tarfile.TarError, OSError) as error:
        raise DatasetError(
            f"{shard} must be an uncompressed .tar and cannot be read as one ({error}). Decompress it (gunzip), or "
            "copy it again."
        ) from error
    current: Sample | None = None
    usual: set[str] = set()  # the members that the sample before had
    broken = ""
    with archive:
        while True:
            try:
                member = archive.next()
            except (tarfile.TarError, OSError, ValueError) as error:
                broken = str(error)
                break
            if member is None:
                break
            name = _NAME.fullmatch(member.name)
            if not member.isfile() or name is None or Path(member.name).name.startswith("."):
                continue
            key, extension = name[1], name[2].lower()
            if current is not None and current.key != key:
                yield current
                usual, current = set(current.members), None
            if member.offset_data + member.size > size:
                current, broken = None, f"the member {member.name} is cut"
                break
            current = current or Sample(shard, key)
            if extension in current.members:
                raise DatasetError(f"{shard} must hold each name once; {member.name} comes twice. Pack it again.")
            current.members[extension] = Member(member.offset_data, member.size)
        if not broken:
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                broken = f"no end-of-archive mark at offset {archive.offset}"
        if current is not None and not (broken and usual - set(current.members)):
            yield current
    if broken:
        said = f"{shard} is truncated or damaged ({broken})."
        if truncated == "raise":
            raise DatasetError(f"{said} Copy it again, or skip what is lost with the option truncated=skip.")
        warnings.warn(f"{said} The rest of it was skipped.", stacklevel=2)


def expand(location: Path) -> list[Path]:
    """The shards that a location names: a .tar, a folder of them, a glob, or a range such as ``{00000..00009}.tar``.

    Raises:
        DatasetError: it names none, or one that is missing.
    """
    text = str(location)
    if location.is_dir():
        found = sorted(location.glob("*.tar"))
    elif location.is_file():
        found = [location]
    elif _BRACES.search(text):
        found = [Path(one) for one in _ranges(text)]
    else:
        anchor = location.anchor or "."
        found = sorted(Path(anchor).glob(text[len(location.anchor) :])) if text else []
    if not found:
        raise DatasetError(f"A shard must be a .tar file; {location} names none. Check the path or the pattern.")
    missing = [str(shard) for shard in found if not shard.is_file()]
    if missing:
        raise DatasetError(
            f"Every shard must be there; {len(missing)} of {len(found)} are missing, the first is {missing[0]}. Bring "
            "it, or name fewer."
        )
    return found


def open_shard(shard: Path) -> BinaryIO:
    """Open a shard for reading.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return open(shard, "rb")
    except OSError as error:
        raise unreadable(shard, error) from error


def _ranges(text: str) -> Iterator[str]:
    match = _BRACES.search(text)
    if match is None:
        yield text
        return
    first, last = match[1], match[2]
    width = len(first) if first.startswith("0") else 0
    for number in range(int(first), int(last) + 1):
        yield from _ranges(f"{text[: match.start()]}{number:0{width}d}{text[match.end() :]}")
