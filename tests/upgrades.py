"""A small cross-modal upgrade with a known answer: two dual encoders' vectors of the same pictures and captions, on disk.

A hidden concept vector stands behind each picture. The old model sees it through a rotation and much noise, the new one
through another and little; captions are the same with noise of their own. So mapped/old beats old/old, and new/new both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfade import Collection, Embeddings, Space
from crossfade.embeddings.collection import write_links

CAPTIONS = 2


@dataclass(frozen=True)
class Upgrade:
    """The folders of both sides, and what stands in them."""

    old_folder: Path
    new_folder: Path
    old: Collection
    new: Collection


def make_upgrade(root: Path, *, images: int = 400, noise: float = 0.9, swap: bool = False, seed: int = 0) -> Upgrade:
    """Write the upgrade under ``root``; with ``swap`` the new model is the noisy one, and nothing can be gained."""
    generator = np.random.default_rng(seed)
    concepts = generator.standard_normal((images, 12))
    links = tuple((f"t{i}-{c}", f"i{i}") for i in range(images) for c in range(CAPTIONS))
    made = {}
    for name, dimension, level in (("old", 12, noise), ("new", 16, 0.15)):
        level = level if not swap else {"old": 0.15, "new": 2.5}[name]
        lift = np.linalg.qr(generator.standard_normal((dimension, dimension)))[0][:12]
        space = Space(model=f"{name}-model", revision="r1", dimension=dimension)
        seen = {"image": concepts, "text": np.repeat(concepts, CAPTIONS, axis=0)}
        ids = {"image": [f"i{i}" for i in range(images)], "text": [text for text, _ in links]}
        sets = {}
        for modality, rows in seen.items():
            vectors = (rows + level * generator.standard_normal(rows.shape)) @ lift
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            parity = ["even" if row % 2 == 0 else "odd" for row in range(len(rows))]
            sets[modality] = Embeddings(
                ids[modality], vectors.astype(np.float32), space, modality, metadata={"parity": parity}
            )
            sets[modality].save(root / name / modality)
        write_links(root / name / "links.parquet", links)
        made[name] = Collection(sets, links)
    return Upgrade(root / "old", root / "new", made["old"], made["new"])
