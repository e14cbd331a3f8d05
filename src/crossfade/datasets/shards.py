"""Images and texts packed in tar shards: as img2dataset and webdataset write them, and as CLIP_benchmark lays them out.

A shard is read in order, one header after the other; an image's bytes are read only when its ``load`` is called,
straight from their place in the shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final, get_args

from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem, Value
from crossfade.datasets.images import ImageSlice
from crossfade.datasets.labelled import class_text
from crossfade.datasets.lines import decode, read_bytes
from crossfade.datasets.metadata import note, typed
from crossfade.datasets.tars import Sample, Truncated, expand, open_shard, samples
from crossfade.errors import ConfigError, DatasetError

__all__ = ["ClipBenchmark", "WebDataset"]

_NOT_METADATA = frozenset({"key", "id", "caption", "text", "texts", "captions", "exif"})


@dataclass(frozen=True, slots=True)
class _Record:
    """One sample, read but for its image."""

    sample: Sample
    id: str
    texts: tuple[tuple[int, str], ...]
    metadata: dict[str, Value]


@final
@dataclass(frozen=True)
class WebDataset(Dataset):
    """Shards of webdataset, as img2dataset writes them: members ``KEY.jpg``, ``KEY.txt``, ``KEY.json``.

    An image's id is ``key`` or ``id`` of its .json, or else its key; its caption is the .txt, or else ``caption`` or
    ``text`` of the .json, and has the id ``ID#0``. Strings and numbers of the .json are metadata (``exif`` is not); the
    first sample says which there are.

    Attributes:
        path: a .tar, a folder of them, a glob (``*.tar``) or a range (``{00000..00009}.tar``).
        caption_lines: whether each line of a .txt is a caption of its own.
        shard_prefix: whether ids begin with the shard's name, as ``00003/000000017``: for shards that each count
            from 0.
        truncated: ``raise`` an error after the last whole sample of a truncated shard, or ``skip`` to the next with
            a warning.
        name: of the data set; by default its folder's.

    Raises:
        DatasetError: a shard is missing, truncated or no tar, or a text is not UTF-8.
    """

    path: Path
    caption_lines: bool = False
    shard_prefix: bool = False
    truncated: Truncated = "raise"
    name: str = ""

    def __post_init__(self) -> None:
        if self.truncated not in get_args(Truncated):
            raise ConfigError(
                f"The option truncated is one of {', '.join(get_args(Truncated))}; found {self.truncated!r}."
            )
        whole = self.path if self.path.is_dir() else self.path.parent
        object.__setattr__(self, "name", self.name or whole.resolve().name)
        _ = self._shards

    def images(self) -> Iterator[ImageItem]:
        """Every sample with an image, shard by shard."""
        for record in self._records():
            if member := record.sample.image:
                load = ImageSlice(record.sample.shard, member.offset, member.size, record.id)
                yield ImageItem(record.id, load, record.metadata)

    def texts(self) -> Iterator[TextItem]:
        """Every caption, shard by shard; blank ones are skipped."""
        for record in self._records():
            for position, text in record.texts:
                yield TextItem(f"{record.id}#{position}", text, record.metadata)

    def links(self) -> Iterator[Link]:
        """Each caption with the image of its sample."""
        for record in self._records():
            if record.sample.image:
                yield from (Link(f"{record.id}#{position}", record.id) for position, _ in record.texts)

    @cached_property
    def _shards(self) -> list[Path]:
        return expand(self.path)

    def _records(self) -> Iterator[_Record]:
        columns: dict[str, bool] = {}
        first = True
        for shard in self._shards:
            with open_shard(shard) as file:
                for sample in samples(shard, file, truncated=self.truncated):
                    values = sample.json(file)
                    if first:
                        note(columns, {name: value for name, value in values.items() if name not in _NOT_METADATA})
                        first = False
                    texts = tuple(_captions(sample.text(file, "txt"), values, by_line=self.caption_lines))
                    yield _Record(sample, self._id(sample, values), texts, typed(values, columns))

    def _id(self, sample: Sample, values: dict[str, Any]) -> str:
        named = next((values[name] for name in ("key", "id") if isinstance(values.get(name), str | int)), sample.key)
        return f"{sample.shard.stem}/{named}" if self.shard_prefix else str(named)


@final
@dataclass(frozen=True)
class ClipBenchmark(Dataset):
    """CLIP_benchmark's layout of a task, for retrieval (captions) or classification (labels).

    ::

        PATH/classnames.txt            one class a line (classification)
        PATH/test/nshards.txt          the number of shards
        PATH/test/0.tar, 1.tar, …      KEY.jpg (or .png, .webp) with KEY.txt, one caption a line, or KEY.cls, a
        class's number

    An image's id is its key. A caption's is ``KEY#0``, ``KEY#1``, …. A label becomes metadata: ``label`` the number,
    and ``class_name`` its line in ``classnames.txt``.

    Attributes:
        path: the folder of the task, or of one split of it.
        split: the subfolder, usually ``train`` or ``test``.
        template: where given, each class has a text, ``{}`` standing for its name, linked to its images; its id is
            the label.
        shard_prefix: whether ids begin with the shard's number, for shards that each count from 0.
        name: of the data set; by default the folder's.

    Raises:
        DatasetError: the folder is not of this layout, or a shard is missing, truncated or no tar.
    """

    path: Path
    split: str = "test"
    template: str = ""
    shard_prefix: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path.resolve().name)
        if self.template:
            class_text(self.template, "")
        _ = self._shards

    def images(self) -> Iterator[ImageItem]:
        """Every image, shard by shard."""
        for record in self._records():
            if member := record.sample.image:
                load = ImageSlice(record.sample.shard, member.offset, member.size, record.id)
                yield ImageItem(record.id, load, record.metadata)

    def texts(self) -> Iterator[TextItem]:
        """Every caption, shard by shard; with a template, one text a class after them."""
        for record in self._records():
            for position, text in record.texts:
                yield TextItem(f"{record.id}#{position}", text)
        if self.template:
            for label, name in enumerate(self._classes):
                yield TextItem(str(label), class_text(self.template, name))

    def links(self) -> Iterator[Link]:
        """Each caption with its image, and with a template each class's text with its images."""
        for record in self._records():
            if record.sample.image:
                yield from (Link(f"{record.id}#{position}", record.id) for position, _ in record.texts)
                if self.template and "label" in record.metadata:
                    yield Link(str(record.metadata["label"]), record.id)

    @cached_property
    def _task(self) -> Path:
        return self.path.parent if (self.path / "nshards.txt").is_file() else self.path

    @cached_property
    def _shards(self) -> list[Path]:
        folder = self.path if (self.path / "nshards.txt").is_file() else self.path / self.split
        count = folder / "nshards.txt"
        if not count.is_file():
            splits = sorted(found.parent.name for found in self.path.glob("*/nshards.txt"))
            hint = f"Its splits are {', '.join(splits)}: name one." if splits else "Open other shards as webdataset."
            raise DatasetError(f"A CLIP_benchmark task must have {self.split}/nshards.txt; {self.path} has not. {hint}")
        text = decode(read_bytes(count), source=str(count)).strip()
        if not text.isdigit():
            raise DatasetError(f"{count} must hold the number of shards; found {text!r:.40}.")
        if int(text) == 0:
            raise DatasetError(f"{count} must name at least one shard, and names 0.")
        shards = [folder / f"{number}.tar" for number in range(int(text))]
        missing = [shard for shard in shards if not shard.is_file()]
        if missing:
            raise DatasetError(
                f"{count} promises {text} shards; {len(missing)} are missing, the first is {missing[0]}. Bring it."
            )
        return shards

    @cached_property
    def _classes(self) -> list[str]:
        path = self._task / "classnames.txt"
        return decode(read_bytes(path), source=str(path)).rstrip("\n").split("\n") if path.is_file() else []

    def _records(self) -> Iterator[_Record]:
        for shard in self._shards:
            with open_shard(shard) as file:
                for sample in samples(shard, file):
                    name = f"{shard.stem}/{sample.key}" if self.shard_prefix else sample.key
                    texts = tuple(_captions(sample.text(file, "txt"), {}, by_line=True))
                    yield _Record(sample, name, texts, self._label(sample, sample.text(file, "cls")))

    def _label(self, sample: Sample, text: str | None) -> dict[str, Value]:
        if text is None:
            return {}
        if not text.strip().isdigit():
            raise DatasetError(
                f"{sample.shard}, member {sample.key}.cls, must hold the number of a class; found {text!r:.40}."
            )
        label = int(text)
        if not self._classes:
            return {"label": label}
        if label >= len(self._classes):
            raise DatasetError(
                f"{sample.shard}, member {sample.key}.cls, must name one of {len(self._classes)} classes of "
                f"classnames.txt; found {label}."
            )
        return {"label": label, "class_name": self._classes[label]}


def _captions(text: str | None, values: dict[str, Any], *, by_line: bool) -> Iterator[tuple[int, str]]:
    """The captions of one sample with their positions."""
    if text is None:
        found = next((values[name] for name in ("caption", "text", "captions", "texts") if values.get(name)), None)
        several = found if isinstance(found, list) else [found]
    else:
        several = text.split("\n") if by_line else [text]
    for position, one in enumerate(several):
        if isinstance(one, str) and one.strip():
            yield position, one.strip()
