"""Does the named encoder make what is stored? And the items and pairs that this rests on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live import NEW, OLD, Live, seen
from PIL import Image
from stores import maker_of

from crossfade.embeddings.core import as_ids
from crossfade.encoders import Encoder
from crossfade.errors import ConfigError, EncoderError
from crossfade.spaces import Space
from crossfade.stores import MemoryBackend, Records, Store, VectorField, Vectors
from crossfade.upgrading.adoption import check_encoder, compare_vectors
from crossfade.upgrading.items import embedder
from crossfade.upgrading.sampling import pairs_from_store, sample_ids


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live.begin(maker_of("memory", tmp_path), tmp_path / "upgrade")


def by_old_model(live: Live):  # type: ignore[no-untyped-def]
    return lambda ids: seen([live.contents[str(id_)] for id_ in ids], OLD)


def test_the_right_encoder_is_the_same(live: Live) -> None:
    found = check_encoder(live.store, "old", by_old_model(live), OLD, sample=60)
    assert (found.finding, found.rows, found.same, found.normalized) == ("same", 60, 1.0, True)
    assert found.notes == ()


def test_vectors_that_were_never_normalised_are_noticed(live: Live) -> None:
    ids = list(live.contents)
    live.store.set_vectors("old", ids, 3.0 * seen(list(live.contents.values()), OLD))
    found = check_encoder(live.store, "old", by_old_model(live), OLD)
    assert found.finding == "same"
    assert not found.normalized
    assert found.norms == (3.0, 3.0, 3.0)
    assert "register them with normalized=false" in found.notes[0]


def test_two_models_in_one_field_are_noticed(live: Live) -> None:
    ids = list(live.contents)[::3]
    live.store.set_vectors("old", ids, np.roll(seen([live.contents[i] for i in ids], OLD), 5, axis=1)[:, ::-1])
    found = check_encoder(live.store, "old", by_old_model(live), OLD)
    assert found.finding == "mixed"
    assert found.same == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda v, g: v + 0.05 * g.standard_normal(v.shape), "close"),
        (lambda v, g: np.roll(v, 1, axis=0), "mismatched"),
        (lambda v, g: v @ np.linalg.qr(g.standard_normal((v.shape[1],) * 2))[0], "related"),
        (lambda v, g: g.standard_normal(v.shape), "different"),
    ],
)
def test_other_vectors_are_told_apart(change, finding: str) -> None:  # type: ignore[no-untyped-def]
    encoded = seen(range(200), OLD)
    stored = change(encoded.astype(np.float64), np.random.default_rng(0)).astype(np.float32)
    assert compare_vectors(stored, encoded, OLD).finding == finding


def test_an_encoder_that_cannot_be_it_is_refused(live: Live) -> None:
    with pytest.raises(EncoderError, match="has 12 dimensions"):
        check_encoder(live.store, "old", live.embed, NEW)
    with pytest.raises(EncoderError, match="None of 50 items could be encoded"):
        check_encoder(live.store, "old", lambda ids: np.full((len(ids), 12), np.nan), OLD, sample=50)


def test_a_sample_is_the_same_each_time_and_stratified_where_asked() -> None:
    store = Store(MemoryBackend([VectorField("v", 2)], columns={"kind": "string"}))
    kinds = ["common"] * 90 + ["rare"] * 8 + [None] * 2
    ids = [f"{n}" for n in range(100)]
    store.upsert(Records(list(ids), {"v": Vectors.of(np.ones((100, 2)))}, {"kind": kinds}))
    assert sample_ids(store, 30, seed=1) == sample_ids(store, 30, seed=1) != sample_ids(store, 30, seed=2)
    drawn = [kinds[int(str(id_))] for id_ in sample_ids(store, 30, by="kind")]
    assert {kind: drawn.count(kind) for kind in set(kinds)} == {"common": 20, "rare": 8, None: 2}
    assert sorted(sample_ids(store, 1000)) == sorted(ids)
    with pytest.raises(ConfigError, match="at least 1 row"):
        sample_ids(store, 0)
    with pytest.raises(ConfigError, match="no rows to sample"):
        sample_ids(Store(MemoryBackend([VectorField("v", 2)])), 3)


def test_pairs_come_from_what_is_stored_without_the_old_model(live: Live) -> None:
    live.unreadable = {"item-5"}
    pairs = pairs_from_store(live.store, "old", live.embed, NEW, count=1000)
    assert len(pairs) == 119
    (part,) = pairs.parts
    contents = [live.contents[id_] for id_ in part.ids.tolist()]
    np.testing.assert_array_equal(part.target.matrix(), seen(contents, OLD))
    np.testing.assert_array_equal(part.source.matrix(), seen(contents, NEW))
    live.unreadable = set(live.contents)
    with pytest.raises(EncoderError, match="Do the ids of the items match"):
        pairs_from_store(live.store, "old", live.embed, NEW, count=10)


class Lengths(Encoder):
    """A text's length, an image's width: enough to see what it was given."""

    space = Space(model="lengths", dimension=2, normalized=False, metric="l2")

    def encode_texts(self, texts, *, role="document"):  # type: ignore[no-untyped-def]
        return np.asarray([[len(text), 1.0] for text in texts], dtype=np.float32)

    def encode_images(self, images):  # type: ignore[no-untyped-def]
        return np.asarray([[image.width, 2.0] for image in images], dtype=np.float32)

    def __repr__(self) -> str:
        return "Lengths()"


@pytest.mark.parametrize("ids", [["a", "b", "c"], [1, 2, 3]])
def test_items_come_from_columns_of_the_collection(ids: list, tmp_path: Path) -> None:
    kind = "integer" if isinstance(ids[0], int) else "string"
    store = Store(MemoryBackend([VectorField("v", 2)], columns={"text": "string", "path": "string"}, ids=kind))  # type: ignore[arg-type]
    for width in (3, 5):
        Image.new("RGB", (width, 4)).save(tmp_path / f"{width}.png")
    columns = {"text": ["one", "three", None], "path": ["3.png", "5.png", "absent.png"]}
    store.upsert(Records(list(ids), {}, columns))  # type: ignore[arg-type]
    texts = embedder("column:text", store, Lengths(), "text")(as_ids(ids))
    np.testing.assert_array_equal(texts[:2, 0], [3, 5])
    assert np.isnan(texts[2]).all()
    images = embedder(f"column:path?root={tmp_path}", store, Lengths(), "image")(as_ids(ids))
    np.testing.assert_array_equal(images[:2], [[3, 2], [5, 2]])
    assert np.isnan(images[2]).all()
    with pytest.raises(ConfigError, match="'absent' was asked for"):
        embedder("column:absent", store, Lengths(), "text")
    with pytest.raises(ConfigError, match="has the option root"):
        embedder("column:path?base=x", store, Lengths(), "image")


def test_items_come_from_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"id": "a", "text": "four"}\n{"id": "b", "text": "sixsix"}\n')
    store = Store(MemoryBackend([VectorField("v", 2)]))
    found = embedder(f"texts:{tmp_path / 'texts.jsonl'}", store, Lengths(), "text")(as_ids(["b", "a", "z"]))
    np.testing.assert_array_equal(found[:2, 0], [6, 4])
    assert np.isnan(found[2]).all()
