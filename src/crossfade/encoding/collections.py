"""encode_dataset(): both modalities of a data set, and the links between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossfade.datasets.base import Dataset
from crossfade.embeddings import Embeddings
from crossfade.embeddings.collection import Collection, Links, write_links
from crossfade.encoders import Encoder, Role, load_encoder
from crossfade.encoding.items import Item
from crossfade.encoding.progress import ProgressOption
from crossfade.encoding.run import encode
from crossfade.errors import DatasetError
from crossfade.spaces import MODALITIES, Modality

__all__ = ["encode_dataset"]


def encode_dataset(
    dataset: Dataset,
    encoder: Encoder | str,
    out: str | Path,
    *,
    modalities: Sequence[Modality] = MODALITIES,
    role: Role = "document",
    batch_size: int = 64,
    progress: ProgressOption = False,
) -> Collection:
    """Encode what both the data set and the encoder have, into ``out``; a killed run goes on where it stopped.

    Args:
        dataset: the items.
        encoder: an encoder, or what :func:`crossfade.load_encoder` loads on the best device there is.
        out: the folder of the collection: ``image/``, ``text/`` and ``links.parquet``.
        modalities: which to encode; those that the data set or the encoder lacks are passed over.
        role: which of the encoder's text prefixes applies.
        batch_size: items in one forward pass.
        progress: show it on stderr, or call this with each :class:`~crossfade.encoding.Progress`.

    Returns:
        The vectors, memory-mapped, with the links of the items that could be encoded.

    Raises:
        DatasetError: nothing is left to encode.
        CrossfadeError: as :func:`crossfade.encode`.
    """
    model = load_encoder(encoder) if isinstance(encoder, str) else encoder
    folder = Path(out)
    sets: dict[Modality, Embeddings] = {}
    for modality in MODALITIES:
        if modality not in modalities or modality not in model.space.modalities:
            continue
        listing = _Listing(dataset.images if modality == "image" else dataset.texts)
        if listing:
            sets[modality] = encode(
                listing, encoder=model, out=folder / modality, batch_size=batch_size, role=role, progress=progress
            )
    if not sets:
        raise DatasetError(
            f"{dataset.name} must have something that {model.space.model} can encode "
            f"({', '.join(model.space.modalities)}), and has nothing. Choose another encoder or data set."
        )
    links: Links = ()
    if len(sets) == len(MODALITIES):
        known = {modality: set(embeddings.ids.tolist()) for modality, embeddings in sets.items()}
        links = tuple(
            (link.text, link.image)
            for link in dataset.links()
            if link.text in known["text"] and link.image in known["image"]
        )
        if links:
            write_links(folder / "links.parquet", links)
    return Collection(sets, links)


@dataclass(frozen=True)
class _Listing:
    """The items of one modality, read anew at each pass; counted once, so that the cost can be told beforehand."""

    read: Callable[[], Iterator[Item]]

    def __iter__(self) -> Iterator[Item]:
        return self.read()

    def __len__(self) -> int:
        return sum(1 for _ in self.read())

    def __bool__(self) -> bool:
        return any(True for _ in self.read())
