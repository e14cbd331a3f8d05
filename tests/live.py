"""A running system to be upgraded: an application whose items have contents, seen by an old model and by a new one.

The content of an item is a number; behind it stands a hidden concept. Both models see it, the old one through much noise, so
that the upgrade helps. Everything is a function of the number: whoever knows the contents knows every vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from stores import Maker

from crossfade import Embeddings, Encoder, Evaluation, Relevance, Space, evaluate
from crossfade.encoders import Role
from crossfade.methods import METHODS, Adapter
from crossfade.pairing import pair
from crossfade.stores import Id, Records, Store, VectorField, Vectors
from crossfade.upgrading import Upgrade, plan_upgrade

CONCEPTS, OLD_DIMENSION, NEW_DIMENSION = 12, 12, 16
OLD = Space(model="old-model", revision="1", dimension=OLD_DIMENSION)
NEW = Space(model="new-model", revision="2", dimension=NEW_DIMENSION)
QUERY = 1_000_000
"""Contents from here on are queries: the query of content c is c + QUERY, the same concept seen anew."""


@lru_cache
def lift(dimension: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(dimension).standard_normal((dimension, dimension)))[0][:CONCEPTS]


def seen(contents: Sequence[int], space: Space) -> np.ndarray:
    """Vectors of contents or queries by one model."""
    noise, dimension = (0.9, OLD_DIMENSION) if space == OLD else (0.15, NEW_DIMENSION)
    rows = []
    for content in contents:
        concept = np.random.default_rng([7, content % QUERY]).standard_normal(CONCEPTS)
        blur = np.random.default_rng([8, content, dimension]).standard_normal(CONCEPTS)
        rows.append((concept + noise * blur) @ lift(dimension))
    found = np.asarray(rows, dtype=np.float32).reshape(-1, dimension)
    unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


class Numbers(Encoder):
    """Either model as an encoder: an image is an array of one pixel that holds a content, a text is a content in digits."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def encode_images(self, images: Sequence[Any]) -> np.ndarray:
        return seen([int(np.asarray(image).ravel()[0]) for image in images], self.space)

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> np.ndarray:
        return seen([int(text) for text in texts], self.space)

    def truncated(self, texts: Sequence[str], *, role: Role = "document") -> int | None:
        return len(texts) if self.space == NEW else 0

    def __repr__(self) -> str:
        return f"Numbers({self.space})"


def queries(contents: Sequence[int], space: Space) -> Embeddings:
    """The queries for contents, as the model of a space sees them."""
    asked = [content + QUERY for content in contents]
    return Embeddings(asked, seen(asked, space), space, "image")


@lru_cache
def fitted() -> Adapter:
    """Fitted on contents that no test has in its store."""
    contents = range(500_000, 500_400)
    old, new = (Embeddings(list(contents), seen(contents, space), space, "image") for space in (OLD, NEW))
    return METHODS["ridge"]().fit(pair(old, new))


@lru_cache
def judged() -> Evaluation:
    """A held-out evaluation of it: it says compatible."""
    contents = list(range(600_000, 600_300))
    stored = Embeddings([str(c) for c in contents], seen(contents, OLD), OLD, "image", metadata={"label": contents})
    asked = {
        space: Embeddings(
            [f"q{c}" for c in contents], queries(contents, space).matrix(), space, "image", metadata={"label": contents}
        )
        for space in (OLD, NEW)
    }
    return evaluate(
        fitted(), queries=asked[NEW], gallery=stored, old_queries=asked[OLD], relevant=Relevance.from_column("label")
    )


@dataclass
class Live:
    """A store, what should be in it, and its upgrade.

    Attributes:
        store: filled with old vectors.
        contents: id → content, as the application knows it.
        folder: of the upgrade.
        embedded: how many items the new model was asked for.
    """

    store: Store
    contents: dict[Id, int]
    folder: Path
    embedded: int = 0
    unreadable: set[Id] = field(default_factory=set)

    @classmethod
    def begin(cls, maker: Maker, folder: Path, *, rows: int = 120) -> Live:
        contents: dict[Id, int] = {f"item-{n}": n for n in range(rows)}
        records = Records(
            list(contents),
            {"old": Vectors.of(seen(list(contents.values()), OLD))},
            {"kind": ["even", "odd"] * (rows // 2)},
        )
        store = maker.make([VectorField("old", OLD_DIMENSION, "cosine")], {"kind": "string"}, "string", records)
        store.register("old", OLD, "image")
        return cls(store, contents, folder)

    def planned(self, *, evaluation: Evaluation | None = None) -> Upgrade:
        plan_upgrade(
            self.store,
            fitted(),
            out=self.folder,
            field="old",
            new_field="new",
            evaluation=judged() if evaluation is None else evaluation,
        )
        return Upgrade.open(self.folder)

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """What the new model makes of the items as they are now."""
        self.embedded += len(ids)
        known = [self.contents.get(str(id_), 0) for id_ in ids]
        found = seen(known, NEW)
        found[[str(id_) in self.unreadable or str(id_) not in self.contents for id_ in ids]] = np.nan
        return found

    def write_directly(self, id_: Id, content: int) -> None:
        """As an application that knows nothing of the upgrade does: the whole row, by the old model."""
        self.contents[id_] = content
        self.store.upsert(Records([id_], {"old": Vectors.of(seen([content], OLD))}, {"kind": ["even"]}))

    def delete_directly(self, id_: Id) -> None:
        del self.contents[id_]
        self.store.delete([id_])


def stored(store: Store, *fields: str) -> Records:
    """All rows, by id."""
    ids = sorted((id_ for part in store.scan() for id_ in part.ids), key=str)
    return store.fetch(ids, fields=list(fields), columns=["kind"])


def expected_rows(contents: Mapping[Id, int], *, native: bool) -> Records:
    """What the store must hold."""
    ids = sorted(contents, key=str)
    known = [contents[id_] for id_ in ids]
    fields = {"old": Vectors.of(seen(known, OLD))}
    if native:
        fields["new"] = Vectors.of(seen(known, NEW))
    return Records(ids, fields)
