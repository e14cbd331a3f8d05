"""Folders of images, with or without captions beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem
from crossfade.datasets.images import IMAGE_SUFFIXES, ImageFile, image_suffix
from crossfade.datasets.lines import decode, read_bytes, unreadable
from crossfade.errors import DatasetError

__all__ = ["ImageFiles", "list_files"]


@final
@dataclass(frozen=True)
class ImageFiles(Dataset):
    """Every image below a folder, sorted by path; an image's id is its path below the folder.

    A file ``photo.txt`` beside ``photo.jpg`` holds its captions, one a line; blank lines are skipped. Their ids are
    ``photo.jpg#0``, ``photo.jpg#1``, …, by the number of the line. Hidden files are passed over.

    Attributes:
        path: the folder.
        captions: whether to read the .txt files. Where some images have one, a .txt without an image is taken for
            captions whose image is lost: its texts come last, linked to nothing.
        name: of the data set; by default the folder's.

    Raises:
        DatasetError: the folder is missing or holds no image, or a caption file is not UTF-8.
    """

    path: Path
    captions: bool = True
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path.resolve().name)
        if not self.path.is_dir():
            raise DatasetError(f"A folder of images must be a folder; found {self.path}. Check the path.")

    def images(self) -> Iterator[ImageItem]:
        """Every image, sorted by path."""
        for name in self._listing.images:
            yield ImageItem(name, ImageFile(self.path / name, name))

    def texts(self) -> Iterator[TextItem]:
        """Every caption, image by image."""
        for image, sidecar in self._captioned():
            yield from (TextItem(name, text) for name, text in self._lines(image, sidecar))
        for sidecar in self._imageless:
            yield from (TextItem(name, text) for name, text in self._lines(sidecar, sidecar))

    def links(self) -> Iterator[Link]:
        """Each caption with the image it stands beside."""
        for image, sidecar in self._captioned():
            yield from (Link(name, image) for name, _ in self._lines(image, sidecar))

    @cached_property
    def _listing(self) -> _Listing:
        files = list_files(self.path, suffixes=IMAGE_SUFFIXES | ({".txt"} if self.captions else set()))
        images = [name for name in files if not name.lower().endswith(".txt")]
        if not images:
            raise DatasetError(
                f"A folder of images must hold some ({', '.join(sorted(IMAGE_SUFFIXES))}); {self.path} holds none."
            )
        sidecars = {_stem(name): name for name in files if name.lower().endswith(".txt")}
        return _Listing(images, sidecars)

    def _captioned(self) -> Iterator[tuple[str, str]]:
        sidecars = self._listing.sidecars
        for image in self._listing.images:
            if sidecar := sidecars.get(_stem(image)):
                yield image, sidecar

    @cached_property
    def _imageless(self) -> list[str]:
        used = {sidecar for _, sidecar in self._captioned()}
        return [sidecar for sidecar in self._listing.sidecars.values() if sidecar not in used] if used else []

    def _lines(self, owner: str, sidecar: str) -> Iterator[tuple[str, str]]:
        path = self.path / sidecar
        for position, line in enumerate(decode(read_bytes(path), source=str(path)).split("\n")):
            if text := line.strip():
                yield f"{owner}#{position}", text


@dataclass(frozen=True, slots=True)
class _Listing:
    images: list[str]
    sidecars: dict[str, str]  # path without suffix → path


def list_files(folder: Path, *, suffixes: frozenset[str] | set[str]) -> list[str]:
    """The files below a folder that end in one of ``suffixes`` (any case), as sorted paths with ``/``, hidden ones
    left out.

    Links to folders are followed, but never into a folder that one is already in.

    Raises:
        DatasetError: a folder cannot be read, or a name is not UTF-8.
    """
    found: list[str] = []
    _walk(str(folder), "", frozenset(), suffixes, found)
    return sorted(found, key=lambda name: name.split("/"))


def _walk(
    folder: str, prefix: str, above: frozenset[tuple[int, int]], suffixes: frozenset[str] | set[str], found: list[str]
) -> None:
    try:
        status = Path(folder).stat()
        here = above | {(status.st_dev, status.st_ino)}
        if here == above:
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    _walk(entry.path, f"{prefix}{entry.name}/", here, suffixes, found)
                elif image_suffix(entry.name) in suffixes:
                    entry.name.encode()
                    found.append(prefix + entry.name)
    except UnicodeEncodeError as error:
        raise DatasetError(f"A file name below {folder} must be UTF-8; {error.object!r} is not. Rename it.") from error
    except OSError as error:
        raise unreadable(Path(folder), error) from error


def _stem(name: str) -> str:
    return name[: -len(image_suffix(name))]
