"""LlamaIndex's own index and query engine, around encoders and searchers of Crossfade."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from live import NEW, OLD, OLD_DIMENSION, QUERY, seen
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from passages import IDS, ROWS, Blind, Digits, by_cosine, filled, planned, stages
from PIL import Image

from crossfade.errors import ConfigError, CorruptItem, EncoderError, MissingExtra, UpgradeRefused
from crossfade.integrations import ServedEncoder
from crossfade.integrations.llama_index import CrossfadeEmbedding, CrossfadeRetriever
from crossfade.stores import Records, Store, Vectors
from crossfade.stores.ids import IdKind
from crossfade.upgrading import Searcher, Upgrade, cutover, rollback


def nodes() -> list[TextNode]:
    return [TextNode(id_=f"id-{n}", text=str(n)) for n in range(ROWS)]


def test_an_index_that_the_old_model_filled_is_searched_by_the_new_one(store: Store, upgrade: Upgrade) -> None:
    by_old = VectorStoreIndex(nodes(), embed_model=CrossfadeEmbedding(Digits(OLD)))
    before = by_old.as_retriever(similarity_top_k=5).retrieve("7")
    vectors = by_old.vector_store
    assert isinstance(vectors, SimpleVectorStore)

    served = VectorStoreIndex(
        index_struct=by_old.index_struct,
        storage_context=by_old.storage_context,
        embed_model=CrossfadeEmbedding(ServedEncoder(upgrade, old=Digits(OLD), new=Digits(NEW))),
    )
    gallery = seen(range(ROWS), OLD)

    def finds(query: np.ndarray) -> None:
        found = served.as_retriever(similarity_top_k=5).retrieve("7")
        texts, scores = by_cosine(query, gallery, 5)
        assert [each.node.get_content() for each in found] == texts
        assert [each.node_id for each in found] == [f"id-{text}" for text in texts]
        np.testing.assert_allclose([each.score for each in found], scores, atol=1e-6)

    finds(seen([7 + QUERY], OLD)[0])
    assert served.as_retriever(similarity_top_k=5).retrieve("7") == before
    cutover(upgrade, store, force="a test")
    finds(upgrade.adapter.map(seen([7 + QUERY], NEW), "text")[0])
    hits = Searcher(upgrade, store, new=Digits(NEW)).search(text="7", k=5)
    found = served.as_retriever(similarity_top_k=5).retrieve("7")
    assert [each.node.get_content() for each in found] == store.fetch(hits.ids, columns=["text"]).columns["text"]
    served.insert_nodes([TextNode(id_="more", text="900")])
    assert served.as_retriever(similarity_top_k=1).retrieve("900")[0].node_id == "more"
    rollback(upgrade, store, reason="a test")
    assert served.as_retriever(similarity_top_k=5).retrieve("7") == before


def test_what_a_finished_upgrade_refuses_is_refused_here(store: Store, upgrade: Upgrade) -> None:
    embedding = CrossfadeEmbedding(ServedEncoder(upgrade, new=Digits(NEW)))
    for stage in stages(store, upgrade, IDS["string"]):
        if stage == "native":
            break
    assert len(embedding.get_query_embedding("3")) == OLD_DIMENSION
    with pytest.raises(UpgradeRefused, match="write the field 'new'"):
        embedding.get_text_embedding("3")


def test_texts_are_encoded_by_their_role_in_batches_of_a_bounded_size() -> None:
    encoder = Digits(OLD)
    embedding = CrossfadeEmbedding(encoder, embed_batch_size=4)
    texts = [str(n) for n in range(10)]
    vectors = embedding.get_text_embedding_batch(texts)
    assert encoder.asked == [("document", 4), ("document", 4), ("document", 2)]
    np.testing.assert_array_equal(np.float32(vectors), seen(range(10), OLD))
    assert embedding.get_text_embedding("2") == vectors[2]
    query = embedding.get_query_embedding("3")
    assert encoder.asked[-1] == ("query", 1)
    assert type(query) is list
    assert type(query[0]) is float
    np.testing.assert_array_equal(np.float32(query), seen([3 + QUERY], OLD)[0])
    assert embedding.get_agg_embedding_from_queries(["3"]) == query


@pytest.mark.parametrize("workers", [None, 2])
def test_the_async_methods_give_the_same_in_batches_of_the_same_size(workers: int | None) -> None:
    encoder = Digits(OLD)
    embedding = CrossfadeEmbedding(encoder, embed_batch_size=4, num_workers=workers)
    texts = [str(n) for n in range(10)]

    async def embedded() -> list[list[float]]:
        return [
            *await embedding.aget_text_embedding_batch(texts),
            await embedding.aget_text_embedding("2"),
            await embedding.aget_query_embedding("3"),
        ]

    *documents, query = asyncio.run(embedded())
    assert sorted(encoder.asked) == sorted(
        [("document", 4), ("document", 4), ("document", 2), ("document", 1), ("query", 1)]
    )
    np.testing.assert_array_equal(np.float32(documents), seen([*range(10), 2], OLD))
    assert query == embedding.get_query_embedding("3")


def test_no_nodes_have_no_vectors_and_ask_no_encoder() -> None:
    encoder = Digits(OLD)
    embedding = CrossfadeEmbedding(encoder)
    assert embedding.get_text_embedding_batch([]) == []
    assert embedding.get_image_embedding_batch([]) == []
    assert asyncio.run(embedding.aget_text_embedding_batch([])) == []
    assert VectorStoreIndex([], embed_model=embedding).as_retriever().retrieve("3") == []
    assert set(encoder.asked) <= {("query", 1)}


def test_images_are_read_from_files_and_from_memory(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{n}.png") for n in range(5)]
    for n, file in enumerate(files):
        Image.new("RGB", (2, 2), (n, 0, 0)).save(file)
    encoder = Digits(OLD)
    embedding = CrossfadeEmbedding(encoder, embed_batch_size=2)
    vectors = embedding.get_image_embedding_batch([BytesIO(Path(files[0]).read_bytes()), *files[1:]])
    np.testing.assert_array_equal(np.float32(vectors), seen(range(5), OLD))
    assert [size for _, size in encoder.asked] == [2, 2, 1]
    assert embedding.get_image_embedding(files[3]) == vectors[3]
    assert asyncio.run(embedding.aget_image_embedding(files[3])) == vectors[3]
    assert asyncio.run(embedding.aget_image_embedding_batch(files)) == vectors
    with pytest.raises(CorruptItem, match="missing"):
        embedding.get_image_embedding(str(tmp_path / "none.png"))
    with pytest.raises(EncoderError, match="asked for image"):
        CrossfadeEmbedding(Blind()).get_image_embedding(files[0])


def test_an_encoder_without_a_text_tower_says_so() -> None:
    with pytest.raises(EncoderError, match=r"asked for text\. Choose an encoder that does"):
        CrossfadeEmbedding(Blind()).get_query_embedding("a cat")
    with pytest.raises(EncoderError, match="asked for text"):
        VectorStoreIndex(nodes(), embed_model=CrossfadeEmbedding(Blind()))


def test_what_is_no_encoder_and_no_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"found str\. Load one"):
        CrossfadeEmbedding("demo:old")  # type: ignore[arg-type]
    for size in (0, True, 2.5, 2049):
        with pytest.raises(ConfigError, match="from 1 to 2048"):
            CrossfadeEmbedding(Digits(OLD), embed_batch_size=size)  # type: ignore[arg-type]


def test_an_ingestion_cache_tells_two_models_apart() -> None:
    cache = IngestionCache()
    first, again, second = (
        IngestionPipeline(transformations=[CrossfadeEmbedding(Digits(space))], cache=cache).run(nodes=nodes()[:3])
        for space in (OLD, OLD, NEW)
    )
    np.testing.assert_array_equal(np.float32([node.embedding for node in first]), seen(range(3), OLD))
    assert [node.embedding for node in again] == [node.embedding for node in first]
    np.testing.assert_array_equal(np.float32([node.embedding for node in second]), seen(range(3), NEW))
    assert CrossfadeEmbedding(Digits(OLD)).to_dict()["model_name"] == str(OLD)


@pytest.mark.parametrize(
    ("name", "ids"), [("memory", "string"), ("memory", "integer"), ("memory", "uuid"), ("lancedb", "integer")]
)
def test_a_retriever_finds_what_the_searcher_finds_in_every_stage(name: str, ids: IdKind, tmp_path: Path) -> None:
    store = filled(tmp_path, name=name, ids=ids)
    upgrade = planned(store, tmp_path)
    searcher = Searcher(upgrade, store, old=Digits(OLD), new=Digits(NEW))
    retriever = CrossfadeRetriever(searcher, content="text", metadata_columns=["kind", "number"], k=8)
    place = {id_: n for n, id_ in enumerate(IDS[ids])}
    passed = []
    for stage in stages(store, upgrade, IDS[ids]):
        for asked in ("3", "11", "42"):
            hits, found = searcher.search(text=asked, k=8), retriever.retrieve(asked)
            rows = [place[id_] for id_ in hits.ids]
            assert len(found) == 8
            assert [each.node_id for each in found] == [str(id_) for id_ in hits.ids]
            assert [each.score for each in found] == hits.scores.tolist()
            assert [each.node.get_content() for each in found] == [str(n) for n in rows]
            assert [each.node.metadata for each in found] == [
                {"kind": ("even", "odd")[n % 2], "number": n} for n in rows
            ]
        assert upgrade.state.now().serving == stage
        passed.append(stage)
    assert passed == ["old", "mapped", "mixed", "native", "old"]


def test_a_query_engine_and_the_async_method_retrieve_the_same(searcher: Searcher) -> None:
    retriever = CrossfadeRetriever(searcher, content="text", k=4)
    expected = retriever.retrieve("5")
    assert asyncio.run(retriever.aretrieve("5")) == expected
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM())
    assert engine.query("5").source_nodes == expected


def test_conditions_and_k_bound_what_is_retrieved(searcher: Searcher) -> None:
    retriever = CrossfadeRetriever(
        searcher, content="text", metadata_columns=["number"], k=50, where={"kind": "odd", "number": {"<": 20}}
    )
    assert sorted(each.node.metadata["number"] for each in retriever.retrieve("3")) == list(range(1, 20, 2))
    assert len(CrossfadeRetriever(searcher, content="text", k=2).retrieve("3")) == 2


def test_a_bundle_has_one_query_and_its_vector_is_not_used(searcher: Searcher, tmp_path: Path) -> None:
    retriever = CrossfadeRetriever(searcher, content="text", k=4)
    expected = retriever.retrieve("5")
    assert retriever.retrieve(QueryBundle("5", embedding=[0.0] * OLD_DIMENSION)) == expected
    assert retriever.retrieve(QueryBundle("what?", custom_embedding_strs=["5"])) == expected
    Image.new("RGB", (2, 2), (5, 0, 0)).save(tmp_path / "5.png")
    found = retriever.retrieve(QueryBundle("", image_path=str(tmp_path / "5.png")))
    hits = searcher.search(vector=seen([5], OLD)[0], space=OLD, k=4)
    assert [each.node_id for each in found] == hits.ids
    for several in (
        QueryBundle(""),
        QueryBundle("5", image_path=str(tmp_path / "5.png")),
        QueryBundle("5", custom_embedding_strs=["5", "6"]),
    ):
        with pytest.raises(ConfigError, match="one query: a text or an image; found"):
            retriever.retrieve(several)


def test_a_row_deleted_between_the_search_and_the_reading_is_left_out(
    searcher: Searcher, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = CrossfadeRetriever(searcher, content="text", k=5)
    before = retriever.retrieve("3")
    search = Searcher.search

    def overtaken(self: Searcher, **query: object) -> object:
        hits = search(self, **query)  # type: ignore[arg-type]
        store.delete(hits.ids[1:3])
        return hits

    monkeypatch.setattr(Searcher, "search", overtaken)
    assert retriever.retrieve("3") == [before[0], *before[3:]]


def test_an_empty_collection_and_a_row_without_a_text(searcher: Searcher, store: Store) -> None:
    retriever = CrossfadeRetriever(searcher, content="text", metadata_columns=["kind", "text"])
    store.delete(IDS["string"])
    assert retriever.retrieve("3") == []
    store.upsert(Records(["one"], {"old": Vectors.of(seen([3], OLD))}, {"kind": ["odd"]}))
    (found,) = retriever.retrieve("3")
    assert (found.node_id, found.node.get_content(), found.node.metadata) == ("one", "", {"kind": "odd", "text": None})


def test_a_retriever_that_could_not_retrieve_is_refused_when_it_is_made(searcher: Searcher) -> None:
    with pytest.raises(ConfigError, match="takes a Searcher; found Store"):
        CrossfadeRetriever(searcher.store, content="text")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'title' was asked for"):
        CrossfadeRetriever(searcher, content="title")
    with pytest.raises(ConfigError, match="'year' was asked for"):
        CrossfadeRetriever(searcher, content="text", metadata_columns=["year"])
    with pytest.raises(ConfigError, match="'year' was asked for"):
        CrossfadeRetriever(searcher, content="text", where={"year": 2000})
    with pytest.raises(ConfigError, match="Give a list"):
        CrossfadeRetriever(searcher, content="text", metadata_columns="kind")
    with pytest.raises(ConfigError, match="must be among"):
        CrossfadeRetriever(searcher, content="text", where={"number": {"!=": 3}})
    for k in (0, True, "5"):
        with pytest.raises(ConfigError, match="k must be a whole number"):
            CrossfadeRetriever(searcher, content="text", k=k)  # type: ignore[arg-type]


def test_without_llama_index_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "crossfade.integrations.llama_index")
    monkeypatch.setitem(sys.modules, "llama_index.core.schema", None)
    with pytest.raises(MissingExtra, match=r"'llama-index-core'.*pip install 'crossfade\[integrations\]'"):
        import_module("crossfade.integrations.llama_index")
