"""Four dual encoders on the Flickr8k features, each stronger than the one before.

============  ====================  ==========================  ===============  =========
version       images                texts                       training images  dimension
============  ====================  ==========================  ===============  =========
v1            MobileNet V1, linear  bag of words                40 %             128
v2            MobileNet V1, linear  MiniLM, linear              60 %             160
v3            MobileNet V2, linear  MiniLM, linear              80 %             192
v4            MobileNet V2, linear  MiniLM, one hidden layer    all              256
============  ====================  ==========================  ===============  =========
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.flickr8k_upgrade.heads import BagOfWords, Flickr8k, Lookup, contrast, embed, words
from crossfade import Embeddings

__all__ = ["VERSIONS", "Recipe", "train_version"]


@dataclass(frozen=True)
class Recipe:
    """What makes one version stronger than another.

    Attributes:
        share: of the training images.
        wide_images: MobileNet V2 at full width, or else V1 at a quarter.
        text: ``words``, ``linear`` or ``hidden``.
        dimension: of the space.
        epochs: over its training images.
        batch: images in a batch.
    """

    share: float
    wide_images: bool
    text: str
    dimension: int
    epochs: int
    batch: int


VERSIONS = (
    Recipe(0.4, False, "words", 128, 40, 256),
    Recipe(0.6, False, "linear", 160, 30, 256),
    Recipe(0.8, True, "linear", 192, 30, 512),
    Recipe(1.0, True, "hidden", 256, 30, 512),
)


def train_version(data: Flickr8k, number: int, *, seed: int) -> list[Embeddings]:
    """Train version ``number`` (from 1) and embed every image and caption.

    Args:
        data: the features.
        number: which of :data:`VERSIONS`.
        seed: of initialisation, batches and the version's share of the images.

    Returns:
        The image and the text embeddings, float32, unit norm, over all splits.
    """
    recipe = VERSIONS[number - 1]
    torch.manual_seed(1000 * number + seed)
    generator = np.random.default_rng([number, seed])
    everything = data.image_rows("train")
    images = np.sort(generator.choice(everything, round(recipe.share * len(everything)), replace=False))
    features = data.mobilenet_v2 if recipe.wide_images else data.mobilenet_v1
    linear = nn.Linear(features.shape[1], recipe.dimension)
    vision = Lookup(features, nn.Sequential(nn.Dropout(0.3), linear) if recipe.wide_images else linear)
    text = _text_head(data, recipe, images)
    contrast(data, vision, text, images, epochs=recipe.epochs, batch=recipe.batch, generator=generator)
    revision = f"v{number}-seed{seed}"
    return embed(data, vision, text, model="flickr8k-chain", revision=revision, dimension=recipe.dimension)


def _text_head(data: Flickr8k, recipe: Recipe, images: np.ndarray) -> nn.Module:
    width = data.minilm.shape[1]
    if recipe.text == "linear":
        return Lookup(data.minilm, nn.Linear(width, recipe.dimension))
    if recipe.text == "hidden":
        hidden = nn.Sequential(nn.Linear(width, 768), nn.GELU(), nn.Dropout(0.2), nn.Linear(768, recipe.dimension))
        return Lookup(data.minilm, hidden)
    seen = {str(data.images[row]["id"]) for row in images}
    counts = Counter(w for c in data.captions if str(c["image"]) in seen for w in set(words(c["text"])))
    vocabulary = sorted(word for word, count in counts.items() if count >= 2)
    return BagOfWords([c["text"] for c in data.captions], recipe.dimension, vocabulary)
