from __future__ import annotations

import json

import pytest

from crossfade.datasets import CocoCaptions, KarpathyCaptions
from crossfade.datasets.base import Link, TextItem
from crossfade.errors import CorruptItem, DatasetError


def karpathy(*images: tuple[str, str, list[str]], folder: str = "") -> str:
    """Karpathy's JSON with running ids: (file name, split, captions)."""
    count = iter(range(1000))
    entries = []
    for number, (filename, split, captions) in enumerate(images):
        sentences = [
            {"tokens": text.lower().split(), "raw": text, "imgid": number, "sentid": next(count)} for text in captions
        ]
        entry = {"sentids": [s["sentid"] for s in sentences], "imgid": number, "sentences": sentences}
        entries.append(entry | {"split": split, "filename": filename} | ({"filepath": folder} if folder else {}))
    return json.dumps({"images": entries, "dataset": "flickr8k"})


@pytest.fixture
def flickr(write, encoded):
    write("images/b.jpg", encoded(kind="JPEG"))
    text = karpathy(
        ("a.jpg", "train", ["A dog .", "Two dogs ."]),
        ("b.jpg", "test", ["A cat .", " "]),
        ("c.jpg", "restval", ["Rain ."]),
    )
    return write("dataset_flickr8k.json", text)


def test_karpathys_test_split_is_the_default(flickr):
    dataset = KarpathyCaptions(flickr, image_root=flickr.parent / "images")
    assert dataset.name == "dataset_flickr8k"
    assert [item.id for item in dataset.images()] == ["b.jpg"]
    assert list(dataset.texts()) == [TextItem("2", "A cat .", {"split": "test"})]  # the blank caption is none
    assert list(dataset.links()) == [Link("2", "b.jpg")]
    assert next(dataset.images()).load().size == (8, 6)


def test_several_splits_keep_the_order_of_the_file(flickr):
    dataset = KarpathyCaptions(flickr, splits=("restval", "train"))
    assert [(item.id, item.metadata["split"]) for item in dataset.images()] == [
        ("a.jpg", "train"),
        ("c.jpg", "restval"),
    ]
    assert [item.id for item in dataset.texts()] == ["0", "1", "4"]
    assert len(list(KarpathyCaptions(flickr, splits=()).images())) == 3


def test_cocos_subfolder_is_used_where_it_exists(write, encoded, tmp_path):
    text = karpathy(("COCO_val2014_000000000042.jpg", "test", ["Shoes ."]), folder="val2014")
    path = write("dataset_coco.json", text)
    write("coco/val2014/COCO_val2014_000000000042.jpg", encoded(kind="JPEG"))
    for root in (tmp_path / "coco", tmp_path / "coco" / "val2014"):
        assert next(KarpathyCaptions(path, image_root=root).images()).load().size == (8, 6)


def test_a_missing_image_is_found_when_it_is_loaded(flickr):
    items = list(KarpathyCaptions(flickr, splits=("train",)).images())
    with pytest.raises(CorruptItem, match=r"a\.jpg is missing"):
        items[0].load()


def test_an_unknown_split_names_those_there_are(flickr):
    with pytest.raises(DatasetError, match=r"has the splits restval, test, train; found dev"):
        list(KarpathyCaptions(flickr, splits=("dev",)).images())


@pytest.mark.parametrize("text", ['{"images": []}', "[]", '{"images": [{"id": 1}], "annotations": []}', "3"])
def test_another_json_is_not_karpathys(write, text):
    with pytest.raises(DatasetError, match="Karpathy"):
        list(KarpathyCaptions(write("d.json", text)).images())


def test_an_image_without_its_fields_is_quoted(write):
    path = write(
        "d.json", json.dumps({"images": [{"split": "test", "sentences": [{"text": "x"}], "filename": "q.jpg"}]})
    )
    with pytest.raises(DatasetError, match=r"'sentences' with 'raw'.*q\.jpg"):
        list(KarpathyCaptions(path).texts())


def test_a_truncated_json_is_named(flickr):
    flickr.write_bytes(flickr.read_bytes()[:-40])
    with pytest.raises(DatasetError, match=r"dataset_flickr8k\.json must be JSON.*truncated"):
        list(KarpathyCaptions(flickr).images())


def test_a_json_in_latin_1_is_named_with_line_and_offset_and_the_way_out(write):
    path = write("d.json", '{"images":\n[{"sentences": [{"raw": "Café"}]}]}'.encode("latin-1"))
    offset = path.read_bytes().index(b"\xe9")
    with pytest.raises(DatasetError, match=rf"d\.json must be UTF-8, and line 2 is not .*offset {offset}.*iconv"):
        list(KarpathyCaptions(path).images())


def test_a_missing_file_is_refused_at_once(tmp_path):
    for reader in (KarpathyCaptions, CocoCaptions):
        with pytest.raises(DatasetError, match="nothing stands at"):
            reader(tmp_path / "none.json")


COCO = {
    "images": [{"id": 7, "file_name": "x.jpg"}, {"id": 3, "file_name": "y.jpg"}, {"id": 9, "file_name": "z.jpg"}],
    "annotations": [
        {"id": 50, "image_id": 3, "caption": "A bus."},
        {"id": 51, "image_id": 7, "caption": "A tram."},
        {"id": 52, "image_id": 3, "caption": "A red bus."},
        {"id": 53, "image_id": 8, "caption": "Nobody's."},
        {"id": 54, "image_id": 7, "caption": "  "},
    ],
}


def test_coco_joins_captions_by_image_and_keeps_the_order_of_the_images(write):
    dataset = CocoCaptions(write("captions_val2017.json", json.dumps(COCO)))
    assert [item.id for item in dataset.images()] == ["x.jpg", "y.jpg", "z.jpg"]
    assert [(item.id, item.text) for item in dataset.texts()] == [
        ("51", "A tram."), ("50", "A bus."), ("52", "A red bus."), ("53", "Nobody's."),
    ]  # fmt: skip
    assert list(dataset.links()) == [Link("51", "x.jpg"), Link("50", "y.jpg"), Link("52", "y.jpg")]


def test_the_domain_of_nocaps_is_metadata_of_image_and_captions(write):
    images = [{**COCO["images"][0], "domain": "in-domain"}, {**COCO["images"][1], "domain": "out-domain"}]
    dataset = CocoCaptions(write("nocaps.json", json.dumps({**COCO, "images": images})))
    assert [item.metadata for item in dataset.images()] == [{"domain": "in-domain"}, {"domain": "out-domain"}]
    assert [item.metadata.get("domain") for item in dataset.texts()] == ["in-domain", "out-domain", "out-domain", None]


def test_the_domain_may_come_from_a_second_file(write):
    info = write("info.json", json.dumps({"images": [{"id": 3, "domain": "near-domain"}]}))
    dataset = CocoCaptions(write("nocaps.json", json.dumps(COCO)), info=info)
    assert [item.metadata["domain"] for item in dataset.images()] == ["", "near-domain", ""]
    with pytest.raises(DatasetError, match="'id' and 'domain'"):
        list(CocoCaptions(dataset.path, info=write("bad.json", '{"images": [{"id": 1}]}')).images())


def test_cocos_instances_are_not_its_captions(write):
    path = write("i.json", json.dumps({**COCO, "annotations": [{"id": 1, "image_id": 3, "bbox": [0, 0, 1, 1]}]}))
    with pytest.raises(DatasetError, match="instances"):
        list(CocoCaptions(path).texts())


@pytest.mark.parametrize("value", [[], {"images": []}, {"images": 1, "annotations": []}])
def test_another_json_is_not_cocos(write, value):
    with pytest.raises(DatasetError, match="'images' and 'annotations'"):
        list(CocoCaptions(write("c.json", json.dumps(value))).images())


@pytest.mark.parametrize("image", [{"id": 1}, {"file_name": "a.jpg"}, "a.jpg"])
def test_an_image_without_its_fields_is_refused(write, image):
    dataset = CocoCaptions(write("c.json", json.dumps({"images": [image], "annotations": []})))
    with pytest.raises(DatasetError, match="'id' and 'file_name'"):
        list(dataset.images())
    with pytest.raises(DatasetError, match="'id' and 'file_name'"):
        list(dataset.texts())
