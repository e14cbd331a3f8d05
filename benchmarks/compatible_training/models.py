"""Models and their vectors, trained once: everything stands in a folder outside the repository, and a killed run goes on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compatible_training.cost import Cost, metered
from benchmarks.compatible_training.images import Images
from benchmarks.compatible_training.settings import Plan, Recipe
from benchmarks.flickr8k_upgrade.cache import code_of, digest
from crossfade import Embeddings, Space
from crossfade.compatible import COMPATIBLE, augmentation, classifiers
from crossfade.compatible.config import AUTHORS, CompatibleConfig
from crossfade.compatible.run import train_compatible
from crossfade.datasets import Dataset, ImageItem
from crossfade.encoders import Encoder
from crossfade.encoders.trained import TrainedEncoder
from crossfade.encoding import encode

__all__ = ["Model", "Named", "Place", "default_folder", "named_classes"]

BATCH = 64
"""Our choice for few epochs, by the training loss of the independent model."""

CHECKPOINT_EVERY = 400
"""Steps: at most so many are lost by a kill."""


def default_folder() -> Path:
    """The user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "crossfade" / "compatible_training"


@dataclass(frozen=True)
class Model:
    """What a model makes of the images.

    Attributes:
        test: of queries and gallery.
        train: of every training image, for those that are asked for them; else None.
        seconds: of processor time to train it.
        asked: of processor time for ``train``.
    """

    test: Embeddings
    train: Embeddings | None
    seconds: float = 0.0
    asked: float = 0.0

    @property
    def space(self) -> Space:
        """Where its vectors live."""
        return self.test.space

    def known(self) -> Embeddings:
        """Its vectors of the training images.

        Raises:
            ValueError: it was not asked for them.
        """
        if self.train is None:
            raise ValueError(f"The vectors of the training images by {self.space} are needed; train it with ask=True.")
        return self.train


@dataclass(frozen=True)
class Place:
    """Where models are trained.

    Attributes:
        folder: may be deleted at any time.
        images: what they are trained on.
        epochs: of a training, before the data set's own factor.
    """

    folder: Path
    images: Images
    epochs: int

    def config(self, plan: Plan) -> CompatibleConfig:
        """BT²'s course, shortened, and faster for it."""
        course = replace(
            AUTHORS,
            epochs=self.epochs * self.images.passes,
            batch=BATCH,
            learning_rate=plan.learning_rate,
            precision="bfloat16",
            checkpoint_every=CHECKPOINT_EVERY,
        )
        return CompatibleConfig(
            plan.network,
            course,
            self.images.augmentation,
            class_share=plan.classes,
            image_share=plan.images,
        )

    def trained(
        self,
        plan: Plan,
        recipe: Recipe,
        *,
        seed: int,
        old: Model | None = None,
        independent: Model | None = None,
        ask: bool = False,
    ) -> Model:
        """A model, trained now or in an earlier run.

        Args:
            plan: network and data.
            recipe: method and hyper-parameters.
            seed: of everything random.
            old: the old model; None for independent ones.
            independent: the independent new model, where the method looks at it.
            ask: whether its vectors of the training images are wanted.
        """
        method = COMPATIBLE[recipe.method](**recipe.options)
        looked_at = independent if "independent" in method.needs else None
        config = self.config(plan)
        key = {
            "data": [self.images.name, self.images.described],
            "method": [method.name, method.config()],
            "config": config.to_dict(),
            "seed": seed,
            "old": old and old.space.fingerprint,
            "independent": looked_at and looked_at.space.fingerprint,
            "code": code_of(import_module(COMPATIBLE[recipe.method].__module__), augmentation, classifiers),
        }
        folder = self._entry(f"{recipe.method}-{plan.network.backbone}-{seed}", key)
        if not Cost.of(folder).done:
            started = time.perf_counter()
            with metered(folder):
                train_compatible(
                    folder / "run",
                    method=method,
                    data=self.images.train,
                    old=None if old is None else old.known(),
                    independent=None if looked_at is None else looked_at.known(),
                    config=config,
                    name=f"{recipe.method}-{plan.network.backbone}",
                    seed=seed,
                    device="cpu",
                    resume=True,
                    pixels=self.folder / "pixels",
                )
            print(f"{folder.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        encoder = TrainedEncoder.from_pretrained(folder / "run" / "model", device="cpu")
        test = _vectors(self.images.test, encoder, folder / "test")
        train = _vectors(self.images.train, encoder, folder / "train") if ask else None
        return Model(test, train, Cost.of(folder).seconds, Cost.of(folder / "train").seconds if ask else 0.0)

    def _entry(self, name: str, key: Mapping[str, Any]) -> Path:
        return self.folder / self.images.name / f"{name}-{digest(key)}"


def _vectors(data: Dataset, encoder: Encoder, folder: Path) -> Embeddings:
    """The vectors of a data set's images, computed once."""
    if not Cost.of(folder).done:
        with metered(folder):
            encode(data.images(), encoder=encoder, out=folder / "vectors", batch_size=256)
    return Embeddings.load(folder / "vectors")


@dataclass(frozen=True)
class Named:
    """A space in which an image's vector is that of its class's name, and the names themselves.

    Attributes:
        model: the old model that it stands for.
        names: the vector of each class's name, whose metadata ``label`` is the class.
    """

    model: Model
    names: Embeddings


def named_classes(images: Images, encoder: Encoder) -> Named:
    """Label a gallery by text: no old image model is needed.

    Args:
        images: whose items have their class's name in the metadata ``name``.
        encoder: of texts.
    """
    items = {part: list(data.images()) for part, data in (("train", images.train), ("test", images.test))}
    names = {str(item.metadata["label"]): str(item.metadata["name"]) for item in items["train"]}
    matrix = encoder.encode_texts(list(names.values()))
    # The space says that it holds images, too: an image's vector is its class name's, and new ones are made to be.
    text = encoder.space
    space = replace(text, model=f"{text.model}, names of classes", modalities=("image", "text"))
    row = {label: number for number, label in enumerate(names)}

    def of(part: list[ImageItem]) -> Embeddings:
        labels = [str(item.metadata["label"]) for item in part]
        vectors = matrix[[row[label] for label in labels]]
        return Embeddings([item.id for item in part], vectors, space, "image", metadata={"label": np.asarray(labels)})

    texts = Embeddings(
        [f"class/{label}" for label in names], matrix, space, "text", metadata={"label": np.asarray(list(names))}
    )
    return Named(Model(of(items["test"]), of(items["train"])), texts)
