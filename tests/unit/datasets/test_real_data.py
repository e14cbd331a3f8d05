"""The readers on real data, where it stands beside the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossfade.datasets import ImageTextTable, LabelledParquet, TextCorpus, check, open_dataset

DATA = Path(__file__).parents[4] / "shared" / "data"


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in ../shared/data")
    return path


def test_emoji_open_directly():
    dataset = open_dataset(real("emoji/emoji.jsonl"))
    assert isinstance(dataset, ImageTextTable)
    summary = check(dataset)
    assert (summary.images, summary.problems) == (1644, ())
    first = next(dataset.images())
    assert first.id == "emoji_u1f600"
    assert next(dataset.texts()).text == "grinning face"
    pixels = np.asarray(first.load())
    assert pixels.shape == (128, 128, 3)
    assert pixels[0, 0].tolist() == [255, 255, 255]  # the transparent corner is white


def test_the_folder_of_emoji_holds_the_same_images():
    folder = open_dataset(real("emoji/images"))
    assert {item.id.removesuffix(".png") for item in folder.images()} == {
        item.id for item in open_dataset(real("emoji/emoji.jsonl")).images()
    }


def test_tiny_imagenet_is_labelled():
    dataset = open_dataset(real("tiny-imagenet-32/val.parquet"))
    assert isinstance(dataset, LabelledParquet)
    items = list(dataset.images())
    assert len(items) == 5000
    labels = np.asarray([item.metadata["label"] for item in items])
    assert np.bincount(labels).tolist() == [50] * 100
    assert {item.load().size for item in items[::500]} == {(32, 32)}


def test_coco_captions_are_a_corpus():
    dataset = open_dataset(real("coco-captions/captions.txt"))
    assert isinstance(dataset, TextCorpus)
    assert check(dataset).texts == 25_014


def test_flickrs_captions_join_their_images():
    summary = check(open_dataset(real("flickr8k-features/captions.jsonl")), files=False)
    assert (summary.images, summary.texts, summary.links) == (8091, 40_455, 40_455)
    assert summary.problems == ()
