"""Both stages of XBT: LoRA inside the real MiniLM text tower, from raw captions; images from cached features."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NoReturn

import crossfade as cf
from benchmarks.flickr8k_upgrade.cache import code_of, digest
from benchmarks.flickr8k_upgrade.heads import Lookup
from benchmarks.flickr8k_upgrade.upgrade import Upgrade
from crossfade.datasets.base import ImageItem, Link, TextItem
from crossfade.encoders.towers.cached import CachedTower
from crossfade.encoders.towers.sentence import SentenceTower
from crossfade.encoders.towers.tuning import Tuning
from crossfade.methods.base import Adapter
from crossfade.training.tuning import XBTTuning, run, task, tune_towers
from crossfade.training.tuning.samples import Samples

TARGETS = ("query", "value")
"""MiniLM's names for what ``q_proj`` and ``v_proj`` are elsewhere."""

PRECISION: Literal["bfloat16"] = "bfloat16"
"""Of MiniLM's forward pass while it is tuned."""

CHECKPOINT_EVERY = 20


def tuned(upgrade: Upgrade, adapter: Adapter, *, train_projection: bool) -> list[cf.Embeddings]:
    """Test vectors of the new model tuned through φ, in the old space: images and texts.

    Images are what the new model's head makes of cached features, and only φ moves them; the text tower runs from raw
    captions, and its head stays as it is.

    Args:
        upgrade: the models.
        adapter: φ of stage 1.
        train_projection: train φ on.
    """
    made = adapter.provenance
    assert made is not None
    steps = upgrade.place.effort.tuning_steps
    training = replace(XBTTuning().training, steps=steps, precision=PRECISION, checkpoint_every=CHECKPOINT_EVERY)
    config = XBTTuning(tuning=Tuning(text_targets=TARGETS), train_projection=train_projection, training=training)
    samples = _samples(upgrade)
    key = {
        "upgrade": upgrade.key,
        "projection": [dict(made.config), digest(made.fitted_on.tolist())],
        "config": config.to_dict(),
        "samples": digest(samples.item_keys().tolist()),
        "code": code_of(run, task),
    }
    name = f"{upgrade.name}/xbt stages 1+2"

    def make() -> list[cf.Embeddings]:
        minilm, text = upgrade.place.minilm, upgrade.new_towers.text
        assert minilm is not None
        assert isinstance(text, Lookup)
        untuned = {sets.modality: sets for sets in upgrade.new}
        done = tune_towers(
            {"text": SentenceTower(minilm, head=text.through()), "image": CachedTower(untuned["image"])},
            adapter,
            samples,
            config,
            untuned=untuned,
            seed=upgrade.seed,
            folder=upgrade.place.cache.place(f"{name}/training", key),
            resume=True,
            progress=True,
        )
        images, texts = upgrade.new_test
        pictures = done.adapter.map(images.matrix(), "image")
        asked = done.encode(_texts(upgrade, texts.ids.tolist()))
        return [
            cf.Embeddings(images.ids, pictures, adapter.target, "image"),
            cf.Embeddings(texts.ids, asked, adapter.target, "text"),
        ]

    return upgrade.place.cache.vectors(name, key, make)


def _samples(upgrade: Upgrade) -> Samples:
    """The upgrade's pairs of image and caption."""
    data = upgrade.place.data
    rows = data.pair_rows()[0][: upgrade.place.effort.tuned_images]
    captions = [data.captions[row] for row in data.captions_of(rows)]
    images = [ImageItem(data.images[row]["id"], _not_there) for row in rows]
    texts = [TextItem(caption["id"], caption["text"]) for caption in captions]
    links = [Link(caption["id"], caption["image"]) for caption in captions]
    return Samples.from_links(images, texts, links, {sets.modality: sets for sets in upgrade.new})


def _texts(upgrade: Upgrade, ids: list[str]) -> list[TextItem]:
    text_of = {caption["id"]: caption["text"] for caption in upgrade.place.data.captions}
    return [TextItem(name, text_of[name]) for name in ids]


def _not_there() -> NoReturn:
    raise FileNotFoundError("Only the images' features are at hand; nothing may ask for their pixels.")
