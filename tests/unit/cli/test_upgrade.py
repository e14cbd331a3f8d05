"""``crossfade upgrade`` as a user runs it: on a LanceDB table of real images by real encoders, from adoption to the way back."""

from __future__ import annotations

import json
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import lancedb
import pyarrow as pa
import pytest
from command import Done
from command import run as run_here

import crossfade as cf
from crossfade.stores import open_store

COUNT = 100


class Run(Protocol):
    """Run ``crossfade ARGUMENTS``."""

    def __call__(self, *arguments: object, code: int = 0) -> Done: ...


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return partial(run_here, capsys, monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in a folder, their old vectors in a table, queries by both models, and an adapter."""
    root = tmp_path_factory.mktemp("live")
    (root / "images").mkdir()
    items = {}
    for item in islice(cf.open_dataset("glyphs:unseen-characters").images(), COUNT):
        name = item.id.replace("/", "-")
        item.load().save(root / "images" / f"{name}.png")
        items[name] = item
    data = cf.open_dataset(root / "images")
    ids = [item.id for item in data.images()]
    models = {which: cf.load_encoder(f"demo:{which}", device="cpu") for which in ("old", "new")}
    sets = {which: cf.encode(data.images(), encoder=model) for which, model in models.items()}
    vectors = pa.FixedSizeListArray.from_arrays(sets["old"].matrix().ravel(), sets["old"].dimension)
    kinds = ["even" if n % 2 else "odd" for n in range(COUNT)]
    table = pa.table({"id": ids, "kind": kinds, "vector": vectors})
    lancedb.connect(root / "db").create_table("glyphs", table)
    names = [f"LATIN SMALL LETTER {letter}" for letter in "ABCDEFGH"]
    for which, model in models.items():
        cf.Embeddings(names, model.encode_texts(names, role="query"), model.space, "text").save(root / f"log-{which}")
        (root / f"{which}.json").write_text(json.dumps(model.space.to_dict()))
    cf.save_pretrained(cf.methods.Procrustes().fit(cf.pair(sets["old"], sets["new"])), root / "adapter")
    return root


def test_an_upgrade_from_adoption_to_the_way_back(folder: Path, tmp_path: Path, run: Run) -> None:
    store = f"lancedb:{folder / 'db'}#glyphs"
    where, upgrade, items = ("--store", store), tmp_path / "upgrade", ("--data", folder / "images")
    refused = run("upgrade", "plan", folder / "adapter", *where, "--out", upgrade, code=3)
    assert "Nothing says which space" in refused.err
    run("upgrade", "register", *where, code=3)
    wrong = run("upgrade", "register", *where, "--space", folder / "new.json", code=3)
    assert "has 64 dimensions" in wrong.err
    registered = run("upgrade", "register", *where, "--space", folder / "old.json", "--json")
    assert json.loads(registered.out)["field"] == "vector"
    checked = run("upgrade", "check", *where, "--encoder", "demo:old", *items, "--sample", 30)
    assert "The encoder makes the vectors that are stored." in checked.out
    health = json.loads(run("doctor", "--store", store, "--json").out)["store"]["fields"]["vector"]
    assert (health["rows"], health["holes"]) == (COUNT, 0)

    planned = run(
        "upgrade", "plan", folder / "adapter", *where, "--new-field", "new", "--out", upgrade, "--price", "0.5"
    )
    assert f"{COUNT}" in planned.out
    assert "50.00" in planned.out
    assert "the cutover will be refused" in planned.out
    assert not (tmp_path / "nothing").exists()
    logs = ("--old", folder / "log-old", "--new", folder / "log-new")
    assert "agreement@5" in run("upgrade", "shadow", upgrade, *logs, "-k", 5).out
    assert "nothing was evaluated" in run("upgrade", "cutover", upgrade, code=3).err
    said = run("upgrade", "cutover", upgrade, "--force", "a test").out
    assert "the upgrade is cut over; searches are mapped" in said

    new = ("--encoder", "demo:new")
    assert "demo:old" not in run("upgrade", "backfill", upgrade, "--encoder", "demo:old", *items, code=3).out
    done = json.loads(run("upgrade", "backfill", upgrade, *new, *items, "--limit", 45, "--batch", 20, "--json").out)
    assert (done["encoded"], done["stopped"]) == (45, "limit")
    ids = tmp_path / "ids.txt"
    ids.write_text("glyph\n")
    done = json.loads(
        run("upgrade", "backfill", upgrade, *new, *items, "--ids", ids, "--queries", folder / "log-new", "--json").out
    )
    assert (done["encoded"], done["stopped"], done["stage"]) == (55, "done", "backfilled")
    shown = json.loads(run("upgrade", "status", upgrade, "--json").out)
    assert (shown["stage"], shown["rows"], shown["without native vector"]) == ("backfilled", COUNT, 0)
    assert "while it is under way" in run("upgrade", "pause", upgrade, code=3).err
    assert "searches are native" in run("upgrade", "finish", upgrade).out
    assert "searches are old" in run("upgrade", "rollback", upgrade, "--reason", "a test", "--drop-new").out
    steps = [line.split("  ")[3] for line in run("upgrade", "history", upgrade).out.splitlines()]
    assert steps == ["plan", "shadow", "cutover", "backfill", "backfill", "finish", "rollback"]
    with open_store(store) as opened:
        assert set(opened.shape.fields) == {"vector"}
        assert opened.shape.columns == {"kind": "string"}
        assert opened.count() == COUNT
    assert "the way out" not in run("upgrade", "status", tmp_path, code=3).out


def test_an_adapter_is_fitted_on_what_a_collection_has_stored(folder: Path, tmp_path: Path, run: Run) -> None:
    run("upgrade", "register", "--store", f"lancedb:{folder / 'db'}#glyphs", "--space", folder / "old.json")
    given = ("--store", f"lancedb:{folder / 'db'}#glyphs", "--encoder", "demo:new", "--data", folder / "images")
    out = tmp_path / "adapter"
    run("fit", *given, "--sample", 70, "--stratify", "kind", "-m", "procrustes", "--hold-out", 0, "--out", out)
    adapter = cf.from_pretrained(out)
    assert adapter.provenance is not None
    assert adapter.provenance.pairs == {"image": 70}
    assert adapter.target == cf.load_encoder("demo:old", device="cpu").space
    run("fit", *given, "--old", folder, "--out", tmp_path / "other", code=2)
    run(
        "fit",
        "--store",
        "lancedb:nowhere#x",
        "--encoder",
        "demo:new",
        "--data",
        folder,
        "--out",
        tmp_path / "o",
        code=3,
    )
