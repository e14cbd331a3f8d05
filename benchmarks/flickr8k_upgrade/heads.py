"""Two real dual encoders on frozen Flickr8k features: contrastive heads, the old weaker in every way.

*Old*: a linear head on MobileNet V1 0.25 and a bag-of-words text tower, trained on half of the training images, 128-d.
*New*: a linear head on MobileNet V2 and an MLP on MiniLM, trained on all of them, 256-d.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from crossfade import Embeddings, Space


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
        split_of = {image["id"]: image["split"] for image in self.images}
        return np.flatnonzero([split_of[caption["image"]] == split for caption in self.captions])

    def links(self) -> list[tuple[str, str]]:
        """(caption id, image id) for every caption."""
        return [(str(caption["id"]), str(caption["image"])) for caption in self.captions]


class BagOfWords(nn.Module):
    """The mean of learned word vectors; words seen fewer than twice in the training captions are dropped."""

    def __init__(self, texts: list[str], dimension: int, vocabulary: list[str]) -> None:
        super().__init__()
        index = {word: row for row, word in enumerate(vocabulary)}
        bags = [[index[word] for word in words(text) if word in index] or [len(vocabulary)] for text in texts]
        self.flat = torch.tensor([row for bag in bags for row in bag])
        self.starts = torch.tensor(np.cumsum([0, *(len(bag) for bag in bags)]))
        self.table = nn.EmbeddingBag(len(vocabulary) + 1, dimension, mode="mean")

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, dimension] for the captions of these rows."""
        pieces = [self.flat[self.starts[row] : self.starts[row + 1]] for row in rows.tolist()]
        offsets = torch.tensor(np.cumsum([0, *(len(piece) for piece in pieces[:-1])]))
        return self.table(torch.cat(pieces), offsets)


class Lookup(nn.Module):
    """A head on frozen features, addressed by row."""

    def __init__(self, features: torch.Tensor, head: nn.Module) -> None:
        super().__init__()
        self.features = (features - features.mean(0)) / features.std(0).clamp_min(1e-3)
        self.head = head

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The head's output for these rows."""
        return self.head(self.features[rows])


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return re.findall(r"[a-z]+", text.lower())


def train(data: Flickr8k, *, which: str, seed: int) -> list[Embeddings]:
    """Train one dual encoder and embed every image and caption.

    Args:
        data: the features.
        which: ``old`` or ``new``.
        seed: of initialisation, batches and the old model's half of the images.

    Returns:
        The image and the text embeddings, float32, unit norm, over all splits.
    """
    torch.manual_seed(seed + (1000 if which == "new" else 0))
    generator = np.random.default_rng(seed)
    images = data.image_rows("train")
    if which == "old":
        images = np.sort(generator.choice(images, len(images) // 2, replace=False))
        dimension, epochs, batch = 128, 40, 128
        vision = Lookup(data.mobilenet_v1, nn.Linear(data.mobilenet_v1.shape[1], dimension))
        row_of = {str(data.images[row]["id"]) for row in images}
        counts = Counter(w for c in data.captions if str(c["image"]) in row_of for w in set(words(c["text"])))
        vocabulary = sorted(word for word, count in counts.items() if count >= 2)
        text: nn.Module = BagOfWords([c["text"] for c in data.captions], dimension, vocabulary)
    else:
        dimension, epochs, batch = 256, 30, 512
        vision = Lookup(
            data.mobilenet_v2, nn.Sequential(nn.Dropout(0.3), nn.Linear(data.mobilenet_v2.shape[1], dimension))
        )
        width = data.minilm.shape[1]
        mlp = nn.Sequential(nn.Linear(width, 768), nn.GELU(), nn.Dropout(0.2), nn.Linear(768, dimension))
        text = Lookup(data.minilm, mlp)
    _contrast(data, vision, text, images, epochs=epochs, batch=batch, generator=generator)
    return _embed(data, vision, text, model=f"flickr8k-{which}", revision=f"seed{seed}", dimension=dimension)


def _contrast(
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
def _embed(
    data: Flickr8k, vision: nn.Module, text: nn.Module, *, model: str, revision: str, dimension: int
) -> list[Embeddings]:
    vision.eval()
    text.eval()
    space = Space(model=model, revision=revision, dimension=dimension, runtime="float32/torch")
    images = nn.functional.normalize(vision(torch.arange(len(data.images))), dim=1).numpy()
    texts = nn.functional.normalize(text(torch.arange(len(data.captions))), dim=1).numpy()
    return [
        Embeddings([image["id"] for image in data.images], images, space, "image"),
        Embeddings([caption["id"] for caption in data.captions], texts, space, "text"),
    ]
