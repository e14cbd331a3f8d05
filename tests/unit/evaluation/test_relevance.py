"""Judgements from links, labels, ids and files."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError, FormatError
from crossfade.evaluation import Relevance, read_qrels
from crossfade.spaces import Space

SPACE = Space(model="m", dimension=2)
TRIPLES = [("q1", "d1", 2.0), ("q1", "d3", 1.0), ("q2", "d2", 0.0), ("q2", "d1", 3.0)]


def items(ids, modality="text", **metadata):
    return Embeddings(ids, np.ones((len(ids), 2), np.float32), SPACE, modality, metadata=metadata)


def written(tmp_path, suffix):
    path = tmp_path / f"qrels{suffix}"
    names = ("query", "gallery", "grade")
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(names, t, strict=True))) for t in TRIPLES) + "\n")
    elif suffix == ".parquet":
        pq.write_table(pa.table({n: [t[i] for t in TRIPLES] for i, n in enumerate(names)}), path)
    elif suffix == ".tsv":
        path.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in TRIPLES))
    elif suffix == ".csv":
        path.write_text("qid,docid,relevance\n" + "".join(f"{q},{d},{g}\n" for q, d, g in TRIPLES))
    else:
        path.write_text("".join(f"{q} 0 {d} {int(g)}\n" for q, d, g in TRIPLES))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".tsv", ".csv", ".txt"])
def test_every_file_gives_the_same_judgements(tmp_path, suffix):
    path = written(tmp_path, suffix)
    assert read_qrels(path) == TRIPLES
    judgements = Relevance.from_qrels(path).judge(items(["q2", "q1", "q9"]), items(["d3", "d2", "d1"]))
    assert [rows.tolist() for rows in judgements.targets] == [[2], [0, 2], []]
    assert [grades.tolist() for grades in judgements.grades] == [[3.0], [1.0, 2.0], []]
    assert judgements.answerable().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"q1 d1 1\n", "row 1: TREC qrels have 4 fields"),
        ("a.txt", b"q1 0 d1 high\n", "must be a number; found 'high'"),
        ("a.jsonl", b'{"query": "q1", "gallery": "d1"}\n{"query": "q1"', "row 2: not JSON"),
        ("a.jsonl", b"[1]\n", "must be an object"),
        ("a.csv", b"query,grade\nq1,1\n", "must name its gallery item"),
        ("a.parquet", b"PAR1 not really", "must be Parquet"),
        ("a.tsv", b"query\tgallery\n\xff\xfe\tb\n", "UTF-8"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message):
        Relevance.from_qrels(tmp_path / name)


def test_a_missing_file_and_empty_judgements_are_refused(tmp_path):
    with pytest.raises(FormatError, match="missing"):
        Relevance.from_qrels(tmp_path / "nothing.jsonl")
    with pytest.raises(EvaluationError, match="at least one judgement"):
        Relevance.from_qrels([("q", "d", 0)])
    with pytest.raises(EvaluationError, match="finite"):
        Relevance.from_qrels([("q", "d", float("nan"))])
    with pytest.raises(EvaluationError, match="at least one link"):
        Relevance.from_links([])


def test_a_mapping_and_triples_are_the_same():
    mapping = {"q1": {"d1": 2.0, "d3": 1.0}, "q2": {"d2": 0.0, "d1": 3.0}}
    sides = items(["q1", "q2"]), items(["d1", "d2", "d3"])
    a, b = (Relevance.from_qrels(source).judge(*sides) for source in (mapping, TRIPLES))
    assert [r.tolist() for r in a.targets] == [r.tolist() for r in b.targets] == [[0, 2], [0]]


def test_numbered_queries_and_documents_are_not_taken_for_the_same_item():
    triples = [("1", "1", 1), ("2", "1", 1)]
    sides = items(["1", "2"]), items(["1", "2"])
    assert Relevance.from_qrels(triples).judge(*sides).own.tolist() == [-1, -1]
    excluded = Relevance.from_qrels(triples, exclude_same_id=True).judge(*sides)
    assert excluded.own.tolist() == [0, 1]
    assert excluded.answerable().tolist() == [False, True]


def test_labels_share_one_array_a_class_and_exclude_the_query_itself():
    side = items([f"i{i}" for i in range(6)], label=[0, 1, 0, 1, 0, 2])
    by_column = Relevance.from_column("label").judge(side, side)
    by_mapping = Relevance.from_labels({f"i{i}": label for i, label in enumerate([0, 1, 0, 1, 0, 2])}).judge(side, side)
    for judgements in (by_column, by_mapping):
        assert judgements.targets[0] is judgements.targets[2]
        assert judgements.positives(0).tolist() == [2, 4]
        assert judgements.positives(1).tolist() == [3]
        assert judgements.answerable().tolist() == [True, True, True, True, True, False]
        assert judgements.groups.tolist() == list(range(6))
    kept = Relevance.from_column("label", exclude_same_id=False).judge(side, side)
    assert kept.positives(0).tolist() == [0, 2, 4]
    across = Relevance.from_column("label").judge(side, items([f"i{i}" for i in range(6)], "image", label=[0] * 6))
    assert (across.own == -1).all()
    with pytest.raises(EvaluationError, match="must stand in the gallery' metadata"):
        Relevance.from_column("label").judge(side, items(["x"]))
