"""Every item of a data set has the same metadata columns, of text or of numbers: what encode asks for."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq

from crossfade.datasets import ImageTextTable, TextCorpus, WebDataset


def columns(items):
    """Of every item: its columns and whether each is text."""
    return [{name: isinstance(value, str) for name, value in item.metadata.items()} for item in items]


def test_sparse_and_mixed_json_gives_every_row_every_column(write):
    rows = [
        {"image": "a", "texts": ["x"]},
        {"image": "b", "texts": ["y"], "n": 1, "s": "one", "mixed": 3, "list": [1], "none": None, "truth": True},
        {"image": "c", "texts": ["z"], "n": None, "mixed": "three", "list": "text"},
    ]
    dataset = ImageTextTable(write("t.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    wanted = {"n": False, "s": True, "mixed": True, "truth": False, "list": True}
    assert columns(dataset.images()) == columns(dataset.texts()) == [wanted] * 3
    first, second, third = (item.metadata for item in dataset.images())
    assert math.isnan(first["n"])
    assert (first["s"], second["mixed"], second["list"], third["mixed"]) == ("", "3", "", "three")


def test_parquet_types_decide(tmp_path):
    path = tmp_path / "t.parquet"
    table = pa.table(
        {
            "text": ["x", "y"],
            "i": [1, None],
            "f": [0.5, None],
            "b": [True, None],
            "s": [None, "a"],
            "category": pa.array(["u", None]).dictionary_encode(),
            "day": pa.array([0, None], pa.date32()),
            "list": [[1], None],
            "raw": [b"x", None],
            "struct": [{"a": 1}, None],
            "null": pa.nulls(2),
        }
    )
    pq.write_table(table, path)
    wanted = {"i": False, "f": False, "b": False, "s": True, "category": True, "day": True, "null": True}
    assert columns(TextCorpus(path).texts()) == [wanted] * 2
    first, second = (item.metadata for item in TextCorpus(path).texts())
    assert (first["i"], first["s"], first["category"], first["day"]) == (1, "", "u", "1970-01-01")
    assert math.isnan(second["i"])
    assert (second["s"], second["day"]) == ("a", "")


def test_the_first_sample_of_a_shard_decides(pack, encoded, tmp_path):
    members = {}
    for key, about in {"a": {"width": 3, "url": "u"}, "b": {"width": "wide", "error": "no"}, "c": {}}.items():
        members |= {f"{key}.png": encoded(), f"{key}.json": json.dumps(about).encode()}
    dataset = WebDataset(pack(tmp_path / "x.tar", members))
    assert columns(dataset.images()) == [{"width": False, "url": True}] * 3
    assert [item.metadata["url"] for item in dataset.images()] == ["u", "", ""]
