"""Captioned photographs as their authors publish them: Karpathy's splits of COCO and Flickr, COCO's own JSON, nocaps.

An image's id is its file name, so that it joins with a folder of the same images. A text's id is the number that the
file gives it (``sentid``; the annotation's ``id``), which in COCO is the same in both formats.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem, Value
from crossfade.datasets.images import ImageFile
from crossfade.datasets.lines import read_json_document, require_file
from crossfade.errors import DatasetError

__all__ = ["CocoCaptions", "KarpathyCaptions"]


@dataclass(frozen=True, slots=True)
class _Photograph:
    id: str
    path: Path
    captions: tuple[tuple[str, str], ...]  # (text id, text)
    metadata: Mapping[str, Value] = field(default_factory=dict)


class _CaptionFile(Dataset):
    """What both formats share once they are read."""

    @property
    @abstractmethod
    def _photographs(self) -> list[_Photograph]:
        """Every image with its captions, in the order of the file."""

    @property
    @abstractmethod
    def _imageless(self) -> tuple[tuple[str, str], ...]:
        """Captions of images that the file does not name: (text id, text)."""

    def images(self) -> Iterator[ImageItem]:
        """Every image in the order of the file."""
        for one in self._photographs:
            yield ImageItem(one.id, ImageFile(one.path, one.id), one.metadata)

    def texts(self) -> Iterator[TextItem]:
        """Every caption, image by image; blank ones are skipped, and captions of unknown images come last."""
        for one in self._photographs:
            for name, text in one.captions:
                yield TextItem(name, text, one.metadata)
        for name, text in self._imageless:
            yield TextItem(name, text)

    def links(self) -> Iterator[Link]:
        """Each caption with its image."""
        for one in self._photographs:
            yield from (Link(name, one.id) for name, _ in one.captions)


@final
@dataclass(frozen=True)
class KarpathyCaptions(_CaptionFile):
    """``dataset_coco.json``, ``dataset_flickr8k.json`` or ``dataset_flickr30k.json``.

    Source: A. Karpathy and L. Fei-Fei, *Deep Visual-Semantic Alignments for Generating Image Descriptions*, CVPR 2015.

    Attributes:
        path: the JSON file.
        image_root: the folder of images; where the file gives a ``filepath`` (COCO's ``val2014``), that folder is
            looked for below it first. By default the folder of the JSON file.
        splits: which to read: ``train``, ``val``, ``test``, and in COCO ``restval``; empty for all of them.
        name: of the data set; by default the file's.

    Raises:
        DatasetError: the file is missing, is not this format, or has no such split.
    """

    path: Path
    image_root: Path | None = None
    splits: tuple[str, ...] = ("test",)
    name: str = ""

    def __post_init__(self) -> None:
        require_file(self.path, what="A caption file")
        object.__setattr__(self, "name", self.name or self.path.stem)

    @cached_property
    def _imageless(self) -> tuple[tuple[str, str], ...]:
        return ()

    @cached_property
    def _photographs(self) -> list[_Photograph]:
        found: set[str] = set()

        def keep(value: dict[str, Any]) -> dict[str, Any] | None:
            """Drop the tokens, and the images of other splits, while parsing: nine tenths of the file."""
            value.pop("tokens", None)
            if "sentences" not in value:
                return value
            split = str(value.get("split", ""))
            found.add(split)
            return value if not self.splits or split in self.splits else None

        document = read_json_document(self.path, hook=keep)
        if not isinstance(document, dict) or not isinstance(document.get("images"), list) or not found:
            raise DatasetError(
                f"{self.path} must have the key 'images' with 'sentences' in each, as Karpathy's files do, and has not."
            )
        unknown = sorted(set(self.splits) - found)
        if unknown:
            raise DatasetError(
                f"{self.path} has the splits {', '.join(sorted(found))}; found {', '.join(unknown)}. Choose among them."
            )
        return [self._photograph(image) for image in document["images"] if image is not None]

    def _photograph(self, image: dict[str, Any]) -> _Photograph:
        try:
            name = str(image["filename"])
            captions = tuple(
                (str(sentence.get("sentid", f"{name}#{position}")), str(sentence["raw"]))
                for position, sentence in enumerate(image["sentences"])
                if str(sentence["raw"]).strip()
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"Every image of {self.path} must have 'filename' and 'sentences' with 'raw'; {image!r:.200} has not "
                f"({error})."
            ) from error
        return _Photograph(
            name, self._place(image.get("filepath", ""), name), captions, {"split": str(image.get("split", ""))}
        )

    def _place(self, folder: str, name: str) -> Path:
        return self._root / (folder if folder in self._subfolders else "") / name

    @property
    def _root(self) -> Path:
        return self.image_root or self.path.parent

    @cached_property
    def _subfolders(self) -> frozenset[str]:
        try:
            with os.scandir(self._root) as entries:
                return frozenset(entry.name for entry in entries if entry.is_dir())
        except OSError:  # the images are not here; each one says so when it is loaded
            return frozenset()


@final
@dataclass(frozen=True)
class CocoCaptions(_CaptionFile):
    """COCO's caption annotations (``captions_val2017.json``), and nocaps validation, which has the same form.

    Sources: X. Chen et al., *Microsoft COCO Captions*, 2015; H. Agrawal et al., *nocaps*, ICCV 2019.

    Attributes:
        path: the JSON file with ``images`` and ``annotations``.
        image_root: the folder of images; by default that of the JSON file.
        info: another JSON file whose ``images`` carry the ``domain`` (nocaps publishes it apart, as the image info).
        name: of the data set; by default the file's.

    An image's ``domain`` (nocaps: ``in-domain``, ``near-domain``, ``out-domain``), where there is one, is metadata
    of the image and of its captions.

    Raises:
        DatasetError: a file is missing or is not of this form.
    """

    path: Path
    image_root: Path | None = None
    info: Path | None = None
    name: str = ""

    def __post_init__(self) -> None:
        require_file(self.path, what="A caption file")
        object.__setattr__(self, "name", self.name or self.path.stem)

    @cached_property
    def _annotated(self) -> tuple[list[dict[str, Any]], dict[Any, list[tuple[str, str]]]]:
        """The images, and the captions by the number of their image."""
        document = read_json_document(self.path)
        if not isinstance(document, dict) or not all(
            isinstance(document.get(key), list) for key in ("images", "annotations")
        ):
            raise DatasetError(
                f"{self.path} must have the keys 'images' and 'annotations', as COCO's captions do, and has not."
            )
        captions: dict[Any, list[tuple[str, str]]] = {}
        try:
            for number, one in enumerate(document["annotations"]):
                if one["caption"].strip():
                    captions.setdefault(one["image_id"], []).append((str(one.get("id", number)), one["caption"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"Every annotation of {self.path} must have 'image_id' and 'caption'; {one!r:.200} has not ({error}). "
                "These may be COCO's instances: open its captions."
            ) from error
        return document["images"], captions

    @cached_property
    def _imageless(self) -> tuple[tuple[str, str], ...]:
        images, captions = self._annotated
        known = {image["id"] for image in images}
        return tuple(caption for number, some in captions.items() if number not in known for caption in some)

    @cached_property
    def _photographs(self) -> list[_Photograph]:
        images, captions = self._annotated
        root = self.image_root or self.path.parent
        try:
            domains = [str(image.get("domain") or self._domains.get(image["id"], "")) for image in images]
            known = any(domains)
            return [
                _Photograph(
                    image["file_name"],
                    root / image["file_name"],
                    tuple(captions.get(image["id"], ())),
                    {"domain": domain} if known else {},
                )
                for image, domain in zip(images, domains, strict=True)
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"Every image of {self.path} must have 'id' and 'file_name'; one has not ({error})."
            ) from error

    @cached_property
    def _domains(self) -> dict[Any, str]:
        if self.info is None:
            return {}
        document = read_json_document(self.info)
        images = document.get("images") if isinstance(document, dict) else None
        if not isinstance(images, list) or not all(
            isinstance(one, dict) and {"id", "domain"} <= set(one) for one in images
        ):
            raise DatasetError(
                f"{self.info} must have 'images', each with 'id' and 'domain', and has not. Name nocaps' image info."
            )
        return {one["id"]: str(one["domain"]) for one in images}
