"""What every store promises, on a real collection of each; the one in memory is also compared with NumPy here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from stores import MAKERS, Maker, maker_of

from crossfade import Embeddings, Space
from crossfade.errors import (
    ConfigError,
    InvalidIds,
    InvalidVectors,
    SpaceMismatch,
    StoreChanged,
    StoreError,
    Unsupported,
)
from crossfade.spaces import METRICS, Metric
from crossfade.stores import Id, Records, Store, VectorField, Vectors
from crossfade.stores.conditions import Kind, Where, conditions, holds
from crossfade.stores.ids import IdKind

DIMENSION = 6
OLD = VectorField("old", DIMENSION, "cosine")
COLUMNS: dict[str, Kind] = {"script": "string", "year": "integer", "weight": "number", "public": "boolean"}
SPACE = Space(model="old-model", dimension=DIMENSION, normalized=False)


def ids_of(kind: IdKind, count: int) -> list[Id]:
    if kind == "integer":
        return [3 * number + 1 for number in range(count)]
    if kind == "uuid":
        return [str(UUID(int=7 * number + 1)) for number in range(count)]
    odd = ["Ünï/cödé 写真 🖼", "x" * 500, 'it\'s "quoted"; DROP TABLE items --', "a b\tc", "%_\\", "0"]
    return [*odd, *(f"item/{number:03d}" for number in range(count - len(odd)))]


def rows(count: int = 40, *, ids: IdKind = "string", seed: int = 0, holes: bool = True) -> Records:
    """Vectors of random lengths; in the columns some values are missing."""
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((count, DIMENSION)).astype(np.float32)

    def with_holes(values: list) -> list:
        return [None if holes and generator.random() < 0.2 else value for value in values]

    return Records(
        ids_of(ids, count),
        {"old": Vectors.of(vectors)},
        {
            "script": with_holes([["LATIN", "GREEK", "it's 写"][i % 3] for i in range(count)]),
            "year": with_holes([1990 + i % 11 for i in range(count)]),
            "weight": with_holes([float(np.float32(i / 7)) for i in range(count)]),
            "public": with_holes([i % 2 == 0 for i in range(count)]),
        },
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_scores(metric: Metric, query: np.ndarray, stored: np.ndarray) -> np.ndarray:
    if metric == "cosine":
        return np.array([query @ row / np.linalg.norm(query) / np.linalg.norm(row) for row in stored])
    if metric == "dot":
        return np.array([query @ row for row in stored])
    return np.array([-np.sqrt(((query - row) ** 2).sum()) for row in stored])


@pytest.fixture(scope="module", params=sorted(MAKERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def maker(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    made = maker_of(name, tmp_path_factory.mktemp(name))
    yield made
    made.close()


@pytest.fixture(scope="module")
def content() -> Records:
    return rows()


@pytest.fixture(scope="module")
def reading(maker: Maker, content: Records) -> Store:
    """A filled store that no test may change."""
    return maker.make([OLD], COLUMNS, "string", content)


@pytest.fixture
def store(maker: Maker, content: Records) -> Store:
    """A filled store to be changed; skipped where a store cannot be."""
    made = maker.make([OLD], COLUMNS, "string", content)
    if not made.capabilities.write:
        pytest.skip("rows of this store are not written")
    return made


@pytest.fixture
def two_fields(store: Store) -> Store:
    if not store.capabilities.second_field:
        pytest.skip("this store cannot have a second vector field")
    store.add_field("new", dimension=3)
    return store


def columns_of(store: Store) -> list[str]:
    return [] if not store.capabilities.filter else list(COLUMNS)


def assert_same(found: Records, expected: Records, store: Store) -> None:
    assert found.ids == expected.ids
    for field, vectors in found.vectors.items():
        wanted = expected.vectors[field]
        np.testing.assert_array_equal(vectors.present, wanted.present)
        there = wanted.present
        if store.capabilities.keeps_vectors:
            np.testing.assert_array_equal(vectors.values[there], wanted.values[there])
        else:
            np.testing.assert_allclose(unit(vectors.values[there]), unit(wanted.values[there]), atol=1e-6)
        assert not vectors.values[~there].any()
    for column, values in found.columns.items():
        assert values == expected.columns[column]
        assert [type(value) for value in values] == [type(value) for value in expected.columns[column]]


def everything(store: Store, *fields: str) -> Records:
    """All rows, by id."""
    parts = list(store.scan(fields=fields or ["old"], columns=columns_of(store), batch=7))
    if not parts:
        return store.fetch([], fields=fields or ["old"], columns=columns_of(store))
    whole = Records(
        [id_ for part in parts for id_ in part.ids],
        {
            f: Vectors(
                np.concatenate([part.vectors[f].values for part in parts]),
                np.concatenate([part.vectors[f].present for part in parts]),
            )
            for f in (fields or ["old"])
        },
        {c: [value for part in parts for value in part.columns[c]] for c in columns_of(store)},
    )
    return whole.select(sorted(range(len(whole)), key=lambda row: whole.ids[row]))


def by_id(records: Records) -> Records:
    return records.select(sorted(range(len(records)), key=lambda row: records.ids[row]))


def test_it_says_what_it_is(reading: Store) -> None:
    shape = reading.describe()
    assert shape.ids == "string"
    assert set(shape.fields) == {"old"}
    assert shape.fields["old"].dimension == DIMENSION
    assert shape.fields["old"].metric in (None, "cosine")
    if reading.capabilities.filter and not shape.schemaless:
        assert dict(shape.columns) == COLUMNS
    assert reading.address in repr(reading)


def test_rows_come_back_as_they_were_written(reading: Store, content: Records) -> None:
    assert reading.count() == len(content)
    assert_same(everything(reading), by_id(content), reading)


def test_a_scan_has_each_row_once_in_the_same_order(reading: Store, content: Records) -> None:
    first = list(reading.scan(batch=9))
    again = list(reading.scan(fields=["old"], batch=13))
    assert all(len(part) <= 9 for part in first)
    order = [id_ for part in first for id_ in part.ids]
    assert order == [id_ for part in again for id_ in part.ids]
    assert sorted(order) == sorted(content.ids)
    assert not first[0].vectors
    assert not first[0].columns


def test_rows_are_fetched_in_the_order_asked_for_and_missing_ones_left_out(reading: Store, content: Records) -> None:
    asked = [content.ids[5], "nobody", content.ids[0], content.ids[3]]
    found = reading.fetch(asked, fields=["old"], columns=columns_of(reading))
    assert_same(found, content.select([5, 0, 3]), reading)
    assert len(reading.fetch([], fields=["old"])) == 0
    assert len(reading.fetch(["nobody"])) == 0


@pytest.mark.parametrize("kind", ["string", "integer", "uuid"])
def test_ids_of_every_kind_survive(maker: Maker, kind: IdKind) -> None:
    if kind not in maker.id_kinds:
        pytest.skip(f"ids of this store are never {kind}")
    content = rows(12, ids=kind)
    made = maker.make([OLD], COLUMNS, kind, content)
    assert made.describe().ids == kind
    assert_same(everything(made), by_id(content), made)
    assert made.fetch(content.ids[3:5]).ids == content.ids[3:5]
    (hits,) = made.search(content.vectors["old"].values[4], field="old", k=1)
    assert hits.ids == [content.ids[4]]
    if made.capabilities.write:
        assert made.delete(content.ids[:2]) == 2
        assert made.count() == 10
    wrong = {"string": 7, "integer": "seven", "uuid": "no uuid"}[kind]
    with pytest.raises(InvalidIds, match="Ids of this collection are"):
        made.fetch([wrong])


@pytest.mark.parametrize("metric", METRICS)
def test_a_search_finds_the_best_rows(maker: Maker, metric: Metric, content: Records) -> None:
    made = maker.make([replace(OLD, metric=metric)], COLUMNS, "string", content)
    fixed = made.describe().fields["old"].metric
    assert fixed in (None, metric)
    queries = np.random.default_rng(5).standard_normal((4, DIMENSION)).astype(np.float32)
    stored = content.vectors["old"].values.astype(np.float64)
    for exact in (False, True):
        found = made.search(queries, field="old", k=5, metric=metric, exact=exact)
        assert len(found) == 4
        for query, hits in zip(queries, found, strict=True):
            scores = slow_scores(metric, query.astype(np.float64), stored)
            best = np.argsort(-scores)[:5]
            assert hits.ids == [content.ids[row] for row in best]
            np.testing.assert_allclose(hits.scores, scores[best], rtol=1e-4, atol=1e-5)
            assert hits.scores.dtype == np.float32


def test_a_search_finds_what_there_is_and_no_more(reading: Store, content: Records) -> None:
    (hits,) = reading.search(content.vectors["old"].values[0], field="old", k=1000)
    assert sorted(hits.ids) == sorted(content.ids)
    assert (np.diff(hits.scores) <= 1e-6).all()
    assert reading.search(np.empty((0, DIMENSION), dtype=np.float32), field="old", k=3) == []


def test_an_empty_collection_answers(maker: Maker) -> None:
    made = maker.make([OLD], COLUMNS, "string", rows(0 + 6).select([]))
    assert made.count() == 0
    assert list(made.scan(fields=["old"])) == []
    assert [len(hits) for hits in made.search(np.ones((2, DIMENSION)), field="old", k=3)] == [0, 0]


FILTERS: list[Where] = [
    {"script": "LATIN"},
    {"script": "it's 写"},
    {"script": ["GREEK", "it's 写"]},
    {"year": 1995},
    {"year": [1990, 2000]},
    {"year": {">=": 1993, "<": 1997}},
    {"year": {">": 1993, "<=": 1997}, "script": "GREEK"},
    {"weight": {">=": 1.5}},
    {"weight": {"<": 2}},
    {"public": True},
    {"public": False, "script": ["LATIN"]},
    {"script": "nobody's"},
]


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_a_filter_keeps_the_rows_that_meet_it(reading: Store, content: Records, where: Where) -> None:
    if not reading.capabilities.filter:
        with pytest.raises(Unsupported, match="A filter is asked for"):
            reading.count(where)
        return
    meeting = {
        id_
        for row, id_ in enumerate(content.ids)
        if all(holds(each, content.columns[each.column][row]) for each in conditions(where))
    }
    assert reading.count(where) == len(meeting)
    assert {id_ for part in reading.scan(where=where, batch=5) for id_ in part.ids} == meeting
    query = np.ones(DIMENSION, dtype=np.float32)
    (hits,) = reading.search(query, field="old", k=100, where=where)
    assert set(hits.ids) == meeting
    (few,) = reading.search(query, field="old", k=2, where=where)
    assert few.ids == hits.ids[:2]


def test_a_replaced_row_is_replaced_whole(store: Store, content: Records) -> None:
    id_ = content.ids[1]
    store.upsert(Records([id_, "fresh"], {"old": Vectors.of(np.eye(DIMENSION)[:2])}, {"script": ["NEW", None]}))
    found = store.fetch([id_, "fresh"], fields=["old"], columns=columns_of(store))
    assert_same(
        found,
        Records(
            [id_, "fresh"],
            {"old": Vectors.of(np.eye(DIMENSION)[:2])},
            {"script": ["NEW", None], "year": [None] * 2, "weight": [None] * 2, "public": [None] * 2},
        ),
        store,
    )
    assert store.count() == len(content) + 1


def test_what_is_deleted_is_gone(store: Store, content: Records) -> None:
    gone = content.ids[2]
    assert store.delete([gone, "nobody", gone]) == 1
    assert store.delete([gone]) == 0
    assert store.delete([]) == 0
    assert store.count() == len(content) - 1
    assert len(store.fetch([gone])) == 0
    (hits,) = store.search(content.vectors["old"].values[2], field="old", k=100)
    assert gone not in hits.ids


def test_a_field_is_added_filled_emptied_and_dropped(two_fields: Store, content: Records, maker: Maker) -> None:
    store = two_fields
    assert set(store.describe().fields) == {"old", "new"}
    assert not everything(store, "new").vectors["new"].present.any()
    ids, vectors = [content.ids[3], content.ids[8], "nobody"], np.arange(1.0, 10.0, dtype=np.float32).reshape(3, 3)
    assert store.set_vectors("new", ids, vectors) == 2
    assert store.count() == len(content)  # no row was made
    found = store.fetch(ids[:2], fields=["new", "old"], columns=columns_of(store))
    expected = content.select([3, 8])
    assert_same(replace(found, vectors={"old": found.vectors["old"]}), expected, store)
    np.testing.assert_allclose(unit(found.vectors["new"].values), unit(vectors[:2]), atol=1e-6)
    assert everything(store, "new").vectors["new"].present.sum() == 2

    (hits,) = store.search(vectors[0], field="new", k=10)
    assert hits.ids == ids[:2]
    assert store.count(lacking="new") == len(content) - 2
    script = content.columns["script"]
    latin = sum(script[row] == "LATIN" for row in range(len(content)) if row not in (3, 8))
    assert store.count({"script": "LATIN"}, lacking="new") == latin
    (others,) = store.search(content.vectors["old"].values[3], field="old", k=100, lacking="new")
    assert set(others.ids) == set(content.ids) - set(ids)

    assert store.set_vectors("new", [ids[0], "nobody"], None) == 1
    (hits,) = store.search(vectors[0], field="new", k=10)
    assert hits.ids == [ids[1]]
    (others,) = store.search(content.vectors["old"].values[3], field="old", k=1, lacking="new")
    assert others.ids == [ids[0]]

    store.upsert(content.select([8]))  # replaced whole: its new vector is gone
    assert not store.fetch([ids[1]], fields=["new"]).vectors["new"].present.any()

    store.drop_field("new")
    assert set(store.describe().fields) == {"old"}
    with pytest.raises(StoreChanged, match="'new' was asked for"):
        store.search(vectors[0], field="new", k=1)
    assert_same(everything(store), by_id(content), store)


def test_an_added_field_that_is_there_or_the_only_one_is_refused(two_fields: Store) -> None:
    with pytest.raises(ConfigError, match="has a field or column 'new' already"):
        two_fields.add_field("new", dimension=3)
    two_fields.drop_field("new")
    with pytest.raises(ConfigError, match="'old' is the only vector field"):
        two_fields.drop_field("old")


def test_what_a_store_cannot_do_is_refused_at_the_start(reading: Store) -> None:
    able = reading.capabilities
    if not able.write:
        with pytest.raises(Unsupported, match="Writing rows"):
            reading.upsert(rows(6))
        with pytest.raises(Unsupported, match="Writing rows"):
            reading.delete(["0"])
    if not able.second_field:
        with pytest.raises(Unsupported, match=r"Writing rows|A second vector field"):
            reading.add_field("new", dimension=3)
    if not able.notes:
        with pytest.raises(Unsupported, match="A note"):
            reading.note("key", "text")


def test_another_handle_sees_what_was_written(store: Store, maker: Maker, content: Records) -> None:
    if not store.capabilities.shared:
        pytest.skip("only one process has this store open")
    other = maker.again(store)
    assert other.count() == len(content)
    store.delete([content.ids[0]])
    store.upsert(Records(["fresh"], {"old": Vectors.of(np.ones((1, DIMENSION)))}))
    assert other.count() == len(content)
    assert other.fetch(["fresh", content.ids[0]]).ids == ["fresh"]
    (hits,) = other.search(np.ones(DIMENSION), field="old", k=1)
    assert hits.ids == ["fresh"]
    if store.capabilities.second_field:
        store.add_field("new", dimension=3)
        assert other.set_vectors("new", ["fresh"], np.ones((1, 3))) == 1
        assert store.fetch(["fresh"], fields=["new"]).vectors["new"].present.all()


def test_a_scan_shows_one_moment(store: Store, content: Records) -> None:
    if not store.capabilities.snapshot:
        pytest.skip("a scan of this store shows what is written meanwhile")
    scan = store.scan(fields=["old"], batch=5)
    first = next(scan)
    store.delete(content.ids)
    seen = [*first.ids, *(id_ for part in scan for id_ in part.ids)]
    assert sorted(seen) == sorted(content.ids)
    assert store.count() == 0


def test_notes_are_kept(reading: Store, maker: Maker) -> None:
    if not reading.capabilities.notes:
        assert reading.notes() == {}
        return
    text = 'Ünï "quoted" it\'s\nsecond line'
    reading.note("crossfade.test", text)
    assert reading.notes()["crossfade.test"] == text
    assert maker.again(reading).notes()["crossfade.test"] == text
    reading.note("crossfade.test", "other")
    reading.note("crossfade.test", None)
    reading.note("crossfade.test", None)
    assert "crossfade.test" not in maker.again(reading).notes()


def test_a_field_is_registered_with_one_space(maker: Maker, content: Records) -> None:
    made = maker.make([OLD], COLUMNS, "string", content)
    if not made.capabilities.notes:
        pytest.skip("this store keeps no notes")
    assert made.space("old") is None
    with pytest.raises(ConfigError, match="Nothing says which space"):
        made.embeddings(made.fetch(content.ids, fields=["old"]), "old")
    with pytest.raises(ConfigError, match=f"has {DIMENSION} dimensions"):
        made.register("old", Space(model="m", dimension=3), "image")
    made.register("old", SPACE, "image")
    made.register("old", SPACE, "image")  # again changes nothing
    other = maker.again(made)
    assert other.space("old") == SPACE
    assert other.modality("old") == "image"
    with pytest.raises(ConfigError, match="is registered with"):
        other.register("old", replace(SPACE, model="another"), "image")
    found = other.embeddings(other.fetch(content.ids, fields=["old"], columns=columns_of(other)), "old")
    assert found.space == SPACE
    assert found.ids.tolist() == content.ids
    wrong = Embeddings(["q"], np.ones((1, DIMENSION)), replace(SPACE, model="another"), "image")
    with pytest.raises(SpaceMismatch, match="The queries must live in"):
        other.search(wrong, field="old", k=1)
    right = Embeddings(["q"], content.vectors["old"].values[:1], SPACE, "image")
    assert other.search(right, field="old", k=1)[0].ids == content.ids[:1]


def test_bad_input_is_refused_and_nothing_changes(reading: Store, content: Records) -> None:
    query = np.ones(DIMENSION)
    for k in (0, -1, True, 1.5):
        with pytest.raises(ConfigError, match="k must be a whole number"):
            reading.search(query, field="old", k=k)  # type: ignore[arg-type]
    with pytest.raises(InvalidVectors, match="must have 6 components"):
        reading.search(np.ones(5), field="old", k=1)
    with pytest.raises(InvalidVectors, match="must be finite"):
        reading.search(np.full(DIMENSION, np.nan), field="old", k=1)
    with pytest.raises(StoreChanged, match="has the vector fields"):
        reading.search(query, field="absent", k=1)
    with pytest.raises(ConfigError, match="A metric must be one of"):
        reading.search(query, field="old", k=1, metric="hamming")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1 row"):
        next(reading.scan(batch=0))
    if reading.capabilities.filter:
        with pytest.raises(ConfigError, match="'nonsense' was asked for"):
            reading.search(query, field="old", k=1, where={"nonsense": 1})
        with pytest.raises(ConfigError, match="'nonsense' was asked for"):
            next(reading.scan(columns=["nonsense"]))
        if not reading.describe().schemaless:
            with pytest.raises(ConfigError, match="holds integer values"):
                reading.count({"year": "1990"})
    fixed = reading.describe().fields["old"].metric
    if fixed == "cosine":
        with pytest.raises(Unsupported, match="compares by cosine"):
            reading.search(query, field="old", k=1, metric="l2")
    if reading.capabilities.write:
        for wrong in (np.full((1, DIMENSION), np.inf), np.ones((1, 3))):
            with pytest.raises(InvalidVectors):
                reading.upsert(Records(["0"], {"old": Vectors.of(wrong)}))
        with pytest.raises(InvalidIds):
            reading.upsert(Records([""], {"old": Vectors.of(np.ones((1, DIMENSION)))}))
    assert_same(everything(reading), by_id(content), reading)


def test_a_collection_that_vanished_is_said_so(maker: Maker, content: Records) -> None:
    made = maker.make([OLD], COLUMNS, "string", content)
    maker.destroy(made)
    with pytest.raises(StoreError) as raised:
        made.search(np.ones(DIMENSION), field="old", k=1)
    assert made.address in str(raised.value)
    with pytest.raises(StoreError):
        made.count()
    with pytest.raises(StoreError):
        made.describe()
