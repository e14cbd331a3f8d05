from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import crossfade.datasets as datasets
from crossfade.datasets import KINDS, open_dataset
from crossfade.errors import ConfigError, CrossfadeError, DatasetError, UnsafeFormat

KARPATHY = {
    "images": [
        {"filename": "a.jpg", "split": s, "sentences": [{"raw": "x", "sentid": n}]}
        for n, s in enumerate(("val", "test"))
    ]
}
COCO = {"info": {}, "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}
NOCAPS = {**COCO, "images": [{"id": 1, "file_name": "a.jpg", "open_images_id": "00"}]}
ROW = {"id": 1, "image": "a.jpg", "texts": ["x"]}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("dataset_coco.json", json.dumps(KARPATHY), "karpathy"),
        ("captions.json", json.dumps(COCO), "coco"),
        ("nocaps.json", json.dumps(NOCAPS), "nocaps"),
        ("list.json", json.dumps([ROW]), "json"),
        ("texts.json", json.dumps([{"text": "x"}]), "texts"),
        ("rows.jsonl", json.dumps(ROW), "jsonl"),
        ("rows.ndjson", json.dumps({"text": "x"}), "texts"),
        ("rows.csv", "image,text\na.jpg,x\n", "csv"),
        ("rows.tsv", "image\ttext\na.jpg\tx\n", "csv"),
        ("texts.csv", "id,text\n1,x\n", "texts"),
        ("corpus.txt", "x\n", "texts"),
    ],
)
def test_a_file_is_recognised_and_equals_the_kind_named(write, name, content, kind):
    path = write(name, content)
    recognised = open_dataset(path)
    assert recognised == open_dataset(f"{kind}:{path}") == open_dataset(str(path), kind=kind)
    assert isinstance(recognised, KINDS[kind].reader())
    list(recognised.texts())


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"image": [b"x"], "label": [1]}, "labelled"),
        ({"image": [b"x"], "label": [1], "text": ["x"]}, "parquet"),
        ({"image": [b"x"]}, "parquet"),
        ({"image": ["a.png"], "label": [1]}, "parquet"),
        ({"text": ["x"]}, "texts"),
    ],
)
def test_parquet_is_recognised_by_its_columns_as_a_file_and_as_a_folder(tmp_path, columns, kind):
    path = tmp_path / "data" / "p.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table(columns), path)
    for location in (path, path.parent):
        assert open_dataset(location) == open_dataset(f"{kind}:{location}")


def test_folders_and_shards_are_recognised(write, encoded, pack, tmp_path):
    write("flat/a.jpg", encoded())
    write("nested/one/a.jpg", encoded())
    for name in ("cat/1.jpg", "dog/2.jpg"):
        write(f"pets/{name}", encoded())
        write(f"captioned/{name}", encoded())
    write("captioned/cat/1.txt", "a cat")
    shard = pack(tmp_path / "shards" / "00000.tar", {"a.jpg": encoded()})
    pack(tmp_path / "task" / "test" / "0.tar", {"a.jpg": encoded()})
    write("task/test/nshards.txt", "1")
    kinds = {"flat": "folder", "nested": "folder", "pets": "imagefolder", "captioned": "folder", "shards": "webdataset"}
    kinds |= {"task": "clip-benchmark", "task/test": "clip-benchmark", "shards/*.tar": "webdataset"}
    kinds |= {"shards/{00000..00000}.tar": "webdataset", str(shard): "webdataset"}
    for name, kind in kinds.items():
        location = str(tmp_path / name)
        assert open_dataset(location) == open_dataset(f"{kind}:{location}"), name
        assert list(open_dataset(location).images()), name


def test_options_stand_in_a_query_or_beside(write):
    path = write("dataset_coco.json", json.dumps(KARPATHY))
    wanted = datasets.KarpathyCaptions(path, image_root=path.parent / "x y", splits=("val", "test"), name="both")
    query = f"karpathy:{path}?images={path.parent}/x y&splits=val, test&name=both"
    assert open_dataset(query) == wanted
    assert open_dataset(query.removeprefix("karpathy:")) == wanted
    assert (
        open_dataset(path, options={"images": path.parent / "x y", "splits": ["val", "test"], "name": "both"}) == wanted
    )
    assert open_dataset(f"{path}?name=both&images={path.parent}/x y", options={"splits": "val,test"}) == wanted
    assert open_dataset(f"{path}?splits=").splits == ()
    with pytest.raises(ConfigError, match="once"):
        open_dataset(f"{path}?name=a", options={"name": "b"})


def test_options_are_parsed_by_their_type(write, encoded):
    folder = write("p/a.png", encoded()).parent
    assert open_dataset(f"folder:{folder}?captions=no").captions is False
    assert open_dataset(f"folder:{folder}", options={"captions": False}).captions is False
    for bad in ("folder:{}?captions=maybe", "webdataset:{}?truncated=perhaps", "glyphs:train?size=big"):
        with pytest.raises(ConfigError):
            open_dataset(bad.format(folder))
    with pytest.raises(ConfigError, match="captions must be true or false; found 3"):
        open_dataset(folder, options={"captions": 3})


def test_dashes_and_signs_in_values(write):
    path = write("a.csv", "image,text\na.jpg,x\n")
    assert open_dataset(f"{path}?image-id=text").image_id == "text"
    assert open_dataset(f"{path}?name=a%26b%3Dc+d").name == "a&b=c+d"


def test_what_exists_under_the_whole_name_is_a_path(write, encoded):
    odd = write("odd/texts:a?b=c.txt", "x\n")
    assert open_dataset(str(odd)).path == odd
    folder = write("what?/a.png", encoded()).parent
    assert open_dataset(str(folder)).path == folder
    assert open_dataset(f"{folder}?captions=no").captions is False


def test_unknown_kinds_options_and_places_list_what_there_is(write, tmp_path):
    path = write("a.txt", "x\n")
    with pytest.raises(ConfigError, match=r"one of karpathy, nocaps, .*glyphs; found 'coca'"):
        open_dataset(f"coca:{path}")
    with pytest.raises(ConfigError, match=r"found 'x'"):
        open_dataset(path, kind="x")
    with pytest.raises(ConfigError, match=r"has the options text, id, format, delimiter, name; found txt"):
        open_dataset(f"texts:{path}?txt=a")
    with pytest.raises(DatasetError, match=r"nothing stands there\. The kinds are karpathy"):
        open_dataset(tmp_path / "none")
    with pytest.raises(DatasetError, match="none that is recognised"):
        open_dataset(write("b.xyz", "x"))
    with pytest.raises(ConfigError, match="texts:PATH"):
        open_dataset("texts:")


@pytest.mark.parametrize(
    "location", ["https://example.org/a.tar", "s3://b/{0..1}.tar", "webdataset:https://e.org/a.tar"]
)
def test_a_web_address_is_not_fetched(location):
    with pytest.raises(DatasetError, match="nothing is fetched unasked"):
        open_dataset(location)


@pytest.mark.parametrize(
    "name", ["cifar-10-batches-py/data_batch_1", "cifar-100-python/meta", "x.pkl", "cifar-10-python.tar.gz"]
)
def test_pickles_are_refused_by_name(write, name):
    path = write(name, b"\x80\x04.")
    for location in (path, path.parent) if "/" in name else (path,):
        with pytest.raises(UnsafeFormat, match="never unpickles"):
            open_dataset(location)


def test_a_folder_named_meta_is_no_pickle(write, encoded, tmp_path):
    write("photos/meta/a.jpg", encoded())
    write("photos/train/a.jpg", encoded())
    assert len(list(open_dataset(tmp_path / "photos").images())) == 2


def test_glyphs_are_built_in():
    train, unseen = open_dataset("glyphs"), open_dataset("glyphs:unseen-faces?size=24")
    assert (train.split, unseen.split, unseen.size) == ("train", "unseen-faces", 24)
    assert datasets.Glyphs is type(train)
    with pytest.raises(ConfigError):
        open_dataset("glyphs:unseen")


def test_every_kind_tells_its_options():
    assert list(KINDS["karpathy"].options) == ["images", "splits", "name"]
    assert "format" not in KINDS["jsonl"].options
    for name, kind in KINDS.items():
        assert kind.name == name
        assert kind.summary
        assert all(not option.startswith("_") for option in kind.options)


def test_damage_that_recognition_meets_is_told_and_not_taken_for_another_kind(write):
    with pytest.raises(DatasetError, match="line 1"):
        open_dataset(write("a.jsonl", "{nonsense\n"))
    with pytest.raises(DatasetError, match="must be a Parquet file"):
        open_dataset(write("a.parquet", b"PAR1"))
    with pytest.raises(DatasetError, match="UTF-8"):
        open_dataset(write("a.csv", b"image,text\xe9\n"))


def test_an_empty_file_is_refused_or_empty_but_never_a_foreign_error(write):
    for name in ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.tar", "a.txt"):
        with contextlib.suppress(CrossfadeError):
            assert list(open_dataset(write(name, "")).texts()) == []


def test_the_public_names_are_there():
    assert len(set(datasets.__all__)) == len(datasets.__all__)
    assert all(getattr(datasets, name) is not None for name in datasets.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = datasets.nothing


def test_importing_is_light():
    heavy = ("PIL", "pyarrow", "matplotlib", "torch", "scipy", "pandas")
    code = f"import sys, crossfade.datasets; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
