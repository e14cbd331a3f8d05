"""Inputs as a few JSON values that change when they do, so that a run goes on with the same and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from crossfade.datasets.base import Dataset
from crossfade.errors import ConfigError

__all__ = ["described_pairs", "described_texts", "digest", "digest_of"]

DIGITS = 12


def described_texts(corpus: Dataset) -> dict[str, Any]:
    """The corpus's name, how many texts it has, and a digest of their ids and words.

    Raises:
        ConfigError: there is no text.
        DatasetError: the corpus cannot be read.
    """
    found, count = hashlib.sha256(), 0
    for item in corpus.texts():
        found.update(f"{item.id}\0{item.text}\0".encode(errors="surrogatepass"))
        count += 1
    if count == 0:
        raise ConfigError(f"A corpus must hold texts; {corpus.name} holds none but blank ones. Name another.")
    return {"name": corpus.name, "count": count, "digest": found.hexdigest()[:DIGITS]}


def described_pairs(dataset: Dataset) -> dict[str, Any]:
    """The data set's name, its sizes, and a digest of its ids, texts and links; no image is opened."""
    found = hashlib.sha256()
    images = texts = links = 0
    for image in dataset.images():
        found.update(f"{image.id}\0".encode(errors="surrogatepass"))
        images += 1
    for text in dataset.texts():
        found.update(f"{text.id}\0{text.text}\0".encode(errors="surrogatepass"))
        texts += 1
    for link in dataset.links():
        found.update(f"{link.text}\0{link.image}\0".encode(errors="surrogatepass"))
        links += 1
    counts = {"images": images, "texts": texts, "links": links}
    return {"name": dataset.name, **counts, "digest": found.hexdigest()[:DIGITS]}


def digest(data: bytes) -> str:
    """The first digits of the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def digest_of(path: Path) -> str:
    """The same of a file's."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
