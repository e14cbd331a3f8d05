"""A few printed characters and their names, the demo encoders, and a φ between them: stage 2 of XBT in seconds."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

from PIL.Image import Image

from crossfade import Dataset, ImageItem, Link, TextItem, encode, load_encoder, pair
from crossfade.datasets.glyphs import render
from crossfade.encoders import TransformersDualEncoder
from crossfade.errors import CorruptItem
from crossfade.methods import Adapter, Procrustes

CHARACTERS = [
    chr(code) for start, stop in ((0x41, 0x5B), (0x391, 0x3A2), (0x400, 0x500)) for code in range(start, stop)
]
FACES = ("DejaVuSans", "DejaVuSerif")


class Few(Dataset):
    """Latin, Greek and Cyrillic letters, the first two typefaces in turn, with their names.

    Args:
        count: number of images; two of a character where there are many.
        broken: ids of images that cannot be read.
    """

    name = "few-glyphs"

    def __init__(self, count: int, *, broken: Sequence[str] = ()) -> None:
        step = max(len(CHARACTERS) * 3 // (2 * count), 1)
        drawn = [(c, face) for c in CHARACTERS[::step] for face in FACES][:count]
        self._images = [
            ImageItem(name, partial(_refuse, name) if name in broken else partial(render, c, face, size=40))
            for name, c, face in ((f"glyph/{ord(c):04X}/{face}", c, face) for c, face in drawn)
        ]
        self._links = [Link(f"name/{ord(c):04X}", f"glyph/{ord(c):04X}/{face}") for c, face in drawn]
        named = dict.fromkeys(c for c, _ in drawn)
        self._texts = [TextItem(f"name/{ord(c):04X}", unicodedata.name(c)) for c in named]

    def images(self) -> Iterator[ImageItem]:
        return iter(self._images)

    def texts(self) -> Iterator[TextItem]:
        return iter(self._texts)

    def links(self) -> Iterator[Link]:
        return iter(self._links)


def _refuse(name: str) -> Image:
    raise CorruptItem(f"{name} is truncated")


@lru_cache(maxsize=2)
def demo(which: str) -> TransformersDualEncoder:
    """The demo encoder ``old`` or ``new``, on the CPU."""
    encoder = load_encoder(f"demo:{which}", device="cpu")
    assert isinstance(encoder, TransformersDualEncoder)
    return encoder


@lru_cache(maxsize=1)
def projection() -> Adapter:
    """φ from the new to the old demo encoder, fitted on the names of all the characters."""
    texts = [(f"name/{ord(c):04X}", unicodedata.name(c)) for c in CHARACTERS if unicodedata.name(c, "")]
    return Procrustes().fit(pair([encode(texts, encoder=demo("old"))], [encode(texts, encoder=demo("new"))]), seed=0)
