"""``crossfade upgrade`` as a user runs it: on a LanceDB table of real images by real encoders, from adoption to the way back."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest
from command import run_apart as run

import crossfade as cf
from crossfade.stores import open_store

COUNT = 100


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


def test_an_upgrade_from_adoption_to_the_way_back(folder: Path, tmp_path: Path) -> None:
    store = f"lancedb:{folder / 'db'}#glyphs"
    where, upgrade, items = ("--store", store), tmp_path / "upgrade", ("--data", folder / "images")
    refused = run("upgrade", "plan", folder / "adapter", *where, "--out", upgrade, code=3)
    assert "Nothing says which space" in refused.stderr
    run("upgrade", "register", *where, code=3)
    wrong = run("upgrade", "register", *where, "--space", folder / "new.json", code=3)
    assert "has 64 dimensions" in wrong.stderr
    registered = run("upgrade", "register", *where, "--space", folder / "old.json", "--json")
    assert json.loads(registered.stdout)["field"] == "vector"
    checked = run("upgrade", "check", *where, "--encoder", "demo:old", *items, "--sample", 30)
    assert "The encoder makes the vectors that are stored." in checked.stdout
    health = json.loads(run("doctor", "--store", store, "--json").stdout)["store"]["fields"]["vector"]
    assert (health["rows"], health["holes"]) == (COUNT, 0)

    planned = run(
        "upgrade", "plan", folder / "adapter", *where, "--new-field", "new", "--out", upgrade, "--price", "0.5"
    )
    assert f"{COUNT}" in planned.stdout
    assert "50.00" in planned.stdout
    assert "the cutover will be refused" in planned.stdout
    assert not (tmp_path / "nothing").exists()
    logs = ("--old", folder / "log-old", "--new", folder / "log-new")
    assert "agreement@5" in run("upgrade", "shadow", upgrade, *logs, "-k", 5).stdout
    assert "nothing was evaluated" in run("upgrade", "cutover", upgrade, code=3).stderr
    said = run("upgrade", "cutover", upgrade, "--force", "a test").stdout
    assert "the upgrade is cut over; searches are mapped" in said

    new = ("--encoder", "demo:new")
    assert "demo:old" not in run("upgrade", "backfill", upgrade, "--encoder", "demo:old", *items, code=3).stdout
    done = json.loads(run("upgrade", "backfill", upgrade, *new, *items, "--limit", 45, "--batch", 20, "--json").stdout)
    assert (done["encoded"], done["stopped"]) == (45, "limit")
    ids = tmp_path / "ids.txt"
    ids.write_text("glyph\n")
    done = json.loads(
        run(
            "upgrade", "backfill", upgrade, *new, *items, "--ids", ids, "--queries", folder / "log-new", "--json"
        ).stdout
    )
    assert (done["encoded"], done["stopped"], done["stage"]) == (55, "done", "backfilled")
    shown = json.loads(run("upgrade", "status", upgrade, "--json").stdout)
    assert (shown["stage"], shown["rows"], shown["without native vector"]) == ("backfilled", COUNT, 0)
    assert "while it is under way" in run("upgrade", "pause", upgrade, code=3).stderr
    assert "searches are native" in run("upgrade", "finish", upgrade).stdout
    assert "searches are old" in run("upgrade", "rollback", upgrade, "--reason", "a test", "--drop-new").stdout
    steps = [line.split("  ")[3] for line in run("upgrade", "history", upgrade).stdout.splitlines()]
    assert steps == ["plan", "shadow", "cutover", "backfill", "backfill", "finish", "rollback"]
    with open_store(store) as opened:
        assert set(opened.shape.fields) == {"vector"}
        assert opened.shape.columns == {"kind": "string"}
        assert opened.count() == COUNT
    assert "the way out" not in run("upgrade", "status", tmp_path, code=3).stdout


def test_an_adapter_is_fitted_on_what_a_collection_has_stored(folder: Path, tmp_path: Path) -> None:
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
