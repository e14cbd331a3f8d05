"""An application at work while its collection is upgraded: writers and readers, each in a process of its own.

An item's content is a number in the column ``content``, and so the new model can see every item as it is now. A writer owns its
ids, and notes each operation once it is acknowledged. A reader checks of each search what was compared with what.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from live import NEW, OLD, queries, seen

from crossfade.stores import Id, Records, Store, Vectors, open_store
from crossfade.stores.backend import Query
from crossfade.upgrading import Searcher, Upgrade, Writer

COLUMNS = {"content": "integer"}


def contents_of(store: Store, ids: np.ndarray) -> list[int | None]:
    rows = store.fetch([str(id_) for id_ in ids], columns=["content"])
    known = dict(zip(rows.ids, rows.columns["content"], strict=True))
    return [known.get(str(id_)) for id_ in ids]  # type: ignore[misc]


def embedded(store: Store, ids: np.ndarray) -> np.ndarray:
    """What the new model makes of the items as they are now; nothing of those that are gone."""
    known = contents_of(store, ids)
    found = seen([content or 0 for content in known], NEW)
    found[[content is None for content in known]] = np.nan
    return found


def write(folder: Path, address: str, name: str, log: Path, stop: Event, *, aware: bool) -> None:
    """Insert, replace and delete until told to stop: through a Writer, or by old vectors as if there were no upgrade."""
    upgrade, store, generator = Upgrade.open(folder), open_store(address), random.Random(name)
    writer, searcher = Writer(upgrade, store), Searcher(upgrade, store)
    mine: list[str] = []
    with log.open("w") as file:
        for number in range(10**9):
            if stop.is_set():
                break
            content = generator.randrange(1000, 400_000)
            if mine and generator.random() < 0.25:
                gone = mine.pop(generator.randrange(len(mine)))
                store.delete([gone])
                operation: tuple[str, int | None] = (gone, None)
            else:
                id_ = generator.choice(mine) if mine and generator.random() < 0.4 else f"{name}-{number}"
                if aware:
                    space = searcher.expects
                    writer.write([id_], seen([content], space), space=space, columns={"content": [content]})
                else:
                    store.upsert(Records([id_], {"old": Vectors.of(seen([content], OLD))}, {"content": [content]}))
                mine += [] if id_ in mine else [id_]
                operation = (id_, content)
            file.write(json.dumps(operation) + "\n")
            file.flush()


def read(folder: Path, address: str, name: str, log: Path, stop: Event) -> None:
    """Search until told to stop, and count what was compared with what."""
    upgrade, store, generator = Upgrade.open(folder), open_store(address), random.Random(name)
    searcher = Searcher(upgrade, store)
    counts = {"queries": 0, "old": 0, "mapped": 0, "native": 0, "across": 0, "empty": 0, "stages": {}}
    content = [0]
    whole = store._backend.search

    def watched(query: Query) -> Any:
        asked_old, asked_new = (queries(content, space).matrix() for space in (OLD, NEW))
        way = "across"
        if query.field == "old" and np.array_equal(query.vectors, asked_old):
            way = "old"
        elif query.field == "old" and np.array_equal(query.vectors, upgrade.adapter.map(asked_new, "image")):
            way = "mapped"
        elif query.field == "new" and np.array_equal(query.vectors, asked_new):
            way = "native"
        counts[way] += 1
        return whole(query)

    store._backend.search = watched  # type: ignore[method-assign]
    while not stop.is_set():
        content[0] = generator.randrange(60)
        space = searcher.expects
        hits = searcher.search(vector=queries(content, space), k=5)
        counts["queries"] += 1
        counts["empty"] += not len(hits)
        stage = upgrade.state.now().stage
        counts["stages"][stage] = counts["stages"].get(stage, 0) + 1
    log.write_text(json.dumps(counts))


def replayed(logs: list[Path], contents: dict[Id, int]) -> dict[Id, int]:
    """What must be stored after all acknowledged operations."""
    found: dict[Id, int] = dict(contents)
    for id_, content in (operation for log in logs for operation in operations(log)):
        found.pop(id_, None)
        if content is not None:
            found[id_] = content
    return found


def operations(log: Path) -> Iterator[tuple[str, int | None]]:
    for line in log.read_text().splitlines():
        id_, content = json.loads(line)
        yield id_, content
