"""What the protocol needs on this machine, each thing a record, and what of it is not there.

::

    DATA/
      flickr30k/dataset_flickr30k.json                images/*.jpg
      coco/dataset_coco.json                          train2014/*.jpg, val2014/*.jpg
      nocaps/nocaps_val_4500_captions.json            images/*.jpg
      checkpoints/clip-vit-base-patch32/ …            or in the hub's cache
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crossfade.datasets import Dataset, open_dataset
from crossfade.datasets.images import ImageFile
from crossfade.datasets.sampling import Sampled
from crossfade.encoders.loading import PREFIXES
from crossfade.errors import CrossfadeError

__all__ = ["EVALUATED", "PAIRS", "TRAINING", "CaptionSet", "Hub", "Missing", "UpgradePair", "located", "missing"]

Scale = Literal["full", "small"]


@dataclass(frozen=True)
class Missing:
    """Something that is not there.

    Attributes:
        what: which thing.
        where: the file, folder or hub id at which it is looked for.
        how: where it comes from, and where to put it.
    """

    what: str
    where: str
    how: str

    def __str__(self) -> str:
        return f"{self.what}\n    looked for: {self.where}\n    {self.how}"


@dataclass(frozen=True)
class CaptionSet:
    """Captioned photographs, as their authors publish them.

    Attributes:
        name: of the set.
        what: in words.
        kind: the kind of data set that reads it.
        file: the captions, below DATA.
        folder: the images, below DATA.
        splits: those of the file that are read, with commas; empty for all, or where the file has none.
        images: how many there are.
        texts: how many captions there are.
        captions_from: where the file comes from.
        images_from: where the images come from.
    """

    name: str
    what: str
    kind: str
    file: str
    folder: str
    splits: str | None
    images: int
    texts: int
    captions_from: str
    images_from: str

    def open(self, data: Path) -> Dataset:
        """The data set below ``data``.

        Raises:
            DatasetError: the file is missing or of another form.
        """
        options = {"images": str(data / self.folder), "name": self.name}
        if self.splits is not None:
            options["splits"] = self.splits
        return open_dataset(data / self.file, kind=self.kind, options=options)


_KARPATHY = "It is in caption_datasets.zip of cs.stanford.edu/people/karpathy/deepimagesent; put it there."
_COCO = "They are train2014.zip and val2014.zip of cocodataset.org; unpack both there, as train2014/ and val2014/."

EVALUATED: dict[str, CaptionSet] = {
    one.name: one
    for one in (
        CaptionSet(
            "flickr30k",
            "Flickr30k, all splits",
            "karpathy",
            "flickr30k/dataset_flickr30k.json",
            "flickr30k/images",
            "",
            31_014,
            155_070,
            _KARPATHY,
            "They are sent on request by shannon.cs.illinois.edu/DenotationGraph; put them there, without subfolders.",
        ),
        CaptionSet(
            "coco",
            "COCO, val and restval",
            "karpathy",
            "coco/dataset_coco.json",
            "coco",
            "val,restval",
            35_504,
            177_644,
            _KARPATHY,
            _COCO,
        ),
        CaptionSet(
            "nocaps",
            "nocaps validation",
            "nocaps",
            "nocaps/nocaps_val_4500_captions.json",
            "nocaps/images",
            None,
            4_500,
            45_000,
            "It is on nocaps.org; put it there.",
            "The file names the address of each; put them there, under their file names.",
        ),
    )
}
"""What is searched."""

TRAINING = CaptionSet(
    "coco-train",
    "COCO, train (no image of it is searched)",
    "karpathy",
    "coco/dataset_coco.json",
    "coco",
    "train",
    82_783,
    414_113,
    _KARPATHY,
    _COCO,
)
"""What is trained on: our choice, since the paper's corpus is not published."""


@dataclass(frozen=True)
class Hub:
    """A checkpoint: the protocol's name of it, and the hub id of the same weights in the transformers format."""

    what: str
    id: str

    @property
    def folder(self) -> str:
        """Its folder below DATA, where it is kept outside the hub's cache."""
        return f"checkpoints/{self.id.partition('/')[2]}"


@dataclass(frozen=True)
class UpgradePair:
    """An old and a new model."""

    name: str
    old: Hub
    new: Hub


_B32 = Hub("CLIP ViT-B-32/openai", "openai/clip-vit-base-patch32")
PAIRS: dict[str, UpgradePair] = {
    one.name: one
    for one in (
        UpgradePair("l14-b32", _B32, Hub("CLIP ViT-L-14/openai", "openai/clip-vit-large-patch14")),
        UpgradePair("h14-b32", _B32, Hub("CLIP ViT-H-14/laion2b_s32b_b79k", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K")),
    )
}
"""The upgrades of the protocol."""


def missing(
    pair: UpgradePair,
    data: Path,
    *,
    sets: Sequence[str],
    scale: Scale = "full",
    old: str | None = None,
    new: str | None = None,
    texts: bool = False,
    fit_images: int = 0,
    seed: int = 0,
    download: bool = False,
) -> tuple[Missing, ...]:
    """All that a run would lack, found before any work; images are looked for by name and not opened.

    Args:
        pair: which checkpoints.
        data: the folder DATA.
        sets: keys of :data:`EVALUATED`.
        scale: ``small`` takes data of the same formats and any size.
        old: another encoder in the old one's place.
        new: another encoder in the new one's place.
        texts: whether a corpus is given, so that :data:`TRAINING` is needed for its images alone.
        fit_images: how many of :data:`TRAINING`'s images are encoded.
        seed: of that sample.
        download: whether checkpoints may be fetched from the hub, so that none is missing.
    """
    found = [lack for name in sets for lack in _lacks(EVALUATED[name], data, scale, None, seed)]
    if fit_images or not texts:
        found += _lacks(TRAINING, data, scale, fit_images, seed)
    for hub, other in ((pair.old, old), (pair.new, new)):
        if located(other or hub.id, data, hub=hub if other is None else None) is None and not download:
            how = f"Put it into {data / hub.folder}, or allow fetching it from the hub (--download)."
            found.append(Missing(f"checkpoint {other or hub.what}", f"hub id {other or hub.id}", how))
    return tuple({(lack.where, lack.what.partition(": ")[2]): lack for lack in reversed(found)}.values())[::-1]


def located(name: str, data: Path, *, hub: Hub | None = None) -> str | None:
    """What :func:`crossfade.load_encoder` loads without asking the network; None where there is nothing on this machine.

    Args:
        name: a hub id, a folder, or an encoder with its prefix.
        data: the folder DATA.
        hub: the record of ``name``, which may be below DATA.
    """
    if hub is not None and (data / hub.folder).is_dir():
        return str(data / hub.folder)
    if Path(name).is_dir() or name.partition(":")[0] in PREFIXES:
        return name
    hub_id, _, revision = name.partition("@")
    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(hub_id, revision=revision or None, local_files_only=True))
    except (ImportError, OSError, ValueError):  # no client of the hub; nothing in its cache; no hub id
        return None
    complete = (folder / "config.json").exists() and any(folder.glob("*.safetensors"))
    return f"{hub_id}@{folder.name}" if complete else None


def _lacks(one: CaptionSet, data: Path, scale: Scale, sample: int | None, seed: int) -> Iterator[Missing]:
    file, folder = data / one.file, data / one.folder
    if not file.is_file():
        yield Missing(f"{one.what}: captions", str(file), one.captions_from)
    if sample != 0 and not folder.is_dir():
        yield Missing(f"{one.what}: folder of images", str(folder), one.images_from)
    if not file.is_file() or (sample != 0 and not folder.is_dir()):
        return
    try:
        dataset = one.open(data)
        images = list((dataset if not sample else Sampled(dataset, sample, seed=seed)).images())
        count = len(images) if not sample else sum(1 for _ in dataset.images())
    except CrossfadeError as error:
        yield Missing(f"{one.what}: captions that can be read", str(file), str(error))
        return
    if scale == "full" and count != one.images:
        yield Missing(
            f"{one.what}: {one.images:,} images in the file, which names {count:,}", str(file), one.captions_from
        )
    absent = [] if sample == 0 else [i for i in images if isinstance(i.load, ImageFile) and not i.load.exists()]
    if absent:
        what = f"{one.what}: {len(absent):,} of {len(images):,} images, the first of them {absent[0].id}"
        yield Missing(what, str(folder), one.images_from)
