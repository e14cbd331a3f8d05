"""A sequence of models of the same items, v1 … vT, each seeing them better than the one before.

A hidden concept stands behind each image and its captions; version t sees it through a rotation of its own and with less
noise. So every step of an upgrade gains, and a chain of maps loses a little at each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import worlds

from crossfade.embeddings import Embeddings
from crossfade.pairing import Pairs, pair
from crossfade.spaces import Modality, Space

CAPTIONS = 2


@dataclass(frozen=True, eq=False)
class Versions:
    """``sets[t]``: the vectors of version t + 1, one set a modality."""

    sets: tuple[dict[Modality, Embeddings], ...]
    links: tuple[tuple[str, str], ...]

    def pairs(self, newer: int, older: int, items: slice = slice(None)) -> Pairs:
        """Pairs of two versions (numbered from 0), of some of the images and their captions."""
        olds, news = self.part(older, items), self.part(newer, items)
        known = set(olds[1].ids.tolist())
        return pair(olds, news, links=[link for link in self.links if link[0] in known])

    def part(self, version: int, items: slice) -> list[Embeddings]:
        """The images of ``items``, and their captions."""
        images = range(len(self.sets[version]["image"]))[items]
        texts = range(images.start * CAPTIONS, images.stop * CAPTIONS)
        return [self.sets[version]["image"].select(list(images)), self.sets[version]["text"].select(list(texts))]


def versions(
    dimensions: tuple[int, ...] = (12, 16, 20),
    noises: tuple[float, ...] = (0.9, 0.5, 0.2),
    images: int = 300,
    *,
    normalized: bool = True,
    seed: int = 0,
) -> Versions:
    """As many versions as ``dimensions``, the oldest first."""
    generator = np.random.default_rng(seed)
    meaning = generator.standard_normal((images, 12))
    owner = np.repeat(np.arange(images), CAPTIONS)
    made = []
    for number, (dimension, noise) in enumerate(zip(dimensions, noises, strict=True)):
        space = Space(model="model", revision=f"v{number + 1}", dimension=dimension, normalized=normalized)
        lift = worlds.orthogonal(12, dimension, seed=seed + 10 + number)
        sets: dict[Modality, Embeddings] = {}
        for modality, rows in (("image", meaning), ("text", meaning[owner])):
            seen = (rows + noise * generator.standard_normal(rows.shape)) @ lift
            vectors = worlds.unit(seen) if normalized else seen
            ids = [f"{modality}-{i}" for i in range(len(rows))]
            sets[modality] = Embeddings(ids, vectors.astype(np.float32), space, modality)
        made.append(sets)
    links = tuple((f"text-{t}", f"image-{i}") for t, i in enumerate(owner))
    return Versions(tuple(made), links)
