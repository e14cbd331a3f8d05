from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.datasets import TextCorpus
from crossfade.datasets.base import TextItem
from crossfade.errors import ConfigError, DatasetError


def items(path, **options):
    return [(item.id, item.text) for item in TextCorpus(path, **options).texts()]


def test_one_text_a_line_with_numbers_from_0_and_blank_lines_skipped(write):
    path = write("corpus.txt", "first\n\n  \nfourth\r\nlast without an end")
    assert items(path) == [("0", "first"), ("3", "fourth"), ("4", "last without an end")]
    dataset = TextCorpus(path)
    assert dataset.name == "corpus"
    assert list(dataset.images()) == list(dataset.links()) == []


def test_only_a_newline_ends_a_line(write):
    assert items(write("c.txt", "a\u2028b\x0bc\x85d\ne")) == [("0", "a\u2028b\x0bc\x85d"), ("1", "e")]


def test_a_byte_order_mark_is_dropped(write):
    assert items(write("c.txt", b"\xef\xbb\xbffirst\nsecond")) == [("0", "first"), ("1", "second")]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r")), max_size=20))
def test_every_line_comes_back_with_its_number(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "c.txt"
    path.write_bytes("\n".join(lines).encode())
    lines = [line.removeprefix("\ufeff") if number == 0 else line for number, line in enumerate(lines)]
    assert items(path) == [(str(number), line) for number, line in enumerate(lines) if line.strip()]


def test_a_line_in_latin_1_names_file_line_offset_and_the_way_out(write):
    path = write("c.txt", b"one\ntwo\nCaf\xe9 noir\n")
    corpus = TextCorpus(path).texts()
    assert [next(corpus).text, next(corpus).text] == ["one", "two"]  # streamed: what is sound comes first
    with pytest.raises(
        DatasetError, match=r"c\.txt must be UTF-8, and line 3 is not \(byte 0xe9 at offset 11\).*iconv"
    ):
        next(corpus)


def test_utf_16_is_recognised_in_the_advice(write):
    with pytest.raises(DatasetError, match="iconv -f UTF-16"):
        items(write("c.txt", "Zoë".encode("utf-16")))


def test_jsonl_has_a_column_ids_and_metadata(write):
    rows = [
        {"id": 7, "text": "a", "lang": "en", "n": [1]},
        {"id": "x", "text": "b", "lang": "de"},
        {"id": 9, "text": " "},
    ]
    path = write("c.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert list(TextCorpus(path).texts()) == [TextItem("7", "a", {"lang": "en"}), TextItem("x", "b", {"lang": "de"})]


def test_columns_can_be_named(write):
    path = write("c.jsonl", '{"body": "a", "key": "k1", "text": "no"}\n{"body": ["b", "", "c"], "key": "k2"}\n')
    assert items(path, text="body", id="key") == [("k1", "a"), ("k2#0", "b"), ("k2#2", "c")]
    assert items(path, text="key") == [("0", "k1"), ("1", "k2")]
    with pytest.raises(DatasetError, match=r"text column 'title'; found body, key, text"):
        TextCorpus(path, text="title")


def test_ids_that_count_lines_skip_no_number(write):
    assert items(write("c.jsonl", '{"text": "a"}\n\n{"text": "b"}\n')) == [("0", "a"), ("2", "b")]


@pytest.mark.parametrize("bad", ['{"text": "b"', "nonsense", '{"text": "b"}}', "{'text': 'b'}"])
def test_a_malformed_line_is_named(write, bad):
    path = write("c.jsonl", '{"text": "a"}\n' + bad + "\n")
    with pytest.raises(DatasetError, match=r"c\.jsonl must hold JSON, and line 2 is not"):
        items(path)


def test_json_nested_without_end_is_refused(write):
    with pytest.raises(DatasetError, match="line 2"):
        items(write("c.jsonl", '{"text": "a"}\n' + "[" * 100_000 + "\n"))


@pytest.mark.parametrize("bad", ["[1]", '"text"', "3", "null"])
def test_a_line_that_is_no_object_is_named(write, bad):
    with pytest.raises(DatasetError, match=r"c\.jsonl, line 2, must be an object"):
        items(write("c.jsonl", '{"text": "a"}\n' + bad))


@pytest.mark.parametrize(
    "bad", ['{"id": null, "text": "b"}', '{"id": 1.5, "text": "b"}', '{"text": "b"}', '{"id": true, "text": "b"}']
)
def test_a_row_without_a_proper_id_is_named(write, bad):
    with pytest.raises(DatasetError, match=r"line 2 must have a string or a whole number as its id"):
        items(write("c.jsonl", '{"id": 1, "text": "a"}\n' + bad))


def test_a_text_that_is_none_is_named(write):
    with pytest.raises(DatasetError, match=r"line 1 must have a text.*found 3"):
        items(write("c.jsonl", '{"text": 3}'))


def test_parquet_streams_a_column(tmp_path):
    path = tmp_path / "c.parquet"
    table = pa.table({"id": [1, 2, 3], "text": ["a", None, "c"], "year": pa.array([1999, 2000, None], pa.int64())})
    pq.write_table(table, path, row_group_size=2)
    found = list(TextCorpus(path).texts())
    assert [(item.id, item.text) for item in found] == [("1", "a"), ("3", "c")]
    assert found[0].metadata == {"year": 1999}
    assert set(found[1].metadata) == {"year"}
    assert found[1].metadata["year"] != found[1].metadata["year"]  # a null is NaN


def test_parquet_may_lie_in_many_files_and_counts_on(tmp_path):
    for number, texts in enumerate((["a", "b"], ["c"])):
        pq.write_table(pa.table({"text": texts}), tmp_path / f"part-{number}.parquet")
    assert items(tmp_path) == [("0", "a"), ("1", "b"), ("2", "c")]
    pq.write_table(pa.table({"other": ["d"]}), tmp_path / "part-2.parquet")
    with pytest.raises(DatasetError, match=r"column 'text'.*part-2\.parquet has not"):
        items(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_truncated_parquet_is_named(tmp_path, share):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"text": ["a"] * 100}), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DatasetError, match=r"c\.parquet must be a Parquet file"):
        items(path)


def test_a_damaged_page_is_named(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(500)]}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match=r"c\.parquet"):
        items(path)


def test_csv_with_quotes_and_tsv(write):
    assert items(write("c.csv", 'id,text\n1,"a, b\nand c"\n2,d\n')) == [("1", "a, b\nand c"), ("2", "d")]
    assert items(write("c.tsv", "id\ttext\n1\ta, b\n")) == [("1", "a, b")]
    assert items(write("p.csv", "id| text\n1|a\n"), delimiter="|") == [("1", "a")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\n1,a\n2\n", "line 3, must have 2 fields.*found 1"),
        ("id,text\n1,a\n2,b,c\n", "line 3, must have 2 fields.*found 3"),
        ('id,text\n1,"a\n', "must be CSV"),
        ("id,id\n1,2\n", "each column once"),
        ("", "is empty"),
    ],
)
def test_a_damaged_csv_is_named(write, content, message):
    with pytest.raises(DatasetError, match=message):
        items(write("c.csv", content), text="text")


def test_options_that_make_no_sense_are_refused(write, tmp_path):
    with pytest.raises(ConfigError, match="has no columns"):
        TextCorpus(write("c.txt", "a"), id="id")
    with pytest.raises(ConfigError, match="one character"):
        items(write("c.csv", "text\na\n"), delimiter="||")
    with pytest.raises(DatasetError, match="nothing stands at"):
        TextCorpus(tmp_path / "none.txt")
    with pytest.raises(DatasetError, match=r"must be one of \.jsonl"):
        TextCorpus(write("c.xlsx", "a"))
    with pytest.raises(DatasetError, match="must have a column of texts"):
        TextCorpus(write("d.jsonl", '{"body": "a"}'))
    with pytest.raises(DatasetError, match=r"holds none"):
        TextCorpus(tmp_path / "empty") if (tmp_path / "empty").mkdir() is None else None


def test_two_readings_agree(write):
    path = write("c.txt", "b\na\nb\n")
    corpus = TextCorpus(path)
    assert list(corpus.texts()) == list(corpus.texts())
