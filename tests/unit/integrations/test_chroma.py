"""Chroma's collections, filled by an old model and searched by the new one, with the real client."""

from __future__ import annotations

import gc
import importlib
import json
import sys
import uuid
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb import EmbeddingFunction
from chromadb.config import Settings
from live import NEW, OLD, QUERY, Numbers, seen
from stores import maker_of

import crossfade as cf
from crossfade import Adapter, Embeddings, Encoder, Space
from crossfade.encoders import AdaptedEncoder, Role
from crossfade.errors import (
    ConfigError,
    CorruptItem,
    EncoderError,
    FormatError,
    MissingExtra,
    NewerFormat,
    SpaceMismatch,
)
from crossfade.integrations import ServedEncoder
from crossfade.integrations.chroma import CrossfadeEmbeddingFunction
from crossfade.methods import METHODS
from crossfade.pairing import pair
from crossfade.stores import Records, Store, VectorField, Vectors
from crossfade.upgrading import Upgrade, cutover, plan_upgrade, rollback

SETTINGS = Settings(anonymized_telemetry=False)
CONTENTS = range(150)
ASKED = [content + QUERY for content in (3, 77, 149)]
TEXTS = ["LATIN SMALL LETTER O", "SNOWMAN", "GREEK SMALL LETTER ALPHA"]
LEGACY = "ignore:legacy embedding function config:DeprecationWarning"


@lru_cache
def text_adapter() -> Adapter:
    contents = range(500_000, 500_400)
    old, new = (Embeddings(list(contents), seen(contents, space), space, "text") for space in (OLD, NEW))
    return METHODS["ridge"]().fit(pair(old, new))


@lru_cache
def demo_adapter() -> Adapter:
    names = [f"{text} {number}" for text in TEXTS for number in range(30)]
    old, new = (
        Embeddings(names, encoder.encode_texts(names), encoder.space, "text")
        for encoder in (cf.load_encoder("demo:old"), cf.load_encoder("demo:new"))
    )
    return cf.methods.Procrustes().fit(pair(old, new))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    yield opened(tmp_path)
    gc.collect()


def opened(folder: Path) -> Any:
    return chromadb.PersistentClient(folder / "chroma", settings=SETTINGS)


def filled(client: Any, function: Any, *, name: str = "items", distance: str = "cosine") -> Any:
    """A collection as an application of the old model made it."""
    collection = client.create_collection(
        name, embedding_function=function, configuration={"hnsw": {"space": distance, "ef_search": 200}}
    )
    collection.add(ids=[f"item-{content}" for content in CONTENTS], documents=[str(content) for content in CONTENTS])
    return collection


def planned(folder: Path, texts: list[str], old: Encoder, adapter: Adapter) -> tuple[Store, Upgrade]:
    """An upgrade before its cutover, of the same vectors in a store of Crossfade's."""
    rows = Records(texts, {"old": Vectors.of(old.encode_texts(texts))}, {"kind": ["a"] * len(texts)})
    fields = [VectorField("old", old.space.dimension, "cosine")]
    store = maker_of("memory", folder).make(fields, {"kind": "string"}, "string", rows)
    store.register("old", old.space, "text")
    plan_upgrade(store, adapter, out=folder / "upgrade", field="old", new_field="new")
    return store, Upgrade.open(folder / "upgrade")


def by_hand(queries: np.ndarray, k: int = 7) -> list[list[str]]:
    order = np.argsort(-(queries @ seen(list(CONTENTS), OLD).T), axis=1, kind="stable")[:, :k]
    return [[f"item-{content}" for content in row] for row in order]


def asked(collection: Any) -> Any:
    return collection.query(query_texts=[str(content) for content in ASKED], n_results=7)["ids"]


class Foreign(EmbeddingFunction[Any]):
    """Somebody's own function, around the old model."""

    def __init__(self) -> None:
        pass

    def __call__(self, input: Any) -> Any:
        return list(seen([int(text) for text in input], OLD))

    @staticmethod
    def name() -> str:
        return "foreign"

    def get_config(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Foreign:
        return Foreign()


class Unnamed(EmbeddingFunction[Any]):
    """As they were written before Chroma stored them."""

    def __init__(self) -> None:
        pass

    def __call__(self, input: Any) -> Any:
        return list(seen([int(text) for text in input], OLD))


class Roles(Encoder):
    """Shows the role and the batches that it was asked in."""

    def __init__(self, space: Space = OLD) -> None:
        self.space, self.asked = space, []  # type: ignore[var-annotated]

    def encode_images(self, images: Sequence[Any]) -> np.ndarray:
        self.asked.append([(image.mode, image.size, image.getpixel((0, 0))) for image in images])
        return seen([1] * len(images), OLD)

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> np.ndarray:
        self.asked.append((role, list(texts)))
        return seen([1] * len(texts), OLD)

    def __repr__(self) -> str:
        return "Roles()"


class TextOnly(Encoder):
    space = Space(model="texts", dimension=3, modalities=("text",), normalized=False, metric="dot")

    def __repr__(self) -> str:
        return "TextOnly()"


# One line changed


def test_a_collection_is_searched_through_the_adapter_with_one_line_changed(client: Any, tmp_path: Path) -> None:
    filled(client, CrossfadeEmbeddingFunction(Numbers(OLD)))
    assert asked(opened(tmp_path).get_collection("items", CrossfadeEmbeddingFunction(Numbers(OLD)))) == by_hand(
        seen(ASKED, OLD)
    )
    upgraded = CrossfadeEmbeddingFunction(AdaptedEncoder(Numbers(NEW), text_adapter()))
    mapped = text_adapter().map(seen(ASKED, NEW), "text")
    assert asked(opened(tmp_path).get_collection("items", embedding_function=upgraded)) == by_hand(mapped)


def test_the_served_encoder_follows_the_pointer_in_an_open_collection(client: Any, tmp_path: Path) -> None:
    texts = [str(content) for content in CONTENTS]
    store, upgrade = planned(tmp_path, texts, Numbers(OLD), text_adapter())
    filled(client, Foreign())
    served = ServedEncoder(upgrade, old=Numbers(OLD), new=Numbers(NEW))
    collection = client.get_collection("items", CrossfadeEmbeddingFunction(served, made_by="foreign"))
    native, mapped = seen(ASKED, OLD), text_adapter().map(seen(ASKED, NEW), "text")

    assert asked(collection) == by_hand(native)
    cutover(upgrade, store, force="a test")
    assert asked(collection) == by_hand(mapped) != by_hand(native)
    rollback(upgrade, store, reason="a test")
    assert asked(collection) == by_hand(native)


def test_what_is_written_through_it_is_found(client: Any) -> None:
    filled(client, CrossfadeEmbeddingFunction(Numbers(OLD)))
    function = CrossfadeEmbeddingFunction(AdaptedEncoder(Numbers(NEW), text_adapter()))
    collection = client.get_collection("items", embedding_function=function)
    collection.upsert(ids=["neu-é"], documents=["900"])
    (vector,) = collection.get(ids=["neu-é"], include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(vector, text_adapter().map(seen([900], NEW), "text")[0], rtol=1e-6)
    assert collection.query(query_texts=[str(900 + QUERY)], n_results=1)["ids"] == [["neu-é"]]


def test_images_are_searched_and_stored() -> None:
    client = chromadb.EphemeralClient(settings=SETTINGS)
    name = f"images-{uuid.uuid4().hex}"
    collection = client.create_collection(name, embedding_function=CrossfadeEmbeddingFunction(Numbers(OLD)))  # type: ignore[arg-type]
    pictures = [np.full((2, 2, 3), content, dtype=np.uint8) for content in CONTENTS]
    collection.add(ids=[f"item-{content}" for content in CONTENTS], images=pictures)  # type: ignore[arg-type]
    found = collection.query(query_images=[pictures[3], pictures[77]], n_results=7)["ids"]  # type: ignore[list-item]
    assert found == by_hand(seen([3, 77], OLD))


@pytest.mark.parametrize(("metric", "distance"), [("cosine", "cosine"), ("dot", "ip"), ("l2", "l2")])
def test_a_new_collection_is_compared_as_the_space_says(client: Any, metric: Any, distance: str) -> None:
    space = Space(model="old-model", revision="1", dimension=OLD.dimension, metric=metric)
    function = CrossfadeEmbeddingFunction(Roles(space))
    collection = client.create_collection("items", embedding_function=function)
    assert collection.configuration_json["hnsw"]["space"] == distance == function.default_space()
    assert set(function.supported_spaces()) == {"cosine", "ip", "l2"}


def test_without_unit_norm_other_distances_are_warned_of(client: Any) -> None:
    function = CrossfadeEmbeddingFunction(TextOnly())
    assert function.supported_spaces() == ["ip"]
    with pytest.warns(UserWarning, match="space l2 is not supported by crossfade"):
        client.create_collection("items", embedding_function=function, configuration={"hnsw": {"space": "l2"}})


# What is encoded


def test_roles_and_batches() -> None:
    encoder = Roles()
    function = CrossfadeEmbeddingFunction(encoder, batch_size=2)
    assert len(function(["a", "b", "c"])) == 3
    (vector,) = function.embed_query(["d"])
    assert (vector.dtype, vector.shape) == (np.float32, (12,))
    assert encoder.asked == [("document", ["a", "b"]), ("document", ["c"]), ("query", ["d"])]


@pytest.mark.parametrize(
    ("array", "first"),
    [
        (np.full((3, 5), 9, dtype=np.int64), (9, 9, 9)),
        (np.full((3, 5, 1), 9, dtype=np.uint16), (9, 9, 9)),
        (np.full((3, 5, 3), [1, 2, 3], dtype=np.uint8), (1, 2, 3)),
        (np.full((3, 5, 4), [1, 2, 3, 255], dtype=np.uint8), (1, 2, 3)),
        (np.full((3, 5, 4), [1, 2, 3, 0], dtype=np.uint8), (255, 255, 255)),
    ],
)
def test_arrays_become_rgb_images(array: np.ndarray, first: tuple[int, int, int]) -> None:
    encoder = Roles()
    CrossfadeEmbeddingFunction(encoder).embed_query([array])
    assert encoder.asked == [[("RGB", (5, 3), first)]]


@pytest.mark.parametrize(
    "array",
    [
        np.full((3, 5, 3), 0.5),
        np.full((3, 5, 3), 256),
        np.full((3, 5, 3), -1),
        np.zeros((3, 5, 2), dtype=np.uint8),
        np.zeros((0, 5, 3), dtype=np.uint8),
        np.zeros((3, 5), dtype=bool),
        None,
    ],
)
def test_what_is_no_image_is_refused(array: Any) -> None:
    good = np.zeros((2, 2, 3), dtype=np.uint8)
    with pytest.raises(CorruptItem, match=r"from 0 to 255.*as item 1"):
        CrossfadeEmbeddingFunction(Roles(), batch_size=1)([good, array])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes an encoder; found str"):
        CrossfadeEmbeddingFunction("demo:old")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1; found 0"):
        CrossfadeEmbeddingFunction(Roles(), batch_size=0)
    with pytest.raises(ConfigError, match="found 1 texts of 2"):
        CrossfadeEmbeddingFunction(Roles())(["a", np.zeros((2, 2, 3), dtype=np.uint8)])  # type: ignore[list-item]
    with pytest.raises(EncoderError, match="encodes text only; asked for image"):
        CrossfadeEmbeddingFunction(TextOnly())([np.zeros((2, 2, 3), dtype=np.uint8)])
    with pytest.raises(ConfigError, match="found both"):
        CrossfadeEmbeddingFunction.named("demo:new", adapter="a", upgrade="u")
    with pytest.raises(ConfigError, match="'demo:old' has a use beside"):
        CrossfadeEmbeddingFunction.named("demo:new", old="demo:old")


# What was made by another function


def test_collections_of_another_function_open_by_its_name(client: Any, tmp_path: Path) -> None:
    filled(client, Foreign(), name="named")
    default = client.create_collection("default")  # Chroma's own; it would download a model to encode
    default.add(ids=[f"item-{c}" for c in CONTENTS], embeddings=seen(list(CONTENTS), OLD))
    expected = by_hand(text_adapter().map(seen(ASKED, NEW), "text"))
    encoder = AdaptedEncoder(Numbers(NEW), text_adapter())
    for name, made_by in (("named", "foreign"), ("default", "default")):
        with pytest.raises(ValueError, match="Embedding function conflict: new: crossfade"):
            opened(tmp_path).get_collection(name, embedding_function=CrossfadeEmbeddingFunction(encoder))
        function = CrossfadeEmbeddingFunction(encoder, made_by=made_by)
        collection = opened(tmp_path).get_collection(name, embedding_function=function)
        assert asked(collection) == expected
        assert asked(client.get_or_create_collection(name, embedding_function=function)) == expected
        assert collection.configuration_json["embedding_function"]["name"] == made_by, "Chroma keeps what it had"


def test_chroma_fails_to_change_the_name_once_it_has_stored_it(client: Any) -> None:
    """Which is why ``made_by`` is the way, and not ``modify``; where this fails, Chroma has mended it: change the docs."""
    collection, function = filled(client, Foreign()), CrossfadeEmbeddingFunction(Numbers(OLD))
    with pytest.raises(ValueError, match=r"incompatible types \(foreign vs crossfade\)"):
        collection.modify(configuration={"embedding_function": function})
    assert asked(client.get_collection("items", embedding_function=function)) == by_hand(seen(ASKED, OLD))


@pytest.mark.filterwarnings(LEGACY, "ignore:The .* does not implement:DeprecationWarning")
def test_collections_of_an_unnamed_function_or_none_open_at_once(client: Any) -> None:
    filled(client, Unnamed(), name="unnamed")
    bare = client.create_collection("bare", embedding_function=None)
    bare.add(ids=[f"item-{c}" for c in CONTENTS], embeddings=seen(list(CONTENTS), OLD))
    function = CrossfadeEmbeddingFunction(AdaptedEncoder(Numbers(NEW), text_adapter()))
    expected = by_hand(text_adapter().map(seen(ASKED, NEW), "text"))
    for name in ("unnamed", "bare"):
        assert asked(client.get_collection(name, embedding_function=function)) == expected


@pytest.mark.filterwarnings(LEGACY)
def test_a_foreign_name_stores_nothing_with_a_new_collection(client: Any) -> None:
    function = CrossfadeEmbeddingFunction(Numbers(OLD), made_by="foreign")
    made = client.create_collection("items", embedding_function=function)
    assert made.configuration_json["embedding_function"] == {"type": "legacy"}


# What is stored


def test_names_and_folders_are_made_again_in_another_client(client: Any, tmp_path: Path) -> None:
    old, new = cf.load_encoder("demo:old"), cf.load_encoder("demo:new")
    adapter = demo_adapter()
    adapter.save_pretrained(tmp_path / "adapter")
    function = CrossfadeEmbeddingFunction.named("demo:new", adapter=tmp_path / "adapter", batch_size=3)
    client.create_collection("items", embedding_function=function).add(ids=TEXTS, documents=TEXTS)

    collection = opened(tmp_path).get_collection("items")
    stored = collection.configuration_json["embedding_function"]
    assert stored == {
        "type": "known",
        "name": "crossfade",
        "config": {
            "format_version": 1,
            "space": old.space.to_dict(),
            "encoder": "demo:new",
            "adapter": str((tmp_path / "adapter").resolve()),
        },
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collection.add(ids=["more"], documents=["SNOWMAN"])
        assert collection.query(query_texts=["SNOWMAN"], n_results=2)["ids"] in (
            [["SNOWMAN", "more"]],
            [["more", "SNOWMAN"]],
        )
    again = collection.configuration["embedding_function"]
    expected = AdaptedEncoder(new, adapter).encode_texts(TEXTS, role="query")
    np.testing.assert_array_equal(np.stack(again.embed_query(TEXTS)), expected)
    assert again.get_config() == function.get_config()


def test_an_upgrade_is_made_again_from_its_folder(tmp_path: Path) -> None:
    old, new = cf.load_encoder("demo:old"), cf.load_encoder("demo:new")
    store, upgrade = planned(tmp_path, TEXTS, old, demo_adapter())
    function = CrossfadeEmbeddingFunction.named("demo:new", upgrade=upgrade.folder, old="demo:old")
    again = CrossfadeEmbeddingFunction.build_from_config(json.loads(json.dumps(function.get_config())))
    np.testing.assert_array_equal(np.stack(again(TEXTS)), old.encode_texts(TEXTS))
    cutover(upgrade, store, force="a test")
    expected = AdaptedEncoder(new, upgrade.adapter).encode_texts(TEXTS)
    np.testing.assert_array_equal(np.stack(again(TEXTS)), expected)


def test_an_encoder_that_is_an_object_says_that_it_cannot_be_made_again(client: Any, tmp_path: Path) -> None:
    filled(client, CrossfadeEmbeddingFunction(Numbers(OLD)))
    collection = opened(tmp_path).get_collection("items")
    assert collection.count() == len(CONTENTS)
    assert collection.query(query_embeddings=seen([3], OLD), n_results=1)["ids"] == [["item-3"]]
    with pytest.raises(
        EncoderError, match=r"an encoder of old-model@1 .* has no name.*Open it with embedding_function="
    ):
        collection.query(query_texts=["3"], n_results=1)


def test_a_model_that_has_changed_is_refused() -> None:
    config = CrossfadeEmbeddingFunction.named("demo:old").get_config()
    config["space"]["revision"] = "another"
    with pytest.raises(SpaceMismatch, match="The vectors of demo:old, as it is now, must live in"):
        CrossfadeEmbeddingFunction.build_from_config(config)(["a"])


def test_the_function_that_is_stored_can_be_changed_within_its_space(client: Any, tmp_path: Path) -> None:
    collection = filled(client, CrossfadeEmbeddingFunction(Numbers(OLD)))
    upgraded = CrossfadeEmbeddingFunction(AdaptedEncoder(Numbers(NEW), text_adapter()))
    collection.modify(configuration={"embedding_function": upgraded})
    assert asked(opened(tmp_path).get_collection("items", embedding_function=upgraded)) == by_hand(
        text_adapter().map(seen(ASKED, NEW), "text")
    )
    with pytest.raises(SpaceMismatch, match="Chroma has stored it by now: modify the collection again"):
        collection.modify(configuration={"embedding_function": CrossfadeEmbeddingFunction(Numbers(NEW))})
    collection = opened(tmp_path).get_collection("items", embedding_function=upgraded)
    stored = collection.configuration_json["embedding_function"]["config"]["space"]
    assert stored == NEW.to_dict(), "as the message says"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format_version": 2}, NewerFormat),
        ({"format_version": None}, FormatError),
        ({"space": "demo:old"}, FormatError),
        ({"space": {"model": "a"}}, FormatError),
        ({"space": {"model": "a", "dimension": 0}}, FormatError),
        ({"colour": "red"}, FormatError),
        ({"encoder": 7}, FormatError),
        ({"adapter": "a", "upgrade": "b"}, FormatError),
    ],
)
def test_a_damaged_configuration_is_refused(change: dict[str, Any], error: type[Exception]) -> None:
    config = {**CrossfadeEmbeddingFunction.named("demo:old").get_config(), **change}
    with pytest.raises(error):
        CrossfadeEmbeddingFunction.validate_config(config)
    with pytest.raises(error):
        CrossfadeEmbeddingFunction.build_from_config(config)


def test_it_says_what_it_is() -> None:
    assert repr(CrossfadeEmbeddingFunction(Roles())) == "CrossfadeEmbeddingFunction(Roles())"
    assert "StoredEncoder(glyphs-old" in repr(CrossfadeEmbeddingFunction.named("demo:old"))


def test_without_chroma_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)
    monkeypatch.delitem(sys.modules, "crossfade.integrations.chroma")
    with pytest.raises(MissingExtra, match=r"needs the package 'chromadb'.*crossfade\[integrations\]"):
        importlib.import_module("crossfade.integrations.chroma")
