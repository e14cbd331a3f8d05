from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from crossfade.datasets import ClipBenchmark, WebDataset
from crossfade.datasets.base import Link
from crossfade.datasets.tars import expand
from crossfade.errors import ConfigError, CorruptItem, DatasetError


def read(dataset):
    """(image ids, texts by id, links)."""
    images = [item.id for item in dataset.images()]
    return images, {item.id: item.text for item in dataset.texts()}, [(one.text, one.image) for one in dataset.links()]


@pytest.fixture
def shard(encoded, pack, tmp_path):
    """As img2dataset writes it: three samples of image, caption and metadata."""

    def make(name="00000.tar", first=0):
        members = {}
        for number in range(first, first + 3):
            key = f"{number:09d}"
            about = {
                "key": key,
                "caption": f"photo {number}",
                "url": "u",
                "width": 8,
                "exif": "{}",
                "error_message": None,
            }
            members[f"{key}.jpg"] = encoded((40 * number % 256, 0, 0), "PNG", size=(16, 16))
            members[f"{key}.json"] = json.dumps(about).encode()
            members[f"{key}.txt"] = f"photo {number}\n".encode()
        return pack(tmp_path / "shards" / name, members)

    return make


def test_a_shard_of_img2dataset(shard):
    dataset = WebDataset(shard())
    images, texts, links = read(dataset)
    assert dataset.name == "shards"
    assert images == ["000000000", "000000001", "000000002"]
    assert texts == {f"{key}#0": f"photo {number}" for number, key in enumerate(images)}
    assert links == [(f"{key}#0", key) for key in images]
    items = list(dataset.images())
    assert items[1].metadata == {"url": "u", "width": 8}
    assert [item.load().getpixel((0, 0)) for item in reversed(items)] == [(80, 0, 0), (40, 0, 0), (0, 0, 0)]


def test_several_shards_by_folder_glob_and_range(shard, tmp_path):
    for number in range(3):
        shard(f"{number:05d}.tar", first=3 * number)
    whole = read(WebDataset(tmp_path / "shards"))
    assert len(whole[0]) == 9
    assert read(WebDataset(tmp_path / "shards" / "*.tar")) == whole
    assert read(WebDataset(tmp_path / "shards" / "{00000..00002}.tar")) == whole
    assert read(WebDataset(tmp_path / "shards" / "{00001..00002}.tar"))[0] == whole[0][3:]


def test_a_relative_glob_is_found(shard, tmp_path, monkeypatch):
    shard()
    monkeypatch.chdir(tmp_path)
    assert len(expand(type(tmp_path)("shards/0*.tar"))) == 1


def test_two_ranges_multiply_and_keep_their_width(tmp_path):
    for name in ("a0-08", "a0-09", "a0-10", "a1-08", "a1-09", "a1-10"):
        (tmp_path / f"{name}.tar").touch()
    assert [path.stem for path in expand(tmp_path / "a{0..1}-{08..10}.tar")] == [
        "a0-08", "a0-09", "a0-10", "a1-08", "a1-09", "a1-10",
    ]  # fmt: skip


def test_a_missing_shard_of_a_range_is_named_at_once(shard, tmp_path):
    shard()
    with pytest.raises(DatasetError, match=r"2 of 3 are missing, the first is .*00001\.tar"):
        WebDataset(tmp_path / "shards" / "{00000..00002}.tar")
    for location in ("none.tar", "none-*.tar"):
        with pytest.raises(DatasetError, match="names none"):
            WebDataset(tmp_path / location)


def test_samples_are_grouped_by_all_before_the_first_dot(pack, encoded, tmp_path):
    members = {
        "./dir/a.jpg": encoded(), "./dir/a.seg.png": encoded((1, 1, 1)), "./dir/a.txt": b"in dir",
        "a.PNG": encoded(), "a.txt": b"at the top", "._a.txt": b"resource fork", "noextension": b"",
        "t.txt": b"no image",
        "i.webp": encoded(kind="WEBP"),
    }  # fmt: skip
    images, texts, links = read(WebDataset(pack(tmp_path / "x.tar", members)))
    assert images == ["./dir/a", "a", "i"]
    assert texts == {"./dir/a#0": "in dir", "a#0": "at the top", "t#0": "no image"}
    assert links == [("./dir/a#0", "./dir/a"), ("a#0", "a")]


def test_captions_come_from_the_json_where_there_is_no_txt(pack, encoded, tmp_path):
    members = {
        "a.jpg": encoded(), "a.json": b'{"id": 17, "caption": "from json"}',
        "b.jpg": encoded(), "b.json": b'{"captions": ["one", "", "two"]}',
        "c.jpg": encoded(), "c.txt": b" \n", "d.jpg": encoded(),
    }  # fmt: skip
    images, texts, _ = read(WebDataset(pack(tmp_path / "x.tar", members)))
    assert images == ["17", "b", "c", "d"]
    assert texts == {"17#0": "from json", "b#0": "one", "b#2": "two"}


def test_a_txt_is_one_caption_unless_lines_are_asked_for(pack, encoded, tmp_path):
    path = pack(tmp_path / "x.tar", {"a.jpg": encoded(), "a.txt": b"one\ntwo\n"})
    assert read(WebDataset(path))[1] == {"a#0": "one\ntwo"}
    assert read(WebDataset(path, caption_lines=True))[1] == {"a#0": "one", "a#1": "two"}


def test_shards_that_each_count_from_0_can_be_told_apart(shard, tmp_path):
    shard("a.tar")
    shard("b.tar")
    images, texts, links = read(WebDataset(tmp_path / "shards", shard_prefix=True))
    assert len(set(images)) == len(set(texts)) == 6
    assert images[0] == "a/000000000"
    assert ("b/000000002#0", "b/000000002") in links


def test_a_corrupt_image_inside_stops_nothing_but_itself(pack, encoded, tmp_path):
    good = encoded()
    members = {"a.jpg": good, "b.jpg": good[:30], "c.jpg": b"", "d.jpg": good}
    items = list(WebDataset(pack(tmp_path / "x.tar", members)).images())
    for number, item in enumerate(items):
        if number in (0, 3):
            assert item.load().size == (8, 6)
        else:
            with pytest.raises(CorruptItem, match=f"The image {item.id} "):
                item.load()


def cuts(path):
    """Where each member's header and data begin, and where the end mark does."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        return [(member.offset, member.offset_data, member.size) for member in members], archive.offset


def drain(dataset, *, into):
    for item in dataset.texts():
        into.append(item.text)


def test_a_truncated_shard_yields_what_is_whole_then_names_itself(shard):
    path = shard()
    data = path.read_bytes()
    places, end = cuts(path)
    for cut in sorted(
        {*range(1, end + 512, 173), *(start for start, _, _ in places), *(start + 3 for _, start, _ in places)}
    ):
        path.write_bytes(data[:cut])
        whole = [
            number
            for number in range(3)
            if all(start + size <= cut for _, start, size in places[3 * number : 3 * number + 3])
        ]
        found = []
        with pytest.raises(DatasetError, match=r"00000\.tar"):
            drain(WebDataset(path), into=found)
        assert found[: len(whole)] == [f"photo {number}" for number in whole], cut


def test_a_truncated_shard_can_be_skipped_with_a_warning(shard, tmp_path):
    path = shard("00000.tar")
    shard("00001.tar", first=3)
    path.write_bytes(path.read_bytes()[:4000])
    dataset = WebDataset(tmp_path / "shards", truncated="skip")
    with pytest.warns(UserWarning, match=r"00000\.tar is truncated or damaged .*skipped"):
        images = [item.id for item in dataset.images()]
    assert images == ["000000000", "000000003", "000000004", "000000005"]
    with pytest.raises(ConfigError, match="raise, skip"):
        WebDataset(path, truncated="ignore")


def test_a_header_destroyed_in_the_middle_is_no_silent_end(shard):
    path = shard()
    data = bytearray(path.read_bytes())
    start = cuts(path)[0][4][0]
    data[start : start + 512] = b"\xff" * 512
    path.write_bytes(bytes(data))
    images = WebDataset(path).images()
    assert next(images).id == "000000000"
    with pytest.raises(DatasetError, match="truncated or damaged"):
        list(images)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff" * 2000, gzip.compress(b"x" * 5000, mtime=0)])
def test_what_is_no_tar_is_refused(write, data):
    with pytest.raises(DatasetError, match=r"x\.tar"):
        list(WebDataset(write("x.tar", data)).images())


def test_an_empty_tar_is_an_empty_shard(pack, tmp_path):
    assert read(WebDataset(pack(tmp_path / "x.tar", {}))) == ([], {}, [])


def test_long_names_and_links_inside_are_read(tmp_path, encoded):
    path = tmp_path / "x.tar"
    name = "d" * 120 + "/" + "k" * 90
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        folder = tarfile.TarInfo("d.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        info = tarfile.TarInfo(f"{name}.jpg")
        info.size = len(encoded())
        archive.addfile(info, io.BytesIO(encoded()))
    items = list(WebDataset(path).images())
    assert [item.id for item in items] == [name]
    assert items[0].load().size == (8, 6)


@pytest.mark.parametrize(
    ("member", "data", "message"),
    [
        ("a.txt", b"Caf\xe9", r"x\.tar, member a\.txt must be UTF-8"),
        ("a.json", b"{", r"x\.tar, member a\.json must hold JSON"),
        ("a.json", b"[1]", r"member a\.json, must be a JSON object"),
    ],
)
def test_a_damaged_text_is_named_with_its_shard(pack, encoded, tmp_path, member, data, message):
    with pytest.raises(DatasetError, match=message):
        list(WebDataset(pack(tmp_path / "x.tar", {"a.jpg": encoded(), member: data})).texts())


def test_a_name_that_comes_twice_is_refused(tmp_path, encoded):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO(b""))
    with pytest.raises(DatasetError, match="comes twice"):
        list(WebDataset(path).images())


@pytest.fixture
def task(pack, encoded, tmp_path):
    """A retrieval task of CLIP_benchmark with two shards."""
    root = tmp_path / "task"
    pack(
        root / "test" / "0.tar",
        {"s0.jpg": encoded(), "s0.txt": b"a dog\na hound", "s1.jpg": encoded(), "s1.txt": b"a cat\n"},
    )
    pack(root / "test" / "1.tar", {"s2.webp": encoded(kind="WEBP"), "s2.txt": b"a cow"})
    (root / "test" / "nshards.txt").write_text("2\n")
    return root


def test_a_retrieval_task_of_clip_benchmark(task):
    dataset = ClipBenchmark(task)
    images, texts, links = read(dataset)
    assert (dataset.name, images) == ("task", ["s0", "s1", "s2"])
    assert texts == {"s0#0": "a dog", "s0#1": "a hound", "s1#0": "a cat", "s2#0": "a cow"}
    assert links[1] == ("s0#1", "s0")
    assert read(ClipBenchmark(task / "test")) == (images, texts, links)
    assert all(item.load().size == (8, 6) for item in dataset.images())


def test_a_classification_task_of_clip_benchmark(pack, encoded, tmp_path):
    root = tmp_path / "pets"
    pack(root / "train" / "0.tar", {"a.jpg": encoded(), "a.cls": b"1", "b.jpg": encoded(), "b.cls": b"0\n"})
    (root / "train" / "nshards.txt").write_text("1")
    (root / "classnames.txt").write_text("cat\ndog\n")
    dataset = ClipBenchmark(root, split="train", template="a {}")
    assert [item.metadata for item in dataset.images()] == [
        {"label": 1, "class_name": "dog"}, {"label": 0, "class_name": "cat"},
    ]  # fmt: skip
    assert [(item.id, item.text) for item in dataset.texts()] == [("0", "a cat"), ("1", "a dog")]
    assert list(dataset.links()) == [Link("1", "a"), Link("0", "b")]
    assert [item.metadata for item in ClipBenchmark(root / "train").images()] == [i.metadata for i in dataset.images()]
    (root / "classnames.txt").write_text("cat\n")
    with pytest.raises(DatasetError, match=r"a\.cls, must name one of 1 classes.*found 1"):
        list(ClipBenchmark(root, split="train").images())
    (root / "classnames.txt").unlink()
    assert [item.metadata for item in ClipBenchmark(root, split="train").images()] == [{"label": 1}, {"label": 0}]


def test_damage_to_the_layout_is_named(task, pack, encoded):
    with pytest.raises(DatasetError, match=r"must have train/nshards\.txt.*Its splits are test"):
        ClipBenchmark(task, split="train")
    for content, message in (
        ("3", r"1 are missing, the first is .*2\.tar"),
        ("two", "number of shards"),
        ("0", "names 0"),
    ):
        (task / "test" / "nshards.txt").write_text(content)
        with pytest.raises(DatasetError, match=message):
            ClipBenchmark(task)
    (task / "test" / "nshards.txt").write_text("1")
    pack(task / "test" / "0.tar", {"a.jpg": encoded(), "a.cls": b"dog"})
    with pytest.raises(DatasetError, match=r"a\.cls, must hold the number of a class"):
        list(ClipBenchmark(task).images())
