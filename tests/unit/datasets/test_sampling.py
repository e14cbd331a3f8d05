"""A random part of a data set: by item, by id alone, and nested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crossfade.datasets import Dataset, ImageItem, Link, TextItem
from crossfade.datasets.sampling import Sampled
from crossfade.errors import DatasetError


class Pictures(Dataset):
    """``count`` pictures with two captions each; or the captions alone."""

    name = "pictures"

    def __init__(self, count: int, *, pictures: bool = True, reverse: bool = False) -> None:
        self.numbers = list(range(count))[:: -1 if reverse else 1]
        self.pictures = pictures

    def images(self) -> Iterator[ImageItem]:
        return (ImageItem(f"i{n}", _never) for n in self.numbers if self.pictures)

    def texts(self) -> Iterator[TextItem]:
        return (TextItem(f"t{n}-{c}", f"caption {c} of {n}") for n in self.numbers for c in range(2))

    def links(self) -> Iterator[Link]:
        return (Link(f"t{n}-{c}", f"i{n}") for n in self.numbers for c in range(2) if self.pictures)


def _never() -> None:
    raise AssertionError("sampling must not open an image")


def test_chosen_images_bring_all_of_their_texts_and_links() -> None:
    sample = Sampled(Pictures(100), 10)
    images = {item.id for item in sample.images()}
    assert len(images) == 10
    assert {item.id for item in sample.texts()} == {f"t{i[1:]}-{c}" for i in images for c in range(2)}
    assert {(link.text, link.image) for link in sample.links()} == {
        (f"t{i[1:]}-{c}", i) for i in images for c in range(2)
    }


def test_the_choice_depends_on_ids_and_seed_alone() -> None:
    chosen = {item.id for item in Sampled(Pictures(200), 20).images()}
    assert chosen == {item.id for item in Sampled(Pictures(200, reverse=True), 20).images()}
    assert chosen != {item.id for item in Sampled(Pictures(200), 20, seed=1).images()}


def test_a_smaller_sample_is_part_of_a_larger_one_and_the_order_is_kept() -> None:
    small, large = ([item.id for item in Sampled(Pictures(200), n).images()] for n in (20, 60))
    assert set(small) < set(large)
    assert large == sorted(large, key=lambda i: int(i[1:]))


def test_more_than_there_is_is_all_of_it() -> None:
    assert len(list(Sampled(Pictures(5), 50).images())) == 5


def test_texts_alone_are_sampled_as_texts() -> None:
    sample = Sampled(Pictures(100, pictures=False), 30)
    assert len(list(sample.texts())) == 30
    assert list(sample.images()) == list(sample.links()) == []


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(DatasetError, match="at least one"):
        Sampled(Pictures(5), 0)
