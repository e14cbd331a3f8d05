from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossfade.datasets import CocoCaptions, ImageFiles, ImageTextTable, TextCorpus, WebDataset, check
from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem
from crossfade.datasets.summary import Finding


@dataclass
class Listed(Dataset):
    """A data set given as lists."""

    image_ids: list[str] = field(default_factory=list)
    text_ids: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    name: str = "listed"

    def images(self) -> Iterator[ImageItem]:
        return (ImageItem(one, lambda: Image.new("RGB", (1, 1))) for one in self.image_ids)

    def texts(self) -> Iterator[TextItem]:
        return (TextItem(one, "x") for one in self.text_ids)

    def links(self) -> Iterator[Link]:
        return (Link(*pair) for pair in self.pairs)


ids = st.lists(st.sampled_from("abcdefgh"), max_size=10)


@given(ids, ids, st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=10))
def test_the_findings_are_those_of_the_obvious_definition(images, texts, pairs):
    summary = check(Listed(images, texts, pairs))
    assert (summary.images, summary.texts, summary.links) == (len(images), len(texts), len(pairs))
    both = bool(images) and bool(texts)

    def finding(wrong):
        return Finding(len(wrong), tuple(wrong[:3]))

    assert summary.duplicate_images == finding([one for n, one in enumerate(images) if one in images[:n]])
    assert summary.duplicate_texts == finding([one for n, one in enumerate(texts) if one in texts[:n]])
    lonely = [one for one in texts if both and one not in {text for text, _ in pairs}]
    assert summary.texts_without_image == finding(lonely)
    assert summary.images_without_text == finding(
        [one for one in images if both and one not in {image for _, image in pairs}]
    )
    broken = [f"{text} → {image}" for text, image in pairs if text not in texts or image not in images]
    assert summary.broken_links == finding(broken)


def test_a_sound_data_set_has_no_problems(write, encoded):
    write("p/a.png", encoded())
    write("p/a.txt", "a dot")
    summary = check(ImageFiles(write("p/b.md", "").parent), decode=True)
    assert summary.problems == ()
    assert str(summary) == "p: 1 images, 1 texts, 1 links"


def test_captions_without_images_and_images_without_captions(write):
    path = write(
        "c.json",
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
                "annotations": [{"id": 10, "image_id": 1, "caption": "x"}, {"id": 11, "image_id": 5, "caption": "y"}],
            }
        ),
    )
    summary = check(CocoCaptions(path), files=False)
    assert summary.problems == ("1 captions have no image, such as '11'.", "1 images have no caption, such as 'b.jpg'.")
    assert check(CocoCaptions(path)).missing_files == Finding(2, ("a.jpg", "b.jpg"))


def test_missing_files_are_looked_for_and_corrupt_ones_only_when_asked(write, encoded):
    write("a.png", encoded())
    write("b.png", "junk")
    rows = [{"id": name, "image": f"{name}.png", "texts": [name]} for name in "abcdefg"]
    dataset = ImageTextTable(write("t.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    summary = check(dataset)
    assert summary.missing_files == Finding(5, ("c", "d", "e"))
    assert not summary.corrupt_images
    assert check(dataset, decode=True).corrupt_images == Finding(1, ("b",))
    assert check(dataset, files=False, decode=True).corrupt_images.count == 6


def test_what_cannot_be_read_is_told_and_what_came_before_is_counted(write):
    summary = check(TextCorpus(write("c.txt", b"a\nb\nCaf\xe9\nd\n")))
    assert summary.texts == 2
    assert len(summary.problems) == 1
    assert "line 3" in summary.problems[0]


def test_a_truncated_shard_is_told_once(pack, encoded, tmp_path):
    path = pack(tmp_path / "x.tar", {"a.png": encoded(), "a.txt": b"one", "b.png": encoded(), "b.txt": b"two"})
    path.write_bytes(path.read_bytes()[:2600])
    summary = check(WebDataset(path))
    assert (summary.images, summary.texts, summary.links) == (1, 1, 1)
    assert len(summary.errors) == 1
    assert "truncated" in str(summary)


def test_it_becomes_json(write):
    summary = check(TextCorpus(write("c.txt", "a\n")))
    value = json.loads(json.dumps(summary.to_dict()))
    assert value["texts"] == 1
    assert value["problems"] == []
    assert value["duplicate_texts"] == {"count": 0, "examples": []}


def test_more_items_than_one_chunk(monkeypatch):
    monkeypatch.setattr("crossfade.datasets.summary._CHUNK", 4)
    summary = check(Listed([str(n) for n in range(11)] + ["3"], ["t"], [("t", "10")]))
    assert summary.images == 12
    assert summary.duplicate_images == Finding(1, ("3",))
    assert summary.images_without_text.count == 11


@pytest.mark.parametrize("count", [0, 1])
def test_a_finding_is_true_when_it_counts_something(count):
    assert bool(Finding(count)) is bool(count)
