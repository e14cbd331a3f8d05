"""Three real dual encoders on frozen Flickr8k features, contrastive heads: two old ones and a new one.

* ``words``: a linear head on MobileNet V1 0.25 and a bag-of-words text tower, 128-d.
* ``sentences``: the same image side, and a linear head on MiniLM, 128-d.
* ``new``: a linear head on MobileNet V2 and an MLP on MiniLM, 256-d.

``new`` is trained on two thirds of the training images (:meth:`Flickr8k.encoder_rows`), the old ones on half of those.
The rest of the training images and the validation images are the pairs of the upgrade (:meth:`Flickr8k.pair_rows`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from crossfade import Embeddings, Space

OLD = ("words", "sentences")

SPLIT_SEED = 7
"""Of the division of the training images; the same for every seed of a model."""

NEW_SEED = 1000
"""Added to a seed for the new model, so that it does not start where an old one does."""


@dataclass(frozen=True)
class Flickr8k:
    """The features and captions, as they lie on disk."""

    images: list[dict[str, Any]]
    captions: list[dict[str, Any]]
    mobilenet_v1: torch.Tensor
    mobilenet_v2: torch.Tensor
    minilm: torch.Tensor

    @classmethod
    def open(cls, folder: Path) -> Flickr8k:
        """Read the folder ``flickr8k-features``."""
        lines = {
            name: (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() for name in ("images", "captions")
        }
        arrays = ("images_mobilenet_v1_0.25_128", "images_mobilenet_v2_1.0_224", "captions_minilm_l6_v2")
        features = [torch.from_numpy(np.load(folder / f"{name}.npy").astype(np.float32)) for name in arrays]
        return cls([json.loads(x) for x in lines["images"]], [json.loads(x) for x in lines["captions"]], *features)

    def image_rows(self, split: str) -> np.ndarray:
        """Row numbers of a split's images."""
        return np.flatnonzero([image["split"] == split for image in self.images])

    def caption_rows(self, split: str) -> np.ndarray:
        """Row numbers of a split's captions."""
        return self.captions_of(self.image_rows(split))

    def captions_of(self, image_rows: np.ndarray) -> np.ndarray:
        """Row numbers of the captions of these images."""
        chosen = {self.images[row]["id"] for row in image_rows}
        return np.flatnonzero([caption["image"] in chosen for caption in self.captions])

    def encoder_rows(self) -> np.ndarray:
        """Row numbers of the images that models are trained on: two thirds of the training split, ascending."""
        return np.sort(self._shuffled()[: self._encoder_count()])

    def pair_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of the images and captions that no model is trained on, to fit an upgrade on: the rest of the
        training split, and the validation split.
        """
        images = np.sort(np.concatenate([self._shuffled()[self._encoder_count() :], self.image_rows("val")]))
        return images, self.captions_of(images)

    def links(self) -> list[tuple[str, str]]:
        """(caption id, image id) for every caption."""
        return [(str(caption["id"]), str(caption["image"])) for caption in self.captions]

    def _shuffled(self) -> np.ndarray:
        return np.random.default_rng(SPLIT_SEED).permutation(self.image_rows("train"))

    def _encoder_count(self) -> int:
        return round(2 * len(self.image_rows("train")) / 3)


class BagOfWords(nn.Module):
    """The mean of learned word vectors; words that are not in the vocabulary are dropped."""

    def __init__(self, texts: Sequence[str], dimension: int, vocabulary: list[str]) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.table = nn.EmbeddingBag(len(vocabulary) + 1, dimension, mode="mean")
        nn.init.normal_(self.table.weight, std=0.05)  # larger vectors hardly move at this learning rate
        self._read(texts)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, dimension] for the texts of these rows."""
        pieces = [self.flat[self.starts[row] : self.starts[row + 1]] for row in rows.tolist()]
        offsets = torch.tensor(np.cumsum([0, *(len(piece) for piece in pieces[:-1])]))
        return self.table(torch.cat(pieces), offsets)

    def reading(self, texts: Sequence[str]) -> BagOfWords:
        """The same word vectors, for other texts."""
        other = BagOfWords([], self.table.embedding_dim, self.vocabulary)
        other.table = self.table
        other._read(texts)
        return other

    def _read(self, texts: Sequence[str]) -> None:
        index = {word: row for row, word in enumerate(self.vocabulary)}
        bags = [[index[word] for word in words(text) if word in index] or [len(index)] for text in texts]
        self.flat = torch.tensor([row for bag in bags for row in bag])
        self.starts = torch.tensor(np.cumsum([0, *(len(bag) for bag in bags)]))


class Standardise(nn.Module):
    """Features of mean 0 and deviation 1, by the statistics of a sample of them."""

    def __init__(self, sample: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", sample.mean(0))
        self.register_buffer("deviation", sample.std(0).clamp_min(1e-3))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[n, d], as it came."""
        return (features - self.mean) / self.deviation


class Lookup(nn.Module):
    """A head on frozen features, addressed by row."""

    def __init__(self, features: torch.Tensor, head: nn.Module, *, standardise: Standardise | None = None) -> None:
        super().__init__()
        self.standardise = Standardise(features) if standardise is None else standardise
        self.features = self.standardise(features)
        self.head = head

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The head's output for these rows."""
        return self.head(self.features[rows])

    def reading(self, features: torch.Tensor) -> Lookup:
        """The same head and the same statistics, for other features."""
        return Lookup(features, self.head, standardise=self.standardise)

    def through(self) -> nn.Module:
        """What maps raw features as this does."""
        return nn.Sequential(self.standardise, self.head)


@dataclass(frozen=True)
class Towers:
    """A dual encoder.

    Attributes:
        name: ``words``, ``sentences`` or ``new``.
        seed: of its training.
        vision: embeds images by row.
        text: embeds captions by row.
        dimension: of its space.
    """

    name: str
    seed: int
    vision: Lookup
    text: BagOfWords | Lookup
    dimension: int

    @property
    def space(self) -> Space:
        """The space of its embeddings."""
        return _space(f"flickr8k-{self.name}", f"seed{self.seed}", self.dimension)

    def module(self) -> nn.ModuleDict:
        """Everything that is trained, to save and to load."""
        return nn.ModuleDict({"vision": self.vision, "text": self.text})

    def embed(self, data: Flickr8k) -> list[Embeddings]:
        """Every image and every caption: float32, unit norm."""
        space = self.space
        return embed(
            data, self.vision, self.text, model=space.model, revision=space.revision, dimension=space.dimension
        )

    @torch.inference_mode()
    def embed_texts(self, ids: Sequence[str], texts: Sequence[str], minilm: torch.Tensor) -> Embeddings:
        """Other texts than the data's.

        Args:
            ids: of the texts.
            texts: for a bag of words.
            minilm: their MiniLM features, [n, 384], for a head on those.
        """
        tower = self.text.reading(texts) if isinstance(self.text, BagOfWords) else self.text.reading(minilm)
        tower.eval()
        vectors = nn.functional.normalize(tower(torch.arange(len(texts))), dim=1).numpy()
        return Embeddings(list(ids), vectors, self.space, "text")


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return re.findall(r"[a-z]+", text.lower())


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Attributes:
        dimension: of its space.
        epochs: over its images.
        batch: images in a batch.
    """

    dimension: int
    epochs: int
    batch: int


RECIPES = {"words": Recipe(128, 40, 128), "sentences": Recipe(128, 40, 128), "new": Recipe(256, 30, 512)}


def training_rows(data: Flickr8k, which: str, *, seed: int) -> np.ndarray:
    """Row numbers of the images that a model is trained on, ascending."""
    images = data.encoder_rows()
    if which not in OLD:
        return images
    return np.sort(np.random.default_rng(seed).choice(images, len(images) // 2, replace=False))


def untrained(data: Flickr8k, which: str, *, seed: int) -> Towers:
    """A dual encoder at its first values, which depend on the seed."""
    torch.manual_seed(seed + (NEW_SEED if which == "new" else 0))
    dimension, width = RECIPES[which].dimension, data.minilm.shape[1]
    if which == "new":
        vision = nn.Sequential(nn.Dropout(0.3), nn.Linear(data.mobilenet_v2.shape[1], dimension))
        mlp = nn.Sequential(nn.Linear(width, 768), nn.GELU(), nn.Dropout(0.2), nn.Linear(768, dimension))
        return Towers(which, seed, Lookup(data.mobilenet_v2, vision), Lookup(data.minilm, mlp), dimension)
    images = Lookup(data.mobilenet_v1, nn.Linear(data.mobilenet_v1.shape[1], dimension))
    text: BagOfWords | Lookup
    if which == "sentences":
        text = Lookup(data.minilm, nn.Linear(width, dimension))
    else:
        own = data.captions_of(training_rows(data, which, seed=seed))
        counts = Counter(w for row in own for w in set(words(data.captions[row]["text"])))
        vocabulary = sorted(word for word, count in counts.items() if count >= 2)
        text = BagOfWords([c["text"] for c in data.captions], dimension, vocabulary)
    return Towers(which, seed, images, text, dimension)


def train(data: Flickr8k, which: str, *, seed: int, epochs: int | None = None) -> Towers:
    """Train one dual encoder.

    Args:
        data: the features.
        which: ``words``, ``sentences`` or ``new``.
        seed: of first values, batches and the old models' half of the images.
        epochs: other than the recipe's.
    """
    towers, recipe = untrained(data, which, seed=seed), RECIPES[which]
    contrast(
        data,
        towers.vision,
        towers.text,
        training_rows(data, which, seed=seed),
        epochs=epochs or recipe.epochs,
        batch=recipe.batch,
        generator=np.random.default_rng([seed, OLD.index(which) if which in OLD else len(OLD)]),
    )
    return towers


def contrast(
    data: Flickr8k,
    vision: nn.Module,
    text: nn.Module,
    images: np.ndarray,
    *,
    epochs: int,
    batch: int,
    generator: np.random.Generator,
) -> None:
    """Symmetric InfoNCE over batches of images, one random caption each; temperature learned."""
    captions_of: dict[str, list[int]] = {}
    for row, caption in enumerate(data.captions):
        captions_of.setdefault(str(caption["image"]), []).append(row)
    log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    optimizer = torch.optim.AdamW([*vision.parameters(), *text.parameters(), log_scale], lr=2e-3, weight_decay=0.05)
    batches = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=batches + 1)
    vision.train()
    text.train()
    for _ in range(epochs):
        order = generator.permutation(images)
        for start in range(0, len(order) - batch + 1, batch):
            rows = order[start : start + batch]
            chosen = [generator.choice(captions_of[str(data.images[row]["id"])]) for row in rows]
            a = nn.functional.normalize(vision(torch.from_numpy(rows)), dim=1)
            b = nn.functional.normalize(text(torch.tensor(chosen)), dim=1)
            logits = log_scale.exp().clamp(max=100) * a @ b.T
            target = torch.arange(len(rows))
            loss = (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.inference_mode()
def embed(
    data: Flickr8k, vision: nn.Module, text: nn.Module, *, model: str, revision: str, dimension: int
) -> list[Embeddings]:
    """Every image and caption through the towers: float32, unit norm."""
    vision.eval()
    text.eval()
    space = _space(model, revision, dimension)
    images = nn.functional.normalize(vision(torch.arange(len(data.images))), dim=1).numpy()
    texts = nn.functional.normalize(text(torch.arange(len(data.captions))), dim=1).numpy()
    return [
        Embeddings([image["id"] for image in data.images], images, space, "image"),
        Embeddings([caption["id"] for caption in data.captions], texts, space, "text"),
    ]


def _space(model: str, revision: str, dimension: int) -> Space:
    return Space(model=model, revision=revision, dimension=dimension, runtime="float32/torch")
