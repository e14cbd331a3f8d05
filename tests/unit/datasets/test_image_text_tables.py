from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.datasets import ImageTextTable
from crossfade.datasets.base import Link
from crossfade.errors import CorruptItem, DatasetError


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def colours(dataset):
    return {item.id: np.asarray(item.load())[0, 0].tolist() for item in dataset.images()}


def texts(dataset):
    return [(item.id, item.text) for item in dataset.texts()]


def links(dataset):
    return [(link.text, link.image) for link in dataset.links()]


def test_a_list_of_texts_a_row_names_the_image_by_the_id(write, encoded):
    write("pictures/a.png", encoded((1, 2, 3)))
    rows = (
        {"id": "u1", "image": "pictures/a.png", "texts": ["grin", " ", "smile"], "group": "faces"},
        {"id": "u2", "image": "pictures/b.png", "texts": []},
    )
    dataset = ImageTextTable(write("emoji.jsonl", jsonl(*rows)))
    images = list(dataset.images())
    assert [item.id for item in images] == ["u1", "u2"]
    assert images[0].metadata == {"group": "faces"}
    assert images[0].load().getpixel((0, 0)) == (1, 2, 3)
    assert texts(dataset) == [("u1#0", "grin"), ("u1#2", "smile")]
    assert links(dataset) == [("u1#0", "u1"), ("u1#2", "u1")]
    assert next(dataset.texts()).metadata == {"group": "faces"}
    with pytest.raises(CorruptItem, match="u2 is missing"):
        images[1].load()


def test_one_text_a_row_names_the_text_and_joins_the_image_by_its_path(write, encoded):
    rows = [{"id": f"a.jpg#{n}", "image": "a.jpg", "text": f"dog {n}"} for n in range(2)]
    dataset = ImageTextTable(write("captions.jsonl", jsonl(*rows, {"id": "b", "image": "b.jpg", "text": "cat"})))
    assert [item.id for item in dataset.images()] == ["a.jpg", "b.jpg"]
    assert texts(dataset) == [("a.jpg#0", "dog 0"), ("a.jpg#1", "dog 1"), ("b", "cat")]
    assert links(dataset) == [("a.jpg#0", "a.jpg"), ("a.jpg#1", "a.jpg"), ("b", "b.jpg")]


def test_one_text_a_row_without_ids_counts_the_texts_of_each_image(write):
    dataset = ImageTextTable(write("c.csv", "image,caption\na.jpg,dog\nb.jpg,cat\na.jpg,hound\nc.jpg,\n"))
    assert [item.id for item in dataset.images()] == ["a.jpg", "b.jpg", "c.jpg"]
    assert texts(dataset) == [("a.jpg#0", "dog"), ("b.jpg#0", "cat"), ("a.jpg#1", "hound")]


def test_the_form_is_decided_by_the_first_text_even_after_rows_without_one(write):
    rows = ({"id": 1, "image": "a.jpg", "text": None}, {"id": 2, "image": "a.jpg", "text": "dog"})
    dataset = ImageTextTable(write("c.jsonl", jsonl(*rows)))
    assert [item.id for item in dataset.images()] == ["a.jpg"]
    assert texts(dataset) == [("2", "dog")]


def test_image_ids_may_have_their_own_column(write):
    rows = (
        {"id": "t1", "image": "a.jpg", "image_id": 5, "text": "dog"},
        {"id": "t2", "image": "a.jpg", "image_id": 5, "text": "cat"},
    )
    path = write("c.jsonl", jsonl(*rows))
    assert links(ImageTextTable(path)) == [("t1", "5"), ("t2", "5")]
    assert [item.id for item in ImageTextTable(path).images()] == ["5"]
    assert [item.id for item in ImageTextTable(path, image_id="id").images()] == ["t1", "t2"]


def test_lists_of_texts_of_one_image_over_several_rows_count_on(write):
    rows = (
        {"image_id": "a", "image": "a.jpg", "texts": ["x", "y"]},
        {"image_id": "a", "image": "a.jpg", "texts": ["z"]},
    )
    dataset = ImageTextTable(write("c.jsonl", jsonl(*rows)))
    assert texts(dataset) == [("a#0", "x"), ("a#1", "y"), ("a#2", "z")]
    assert len(list(dataset.images())) == 1


def test_an_id_that_comes_twice_is_not_hidden(write):
    rows = [{"id": "same", "image": f"{n}.jpg", "texts": ["x"]} for n in range(2)]
    assert [item.id for item in ImageTextTable(write("c.jsonl", jsonl(*rows))).images()] == ["same", "same"]


def test_columns_and_the_folder_of_images_can_be_named(write, encoded, tmp_path):
    write("elsewhere/p.png", encoded((9, 8, 7)))
    path = write("t.csv", "sku;photo;title;price\nA1;p.png;red shoe;9.5\n")
    dataset = ImageTextTable(
        path, image_root=tmp_path / "elsewhere", image="photo", text="title", id="sku", image_id="sku", delimiter=";"
    )
    assert colours(dataset) == {"A1": [9, 8, 7]}
    assert (texts(dataset), links(dataset)) == ([("A1", "red shoe")], [("A1", "A1")])
    assert next(dataset.images()).metadata == {"price": "9.5"}
    with pytest.raises(DatasetError, match=r"image column 'picture'; found sku, photo, title, price"):
        ImageTextTable(path, image="picture", delimiter=";")


def test_absolute_paths_stand_for_themselves(write, encoded):
    image = write("far/away.png", encoded((4, 5, 6)))
    dataset = ImageTextTable(write("near/c.jsonl", jsonl({"id": "x", "image": str(image), "texts": ["a"]})))
    assert colours(dataset) == {"x": [4, 5, 6]}


def test_a_json_list_reads_as_a_table(write):
    dataset = ImageTextTable(write("test.json", json.dumps([{"image": "a.jpg", "caption": ["x", "y"]}])))
    assert links(dataset) == [("0#0", "0"), ("0#1", "0")]
    with pytest.raises(DatasetError, match="JSON list of objects"):
        ImageTextTable(write("other.json", "{}"))


def test_rows_may_lack_an_image_or_a_text(write):
    rows = ({"id": 1, "image": "a.jpg", "texts": ["x"]}, {"id": 2, "texts": ["lost"]}, {"id": 3, "image": "c.jpg"})
    dataset = ImageTextTable(write("c.jsonl", jsonl(*rows)))
    assert [item.id for item in dataset.images()] == ["1", "3"]
    assert texts(dataset) == [("1#0", "x"), ("2#0", "lost")]
    assert links(dataset) == [("1#0", "1")]


@pytest.mark.parametrize("address", ["https://example.org/a.jpg", "s3://bucket/a.jpg"])
def test_a_web_address_is_not_fetched(write, address):
    with pytest.raises(DatasetError, match=r"line 1 must have a local path.*img2dataset"):
        list(ImageTextTable(write("c.jsonl", jsonl({"image": address, "text": "x"}))).images())


def test_an_image_that_is_no_path_is_named(write):
    with pytest.raises(DatasetError, match=r"line 1 must have a path as its image"):
        list(ImageTextTable(write("c.jsonl", jsonl({"image": {"a": 1}, "text": "x"}))).images())


def test_a_table_without_images_is_told_from_one_with(write):
    with pytest.raises(DatasetError, match="kind texts"):
        ImageTextTable(write("c.jsonl", jsonl({"text": "x"})))


def pictures(encoded, count):
    return [encoded((n, 0, 0), "PNG", size=(4, 4)) for n in range(count)]


@pytest.mark.parametrize("group", [7, 200, 1000])
def test_image_bytes_in_parquet_load_in_any_order(tmp_path, encoded, group):
    path = tmp_path / "p.parquet"
    table = pa.table({"id": [f"i{n}" for n in range(200)], "image": pictures(encoded, 200), "label": range(200)})
    pq.write_table(table, path, row_group_size=group)
    items = list(ImageTextTable(path).images())
    order = np.random.default_rng(0).permutation(200)[:25].tolist()
    for number in [*range(200), *order, 199, 0, 70, 69, 199]:
        assert items[number].load().getpixel((0, 0)) == (number, 0, 0)
    assert items[3].metadata == {"label": 3}


def test_image_bytes_in_parquet_load_from_many_threads(tmp_path, encoded):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": pictures(encoded, 250)}), path, row_group_size=60)
    with ThreadPoolExecutor(8) as pool:
        loaded = pool.map(lambda item: item.load().getpixel((0, 0))[0], ImageTextTable(path).images())
        assert list(loaded) == list(range(250))


def test_listing_reads_no_image_bytes(tmp_path, encoded, monkeypatch):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": pictures(encoded, 20), "text": ["x"] * 20}), path)
    dataset = ImageTextTable(path)
    read = []
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", recording(pq.ParquetFile.iter_batches, read))
    assert len(list(dataset.images())) == len(list(dataset.links())) == 20
    assert read
    assert all("image" not in columns for columns in read)


def recording(method, into):
    def record(self, *arguments, columns=None, **options):
        into.append(columns)
        return method(self, *arguments, columns=columns, **options)

    return record


def test_a_struct_of_bytes_and_path_opens_as_its_publishers_write_it(tmp_path, encoded, write):
    write("on-disk.png", encoded((7, 7, 7)))
    rows = [
        {"bytes": encoded((5, 0, 0)), "path": "x.png"},
        {"bytes": None, "path": "on-disk.png"},
        {"bytes": None, "path": None},
    ]
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": rows, "caption": [["a", "b"], ["c"], ["d"]]}), path)
    dataset = ImageTextTable(path)
    items = list(dataset.images())
    assert [item.id for item in items] == ["0", "1", "2"]
    assert [item.load().getpixel((0, 0)) for item in items[:2]] == [(5, 0, 0), (7, 7, 7)]
    with pytest.raises(CorruptItem, match=r"The image 2 is missing: row 2 of .*p\.parquet is null"):
        items[2].load()
    assert links(dataset) == [("0#0", "0"), ("0#1", "0"), ("1#0", "1"), ("2#0", "2")]


def test_bytes_with_one_text_a_row_are_not_joined(tmp_path, encoded):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": pictures(encoded, 3), "text": ["x", "y", "x"]}), path)
    dataset = ImageTextTable(path)
    assert links(dataset) == [("0#0", "0"), ("1#0", "1"), ("2#0", "2")]


def test_parquet_may_hold_paths_and_lie_in_many_files(tmp_path, encoded, write):
    write("a.png", encoded((3, 0, 0)))
    pq.write_table(pa.table({"image": ["a.png"], "text": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"image": ["a.png"], "text": ["y"]}), tmp_path / "2.parquet")
    dataset = ImageTextTable(tmp_path)
    assert colours(dataset) == {"a.png": [3, 0, 0]}
    assert texts(dataset) == [("a.png#0", "x"), ("a.png#1", "y")]


def test_bytes_over_many_files_come_from_their_own(tmp_path, encoded):
    for number in range(3):
        data = [encoded((10 * number + n, 0, 0)) for n in range(2)]
        pq.write_table(pa.table({"image": data}), tmp_path / f"{number}.parquet")
    assert [value[0] for value in colours(ImageTextTable(tmp_path)).values()] == [0, 1, 10, 11, 20, 21]


def test_a_corrupt_image_stops_nothing_but_itself(tmp_path, encoded):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "c"], "image": [encoded(), b"junk", encoded()]}), path)
    items = list(ImageTextTable(path).images())
    assert items[0].load().size == items[2].load().size == (8, 6)
    with pytest.raises(CorruptItem, match="The image b must be"):
        items[1].load()


def test_a_parquet_that_vanishes_is_a_corrupt_item(tmp_path, encoded):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": pictures(encoded, 2)}), path)
    items = list(ImageTextTable(path).images())
    path.unlink()
    with pytest.raises(CorruptItem, match=r"Row 0 of .*p\.parquet cannot be read"):
        items[0].load()


def test_links_are_links(write):
    dataset = ImageTextTable(write("c.jsonl", jsonl({"id": 1, "image": "a.jpg", "texts": ["x"]})))
    assert list(dataset.links()) == [Link("1#0", "1")]
