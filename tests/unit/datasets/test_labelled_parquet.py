from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.datasets import LabelledParquet
from crossfade.datasets.base import Link
from crossfade.errors import ConfigError, DatasetError


@pytest.fixture
def pets(tmp_path, encoded):
    path = tmp_path / "pets.parquet"
    columns = {
        "id": ["a", "b", "c"],
        "label": [4, 2, 4],
        "name": ["dog", "cat", "dog"],
        "image": [encoded((n, 0, 0)) for n in (10, 20, 30)],
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_images_carry_their_label_and_the_other_columns(pets):
    items = list(LabelledParquet(pets).images())
    assert [(item.id, item.metadata) for item in items] == [
        ("a", {"label": 4, "name": "dog"}), ("b", {"label": 2, "name": "cat"}), ("c", {"label": 4, "name": "dog"}),
    ]  # fmt: skip
    assert [item.load().getpixel((0, 0))[0] for item in items] == [10, 20, 30]
    assert list(LabelledParquet(pets).texts()) == list(LabelledParquet(pets).links()) == []


def test_a_template_gives_each_class_a_text(pets):
    dataset = LabelledParquet(pets, class_name="name", template="a {}")
    assert [(item.id, item.text, item.metadata) for item in dataset.texts()] == [
        ("4", "a dog", {"label": 4}), ("2", "a cat", {"label": 2}),
    ]  # fmt: skip
    assert list(dataset.links()) == [Link("4", "a"), Link("2", "b"), Link("4", "c")]
    assert [item.text for item in LabelledParquet(pets, template="no. {}").texts()] == ["no. 4", "no. 2"]
    with pytest.raises(ConfigError, match=r"must hold \{\}"):
        LabelledParquet(pets, template="a")


def test_columns_can_be_named_and_unknown_ones_are_refused(pets):
    assert [item.metadata["label"] for item in LabelledParquet(pets, label="name").images()] == ["dog", "cat", "dog"]
    for option in ("label", "image", "id", "class_name"):
        with pytest.raises(DatasetError, match=r"'wrong'; found id, label, name, image"):
            LabelledParquet(pets, **{option: "wrong"})


def test_labels_that_are_null_or_fractions_are_refused(tmp_path, encoded):
    for number, label in enumerate((None, 0.5)):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"image": [encoded()], "label": pa.array([label], pa.float64())}), path)
        with pytest.raises(DatasetError, match=r"row 0 must have a string or a whole number as its label"):
            list(LabelledParquet(path).images())


def test_a_table_of_paths_is_refused(tmp_path):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"image": ["a.png"], "label": [1]}), path)
    with pytest.raises(DatasetError, match="must hold image bytes"):
        list(LabelledParquet(path).images())
    pq.write_table(pa.table({"label": [1]}), path)
    with pytest.raises(DatasetError, match="must have a column of images"):
        LabelledParquet(path)
