"""Candidates embedded by a real encoder from the items themselves, some of them missing or broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import crossfade as cf
from crossfade.datasets import ImageItem
from crossfade.demo import NEW, OLD
from crossfade.embeddings import Embeddings
from crossfade.errors import CorruptItem, EncoderError
from crossfade.methods import METHODS
from crossfade.two_stage import ItemEmbedder, TwoStage, VectorCache
from crossfade.two_stage.items import embed_all

NAMES = (
    "BLACK CHESS KNIGHT",
    "LATIN SMALL LETTER A",
    "DIGIT SEVEN",
    "SNOWMAN",
    "GREEK SMALL LETTER ALPHA",
    "PLUS SIGN",
)


@pytest.fixture(scope="module")
def encoders():
    return tuple(cf.load_encoder(str(folder), device="cpu") for folder in (OLD, NEW))


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_texts_are_embedded_as_documents_and_unknown_ids_get_no_vector(encoders):
    new = encoders[1]
    texts = {str(i): name for i, name in enumerate(NAMES)}
    vectors = ItemEmbedder(new, texts, modality="text")(np.asarray(["3", "unknown", "0"]))
    np.testing.assert_allclose(vectors[[0, 2]], new.encode_texts([NAMES[3], NAMES[0]]), atol=1e-6)
    assert np.isnan(vectors[1]).all()


def test_images_come_as_files_pictures_or_items_and_broken_ones_get_no_vector(encoders, tmp_path: Path):
    new = encoders[1]
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing more")

    def refuse() -> Image.Image:
        raise CorruptItem("truncated")

    items = {
        "file": tmp_path / "0.png",
        "broken": tmp_path / "broken.png",
        "picture": picture(1),
        "item": ImageItem("item", lambda: picture(2)),
        "refused": ImageItem("refused", refuse),
    }
    vectors = ItemEmbedder(new, items.__getitem__, modality="image")(np.asarray(list(items)))
    np.testing.assert_allclose(vectors[[0, 2, 3]], new.encode_images([picture(i) for i in range(3)]), atol=1e-6)
    assert np.isnan(vectors[[1, 4]]).all()
    only_broken = ItemEmbedder(new, items, modality="image")(np.asarray(["broken", "nobody"]))
    assert np.isnan(only_broken).all()


def test_items_of_another_kind_and_encoders_without_the_tower_are_refused(encoders):
    with pytest.raises(EncoderError, match="must be images"):
        ItemEmbedder(encoders[1], {"a": "a text"}, modality="image")(np.asarray(["a"]))
    with pytest.raises(EncoderError, match="encodes image only"):
        ItemEmbedder(ImageOnly(), {}, modality="text")


class ImageOnly(cf.Encoder):
    space = cf.Space(model="eyes", dimension=4, modalities=("image",))

    def __repr__(self) -> str:
        return "ImageOnly()"


def test_two_stages_over_a_real_encoder_rank_as_the_new_model_does(encoders, tmp_path: Path):
    old, new = encoders
    texts = {f"t{i}": name for i, name in enumerate(NAMES * 12)}
    texts = {name: f"{text} {place}" for place, (name, text) in enumerate(texts.items())}
    sides = [cf.encode(list(texts.items()), encoder=encoder) for encoder in encoders]
    adapter = METHODS["procrustes"]().fit(cf.pair(*sides), seed=0)
    queries = Embeddings(["q"], new.encode_texts(["CHESS"], role="query"), new.space, "text")
    full = cf.search(queries, sides[1], k=5)
    with VectorCache(tmp_path / "new.sqlite", new.space, modality="text") as cache:
        embedder = ItemEmbedder(new, texts, modality="text")
        two_stage = TwoStage(adapter, sides[0], embedder, candidates=72, cache=cache, batch=7)
        found = two_stage.search(queries, 5)
        assert found.ids.tolist() == sides[1].ids[full.rows].tolist()
        np.testing.assert_allclose(found.scores, full.scores, atol=1e-5)
        assert len(cache) == 72
    with pytest.raises(cf.errors.SpaceMismatch):
        TwoStage(adapter, sides[0], ItemEmbedder(old, texts, modality="text"))


def test_halves_find_the_one_corrupt_item():
    space = cf.Space(model="m", dimension=2, normalized=False)

    def embed(ids):
        if "5" in ids.tolist():
            raise CorruptItem("5 is broken")
        return np.asarray([[float(name), 1.0] for name in ids])

    made = embed_all(embed, np.asarray([str(i) for i in range(9)]), space)
    assert np.flatnonzero(~made.fine).tolist() == [5]
    np.testing.assert_array_equal(made.vectors[made.fine][:, 0], [0, 1, 2, 3, 4, 6, 7, 8])
