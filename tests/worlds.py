"""Small synthetic worlds with known answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.pairing import Pairs, pair
from crossfade.spaces import Modality, Space

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class World:
    """Two models' vectors of the same items.

    ``truth`` is the matrix that maps new to old, where there is one; ``old`` and ``new`` have one set a modality.
    """

    old: dict[Modality, Embeddings]
    new: dict[Modality, Embeddings]
    links: tuple[tuple[str, str], ...] = ()
    truth: Doubles | None = None

    @property
    def source(self) -> Space:
        return next(iter(self.new.values())).space

    @property
    def target(self) -> Space:
        return next(iter(self.old.values())).space

    def pairs(self) -> Pairs:
        return pair(list(self.old.values()), list(self.new.values()), links=self.links)


def unit(vectors: Doubles) -> Doubles:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def spaces(d_s: int, d_t: int, *, normalized: bool = True) -> tuple[Space, Space]:
    """(new, old)."""
    return (
        Space(model="new-model", dimension=d_s, revision="2", normalized=normalized),
        Space(model="old-model", dimension=d_t, revision="1", normalized=normalized),
    )


def orthogonal(rows: int, columns: int, seed: int) -> Doubles:
    """[rows, columns] with orthonormal rows or columns, whichever are fewer."""
    u, _, vt = np.linalg.svd(np.random.default_rng(seed).standard_normal((rows, columns)), full_matrices=False)
    return u @ vt


def world(
    new: dict[Modality, Doubles],
    old: dict[Modality, Doubles],
    *,
    links: tuple[tuple[str, str], ...] = (),
    truth: Doubles | None = None,
    normalized: bool = True,
    dtype: type[np.floating] = np.float32,
) -> World:
    first = next(iter(new))
    source, target = spaces(new[first].shape[1], old[first].shape[1], normalized=normalized)
    ids = {m: [f"{m}-{i}" for i in range(len(rows))] for m, rows in new.items()}
    return World(
        old={m: Embeddings(ids[m], rows.astype(dtype), target, m) for m, rows in old.items()},
        new={m: Embeddings(ids[m], rows.astype(dtype), source, m) for m, rows in new.items()},
        links=links,
        truth=truth,
    )


def rotated(d_s: int = 12, d_t: int = 12, n: int = 200, seed: int = 0, dtype: type[np.floating] = np.float32) -> World:
    """old = n(new · R): Procrustes is exact. With d_s > d_t the new vectors lie in the row space that R keeps."""
    generator = np.random.default_rng(seed)
    rotation = orthogonal(d_s, d_t, seed + 1)
    new = generator.standard_normal((n, d_s))
    if d_s > d_t:
        new = new @ rotation @ rotation.T
    new = unit(new)
    return world({"image": new}, {"image": unit(new @ rotation)}, truth=rotation, dtype=dtype)


def affine(d_s: int = 10, d_t: int = 8, n: int = 400, noise: float = 0.0, seed: int = 0) -> World:
    """old = new · A + b + noise, A far from a rotation, nothing normalised: ridge is exact, Procrustes is not."""
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal((d_s, d_t)) * np.geomspace(0.1, 3.0, d_t)
    new = generator.standard_normal((n, d_s)) + 2.0
    old = new @ matrix + generator.standard_normal(d_t) + noise * generator.standard_normal((n, d_t))
    return world({"image": new}, {"image": old}, truth=matrix, normalized=False)


def two_modalities(
    d_s: int = 24,
    d_t: int = 16,
    items: int = 400,
    captions: int = 2,
    gap: float = 1.5,
    seed: int = 0,
    noise: float = 0.35,
) -> World:
    """Images and captions around two centroids, other ones in each space; a caption means what its image does."""
    generator = np.random.default_rng(seed)
    meaning = generator.standard_normal((items, d_t))
    lift = orthogonal(d_t, d_s, seed + 1)
    owner = np.repeat(np.arange(items), captions)

    def side(rows: Doubles, dimension: int, matrix: Doubles, centre: Doubles, blur: float) -> Doubles:
        return unit(rows @ matrix + gap * centre + blur * generator.standard_normal((len(rows), dimension)))

    flat = np.eye(d_t)
    centres = {key: generator.standard_normal(d) for key, d in (("ni", d_s), ("nt", d_s), ("oi", d_t), ("ot", d_t))}
    new = {
        "image": side(meaning, d_s, lift, centres["ni"], noise / 2),
        "text": side(meaning[owner], d_s, lift, centres["nt"], noise / 2),
    }
    old = {
        "image": side(meaning, d_t, flat, centres["oi"], noise),
        "text": side(meaning[owner], d_t, flat, centres["ot"], noise),
    }
    links = tuple((f"text-{t}", f"image-{i}") for t, i in enumerate(owner))
    return world(new, old, links=links, truth=lift.T)


def unrelated(d_s: int = 16, d_t: int = 16, n: int = 400, seed: int = 0, modality: Modality = "image") -> World:
    """Nothing in one space says anything about the other: no method may claim success."""
    generator = np.random.default_rng(seed)
    return world(
        {modality: unit(generator.standard_normal((n, d_s)))}, {modality: unit(generator.standard_normal((n, d_t)))}
    )


def two_maps(d_s: int = 12, d_t: int = 12, items: int = 500, noise: float = 0.25, seed: int = 0) -> World:
    """One caption an image; images and texts lie alike in the old space, and need two different rotations to get there."""
    generator = np.random.default_rng(seed)
    meaning = generator.standard_normal((items, d_t))

    def side(matrix: Doubles, blur: float) -> Doubles:
        rows = meaning @ matrix
        return unit(rows + blur * generator.standard_normal(rows.shape))

    lifts = {m: orthogonal(d_t, d_s, seed + 1 + i) for i, m in enumerate(("image", "text"))}
    new = {m: side(lift, noise / 2) for m, lift in lifts.items()}
    old = {m: side(np.eye(d_t), noise) for m in lifts}
    return world(new, old, links=tuple((f"text-{i}", f"image-{i}") for i in range(items)))
