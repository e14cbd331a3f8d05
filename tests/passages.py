"""A gallery of texts to be upgraded, as a retriever of another library sees it: row n has the text "n"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from uuid import UUID

import numpy as np
from live import NEW, OLD, OLD_DIMENSION, QUERY, seen
from PIL import Image
from stores import maker_of

from crossfade import Embeddings, Encoder, Space
from crossfade.encoders import Role
from crossfade.methods import METHODS, Adapter
from crossfade.pairing import pair
from crossfade.stores import Id, Records, Store, VectorField, Vectors
from crossfade.stores.ids import IdKind
from crossfade.upgrading import Pace, Upgrade, backfill, cutover, finish, plan_upgrade, rollback

ROWS = 60
IDS: dict[IdKind, list[Id]] = {
    "string": [f"строка-{n}-行" for n in range(ROWS)],
    "integer": [7 * n - 50 for n in range(ROWS)],
    "uuid": [str(UUID(int=n)) for n in range(ROWS)],
}


class Digits(Encoder):
    """A text names a content in digits; as a query, the query for it. An image is of one colour, its content."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.asked: list[tuple[Role, int]] = []

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> np.ndarray:
        self.asked.append((role, len(texts)))
        return seen([int(text) + (QUERY if role == "query" else 0) for text in texts], self.space)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.asked.append(("document", len(images)))
        return seen([image.getpixel((0, 0))[0] for image in images], self.space)  # type: ignore[index]

    def __repr__(self) -> str:
        return f"Digits({self.space})"


class Blind(Encoder):
    """No tower at all."""

    space = OLD

    def __repr__(self) -> str:
        return "Blind()"


@lru_cache
def adapter() -> Adapter:
    contents = list(range(500_000, 500_400))
    old, new = (Embeddings(contents, seen(contents, space), space, "text") for space in (OLD, NEW))
    return METHODS["ridge"]().fit(pair(old, new))


def filled(folder: Path, *, name: str = "memory", ids: IdKind = "string") -> Store:
    """A gallery of texts by the old model; row n has the text "n"."""
    records = Records(
        IDS[ids],
        {"old": Vectors.of(seen(range(ROWS), OLD))},
        {
            "text": [str(n) for n in range(ROWS)],
            "kind": ["even", "odd"] * (ROWS // 2),
            "number": list(range(ROWS)),
        },
    )
    columns = {"text": "string", "kind": "string", "number": "integer"}
    store = maker_of(name, folder).make([VectorField("old", OLD_DIMENSION, "cosine")], columns, ids, records)
    store.register("old", OLD, "text")
    return store


def planned(store: Store, folder: Path) -> Upgrade:
    plan_upgrade(store, adapter(), out=folder / "upgrade", field="old", new_field="new")
    return Upgrade.open(folder / "upgrade")


def stages(store: Store, upgrade: Upgrade, ids: Sequence[Id]) -> Iterator[str]:
    """One after the other, the ways in which a collection is searched."""
    contents = {id_: n for n, id_ in enumerate(ids)}

    def embed(asked: np.ndarray) -> np.ndarray:
        return seen([contents[id_ if id_ in contents else int(id_)] for id_ in asked], NEW)

    yield "old"
    cutover(upgrade, store, force="a test")
    yield "mapped"
    backfill(upgrade, store, embed, sample=20, pace=Pace(batch=10, limit=ROWS // 2))
    yield "mixed"
    backfill(upgrade, store, embed)
    finish(upgrade, store)
    yield "native"
    rollback(upgrade, store, reason="a test")
    yield "old"


def by_cosine(query: np.ndarray, gallery: np.ndarray, k: int) -> tuple[list[str], np.ndarray]:
    cosines = gallery @ query / np.linalg.norm(query)
    best = np.argsort(-cosines)[:k]
    return [str(n) for n in best], cosines[best]
