from __future__ import annotations

import os
from pathlib import Path

import pytest

from crossfade.datasets import ImageFiles, ImageFolder
from crossfade.datasets.base import Link
from crossfade.errors import ConfigError, CorruptItem, DatasetError


@pytest.fixture
def photos(write, encoded, tmp_path):
    for name in ("b.jpg", "a.PNG", "sub/c.webp", "sub/deep/d.jpeg", "a b.png", ".hidden.png", ".git/e.png", "sub.png"):
        write(f"photos/{name}", encoded())
    write("photos/notes.md", "not an image")
    return tmp_path / "photos"


def test_every_image_below_sorted_by_path_hidden_ones_left_out(photos):
    dataset = ImageFiles(photos)
    assert dataset.name == "photos"
    assert [item.id for item in dataset.images()] == [
        "a b.png", "a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.jpeg", "sub.png",
    ]  # fmt: skip
    assert all(item.load().size == (8, 6) for item in dataset.images())
    assert list(dataset.texts()) == list(dataset.links()) == []


def test_a_txt_beside_an_image_holds_its_captions_a_line_each(photos, write):
    write("photos/b.txt", "A bus\n\nA red bus \n")
    write("photos/sub/c.txt", "A cat")
    dataset = ImageFiles(photos)
    assert [(item.id, item.text) for item in dataset.texts()] == [
        ("b.jpg#0", "A bus"), ("b.jpg#2", "A red bus"), ("sub/c.webp#0", "A cat"),
    ]  # fmt: skip
    assert list(dataset.links())[1:] == [Link("b.jpg#2", "b.jpg"), Link("sub/c.webp#0", "sub/c.webp")]
    assert list(ImageFiles(photos, captions=False).texts()) == []


def test_a_caption_whose_image_is_lost_comes_last_and_is_linked_to_nothing(photos, write):
    write("photos/a-lost.txt", "Nobody")
    assert list(ImageFiles(photos).texts()) == []  # no image has captions: the .txt is something else
    write("photos/b.txt", "A bus")
    dataset = ImageFiles(photos)
    assert [item.id for item in dataset.texts()] == ["b.jpg#0", "a-lost.txt#0"]
    assert len(list(dataset.links())) == 1


def test_a_caption_in_latin_1_is_named(photos, write):
    write("photos/b.txt", b"A bus\nCaf\xe9")
    with pytest.raises(DatasetError, match=r"b\.txt must be UTF-8, and line 2"):
        list(ImageFiles(photos).texts())


def test_an_image_removed_after_listing_is_a_corrupt_item(photos):
    items = list(ImageFiles(photos).images())
    (photos / "b.jpg").unlink()
    with pytest.raises(CorruptItem, match=r"b\.jpg is missing"):
        items[2].load()


def test_links_to_folders_are_followed_but_not_in_circles(photos, tmp_path):
    (tmp_path / "other").mkdir()
    (photos / "b.jpg").rename(tmp_path / "other" / "x.jpg")
    (photos / "linked").symlink_to(tmp_path / "other")
    (photos / "sub" / "up").symlink_to(photos)
    names = [item.id for item in ImageFiles(photos).images()]
    assert "linked/x.jpg" in names
    assert not any("up/" in name for name in names)


def test_a_folder_without_images_or_no_folder_is_refused(tmp_path, write):
    write("empty/a.md", "x")
    with pytest.raises(DatasetError, match=r"must hold some \(\.bmp, .*empty holds none"):
        list(ImageFiles(tmp_path / "empty").images())
    for reader in (ImageFiles, ImageFolder):
        with pytest.raises(DatasetError, match="must be a folder"):
            reader(tmp_path / "none")


def test_a_file_name_that_is_not_utf_8_is_refused(photos, encoded):
    with open(os.fsencode(str(photos)) + b"/caf\xe9.png", "wb") as file:
        file.write(encoded())
    with pytest.raises(DatasetError, match="must be UTF-8"):
        list(ImageFiles(photos).images())


@pytest.fixture
def classes(write, encoded, tmp_path) -> Path:
    for name in ("dog/1.jpg", "dog/more/2.jpg", "cat/9.png"):
        write(f"pets/{name}", encoded())
    return tmp_path / "pets"


def test_the_label_is_the_subfolder(classes):
    dataset = ImageFolder(classes)
    assert [(item.id, item.metadata) for item in dataset.images()] == [
        ("cat/9.png", {"label": "cat"}), ("dog/1.jpg", {"label": "dog"}), ("dog/more/2.jpg", {"label": "dog"}),
    ]  # fmt: skip
    assert list(dataset.texts()) == list(dataset.links()) == []
    assert [item.id for item in ImageFiles(classes).images()] == [item.id for item in dataset.images()]


def test_a_template_gives_each_class_a_text_linked_to_its_images(classes):
    dataset = ImageFolder(classes, template="a photo of a {}.")
    assert [(item.id, item.text) for item in dataset.texts()] == [
        ("cat", "a photo of a cat."),
        ("dog", "a photo of a dog."),
    ]
    assert list(dataset.links()) == [Link("cat", "cat/9.png"), Link("dog", "dog/1.jpg"), Link("dog", "dog/more/2.jpg")]
    with pytest.raises(ConfigError, match=r"must hold \{\}"):
        ImageFolder(classes, template="a photo")


def test_an_image_outside_every_class_is_refused(classes, write, encoded):
    write("pets/stray.png", encoded())
    with pytest.raises(DatasetError, match=r"stray\.png is in none"):
        list(ImageFolder(classes).images())
