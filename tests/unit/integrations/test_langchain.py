"""LangChain's own vector store and chains, around encoders and searchers of Crossfade."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import InMemoryVectorStore
from live import NEW, OLD, OLD_DIMENSION, QUERY, seen
from passages import IDS, ROWS, Blind, Digits, by_cosine, filled, planned, stages
from PIL import Image

from crossfade.errors import ConfigError, CorruptItem, EncoderError, MissingExtra, UpgradeRefused
from crossfade.integrations import ServedEncoder
from crossfade.integrations.langchain import CrossfadeEmbeddings, CrossfadeRetriever
from crossfade.stores import Records, Store, Vectors
from crossfade.stores.ids import IdKind
from crossfade.upgrading import Searcher, Upgrade, cutover, rollback


def test_a_vector_store_that_the_old_model_filled_is_searched_by_the_new_one(store: Store, upgrade: Upgrade) -> None:
    documents = [Document(str(n), id=f"id-{n}", metadata={"even": n % 2 == 0}) for n in range(ROWS)]
    by_old = InMemoryVectorStore(CrossfadeEmbeddings(Digits(OLD)))
    by_old.add_documents(documents)

    served = InMemoryVectorStore(CrossfadeEmbeddings(ServedEncoder(upgrade, old=Digits(OLD), new=Digits(NEW))))
    served.store = by_old.store
    gallery = seen(range(ROWS), OLD)

    def finds(query: np.ndarray) -> None:
        found = served.similarity_search_with_score("7", k=5)
        texts, scores = by_cosine(query, gallery, 5)
        assert [document.page_content for document, _ in found] == texts
        assert [document.id for document, _ in found] == [f"id-{text}" for text in texts]
        np.testing.assert_allclose([score for _, score in found], scores, atol=1e-6)

    finds(seen([7 + QUERY], OLD)[0])
    assert served.similarity_search("7", k=5) == by_old.similarity_search("7", k=5)
    cutover(upgrade, store, force="a test")
    mapped = upgrade.adapter.map(seen([7 + QUERY], NEW), "text")[0]
    finds(mapped)
    hits = Searcher(upgrade, store, new=Digits(NEW)).search(text="7", k=5)
    assert [d.page_content for d in served.similarity_search("7", k=5)] == store.fetch(
        hits.ids, columns=["text"]
    ).columns["text"]
    served.add_documents([Document("900")])
    assert served.similarity_search("900", k=1)[0].page_content == "900"
    rollback(upgrade, store, reason="a test")
    assert served.similarity_search("7", k=5) == by_old.similarity_search("7", k=5)


def test_what_a_finished_upgrade_refuses_is_refused_here(store: Store, upgrade: Upgrade) -> None:
    embeddings = CrossfadeEmbeddings(ServedEncoder(upgrade, new=Digits(NEW)))
    for stage in stages(store, upgrade, IDS["string"]):
        if stage == "native":
            break
    assert len(embeddings.embed_query("3")) == OLD_DIMENSION
    with pytest.raises(UpgradeRefused, match="write the field 'new'"):
        embeddings.embed_documents(["3"])


def test_texts_are_encoded_by_their_role_in_batches_of_a_bounded_size() -> None:
    encoder = Digits(OLD)
    embeddings = CrossfadeEmbeddings(encoder, batch_size=4)
    vectors = embeddings.embed_documents([str(n) for n in range(10)])
    assert encoder.asked == [("document", 4), ("document", 4), ("document", 2)]
    np.testing.assert_array_equal(np.float32(vectors), seen(range(10), OLD))
    query = embeddings.embed_query("3")
    assert encoder.asked[-1] == ("query", 1)
    assert type(query) is list
    assert type(query[0]) is float
    np.testing.assert_array_equal(np.float32(query), seen([3 + QUERY], OLD)[0])
    assert asyncio.run(embeddings.aembed_documents(["1", "2"])) == embeddings.embed_documents(["1", "2"])
    assert asyncio.run(embeddings.aembed_query("3")) == query


def test_no_documents_have_no_vectors_and_ask_no_encoder() -> None:
    encoder = Digits(OLD)
    assert CrossfadeEmbeddings(encoder).embed_documents([]) == []
    assert CrossfadeEmbeddings(encoder).embed_image([]) == []
    assert InMemoryVectorStore(CrossfadeEmbeddings(encoder)).add_documents([]) == []
    assert encoder.asked == []


def test_images_are_read_from_files(tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.png" for n in range(5)]
    for n, file in enumerate(files):
        Image.new("RGB", (2, 2), (n, 0, 0)).save(file)
    encoder = Digits(OLD)
    vectors = CrossfadeEmbeddings(encoder, batch_size=2).embed_image([str(files[0]), *files[1:]])
    np.testing.assert_array_equal(np.float32(vectors), seen(range(5), OLD))
    assert [size for _, size in encoder.asked] == [2, 2, 1]
    with pytest.raises(CorruptItem, match="missing"):
        CrossfadeEmbeddings(encoder).embed_image([str(tmp_path / "none.png")])
    with pytest.raises(EncoderError, match="asked for image"):
        CrossfadeEmbeddings(Blind()).embed_image([str(files[0])])


def test_an_encoder_without_a_text_tower_says_so() -> None:
    with pytest.raises(EncoderError, match=r"asked for text\. Choose an encoder that does"):
        CrossfadeEmbeddings(Blind()).embed_query("a cat")
    with pytest.raises(EncoderError, match="asked for text"):
        CrossfadeEmbeddings(Blind()).embed_documents(["a cat"])


def test_what_is_no_encoder_and_no_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"found str\. Load one"):
        CrossfadeEmbeddings("demo:old")  # type: ignore[arg-type]
    for size in (0, True, 2.5):
        with pytest.raises(ConfigError, match="at least 1"):
            CrossfadeEmbeddings(Digits(OLD), batch_size=size)  # type: ignore[arg-type]
    assert repr(CrossfadeEmbeddings(Blind())) == "CrossfadeEmbeddings(Blind())"


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
            hits, documents = searcher.search(text=asked, k=8), retriever.invoke(asked)
            rows = [place[id_] for id_ in hits.ids]
            assert len(documents) == 8
            assert [document.id for document in documents] == [str(id_) for id_ in hits.ids]
            assert [document.page_content for document in documents] == [str(n) for n in rows]
            assert [document.metadata for document in documents] == [
                {"kind": ("even", "odd")[n % 2], "number": n, "score": score}
                for n, score in zip(rows, hits.scores.tolist(), strict=True)
            ]
        assert upgrade.state.now().serving == stage
        passed.append(stage)
    assert passed == ["old", "mapped", "mixed", "native", "old"]


def test_the_async_methods_and_batches_of_a_retriever_find_the_same(searcher: Searcher) -> None:
    retriever = CrossfadeRetriever(searcher, content="text", k=4)
    expected = retriever.invoke("5")
    assert asyncio.run(retriever.ainvoke("5")) == expected
    assert retriever.batch(["5", "6"]) == [expected, retriever.invoke("6")]
    assert (retriever | (lambda documents: len(documents))).invoke("5") == 4


def test_conditions_and_k_bound_what_is_retrieved(searcher: Searcher) -> None:
    retriever = CrossfadeRetriever(
        searcher, content="text", metadata_columns=["number"], k=50, where={"kind": "odd", "number": {"<": 20}}
    )
    assert sorted(document.metadata["number"] for document in retriever.invoke("3")) == list(range(1, 20, 2))
    assert len(retriever.invoke("3", k=2)) == 2
    assert {document.metadata["number"] for document in retriever.invoke("3", where={"number": [4, 6]})} == {4, 6}
    assert len(retriever.invoke("3", where={})) == 50
    assert len(asyncio.run(retriever.ainvoke("3", k=2, where={"number": [4]}))) == 1
    with pytest.raises(TypeError, match="filter"):
        retriever.invoke("3", filter={"number": 4})
    with pytest.raises(ConfigError, match="k must be a whole number"):
        retriever.invoke("3", k=0)
    by_call = retriever.configurable_fields(k=ConfigurableField(id="k"))
    assert len(by_call.with_config(configurable={"k": 3}).invoke("3")) == 3


def test_a_row_deleted_between_the_search_and_the_reading_is_left_out(
    searcher: Searcher, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = CrossfadeRetriever(searcher, content="text", k=5)
    before = retriever.invoke("3")
    search = Searcher.search

    def overtaken(self: Searcher, **query: object) -> object:
        hits = search(self, **query)  # type: ignore[arg-type]
        store.delete(hits.ids[1:3])
        return hits

    monkeypatch.setattr(Searcher, "search", overtaken)
    assert retriever.invoke("3") == [before[0], *before[3:]]


def test_an_empty_collection_and_a_row_without_a_text(searcher: Searcher, store: Store) -> None:
    retriever = CrossfadeRetriever(searcher, content="text", metadata_columns=["kind", "text"])
    store.delete(IDS["string"])
    assert retriever.invoke("3") == []
    store.upsert(Records(["one"], {"old": Vectors.of(seen([3], OLD))}, {"kind": ["odd"]}))
    (document,) = retriever.invoke("3")
    assert (document.id, document.page_content) == ("one", "")
    assert document.metadata == {"kind": "odd", "text": None, "score": pytest.approx(document.metadata["score"])}


def test_a_column_of_numbers_is_read_as_text(searcher: Searcher) -> None:
    documents = CrossfadeRetriever(searcher, content="number", k=3).invoke("3")
    assert [IDS["string"].index(document.id) for document in documents] == [int(d.page_content) for d in documents]


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
    with pytest.raises(ConfigError, match="Leave that column out"):
        CrossfadeRetriever(searcher, content="text", metadata_columns=["score"])
    with pytest.raises(ConfigError, match="must be among"):
        CrossfadeRetriever(searcher, content="text", where={"number": {"!=": 3}})
    for k in (0, True, "5"):
        with pytest.raises(ConfigError, match="k must be a whole number"):
            CrossfadeRetriever(searcher, content="text", k=k)  # type: ignore[arg-type]


def test_a_searcher_without_the_model_that_is_asked_for_says_so(store: Store, upgrade: Upgrade) -> None:
    retriever = CrossfadeRetriever(Searcher(upgrade, store, new=Digits(NEW)), content="text")
    with pytest.raises(ConfigError, match="give Searcher old=ENCODER"):
        retriever.invoke("3")
    cutover(upgrade, store, force="a test")
    assert retriever.invoke("3")


def test_without_langchain_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "crossfade.integrations.langchain")
    monkeypatch.setitem(sys.modules, "langchain_core.callbacks", None)
    with pytest.raises(MissingExtra, match=r"'langchain-core'.*pip install 'crossfade\[integrations\]'"):
        import_module("crossfade.integrations.langchain")
