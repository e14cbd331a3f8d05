"""Crossfade's stores beside the stores' own clients, in the same run: bulk reading, bulk writing, and single searches.

``python -m benchmarks.store_speed.run [--stores NAME …] [--quick] [--write]``

Ratios are Crossfade's rows a second by the own client's, the best round of each; the bound is 0.7. What a search takes longer
is the difference of both medians; the bound is 0.3 ms for the searcher, which maps the query and reads the upgrade's pointer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.record import write
from benchmarks.store_speed.client import Client
from benchmarks.store_speed.measuring import ROUNDS, K, Speeds, measure

CLIENTS: Mapping[str, str] = {
    "LanceDB": "embedded:LanceDB",
    "PostgreSQL": "postgresql:PostgreSQL",
    "Qdrant": "embedded:Qdrant",
    "Milvus": "embedded:Milvus",
    "FAISS": "embedded:Faiss",
}
"""Store → the module here and its class; imported when it is asked for."""

DIMENSION, SEARCHES, FEW = 512, 300, 30
BOUND, SEARCHER_BOUND_MS = 0.7, 0.3
WORK = ("scan", "insert", "set_vectors")


def client_of(store: str) -> type[Client]:
    """The own client of a store."""
    module, _, name = CLIENTS[store].partition(":")
    kind: type[Client] = getattr(import_module(f"benchmarks.store_speed.{module}"), name)
    return kind


def line(store: str, speeds: Speeds) -> dict[str, Any]:
    """One line of the table."""
    own, _ = speeds.seconds["scan"]
    ratios = {f"{work} ratio": speeds.ratio(work) for work in WORK}
    return {
        "store": store,
        "rows": speeds.rows,
        "own scan rows/s": round(speeds.rows / min(own)),
        **{name: None if ratio is None else round(ratio, 2) for name, ratio in ratios.items()},
        "own search p50 ms": round(speeds.own_ms, 3),
        "map adds ms": round(speeds.hand_ms - speeds.own_ms, 3),
        "store adds ms": round(speeds.store_ms - speeds.own_ms, 3),
        "searcher adds ms": round(speeds.searcher_ms - speeds.own_ms, 3),
    }


def missed(found: Mapping[str, Any]) -> list[str]:
    """The columns of a line that miss their bound."""
    low = [name for name in (f"{work} ratio" for work in WORK) if found[name] is not None and found[name] < BOUND]
    return low + (["searcher adds ms"] if found["searcher adds ms"] > SEARCHER_BOUND_MS else [])


def main() -> int:
    """Measure, print, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", choices=[*CLIENTS], default=[*CLIENTS], metavar="NAME")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few rows and searches: only to see that everything runs",
    )
    parser.add_argument("--write", action="store_true", help="append to result.json")
    options = parser.parse_args()
    if options.write and (options.quick or set(options.stores) != set(CLIENTS)):
        parser.error("Only a whole run is recorded; leave out --quick and --stores, or --write.")
    lines: list[dict[str, Any]] = []
    seconds: dict[str, Any] = {}
    for store in options.stores:
        kind = client_of(store)
        with (
            tempfile.TemporaryDirectory(prefix="crossfade-bench-") as temporary,
            closing(kind(Path(temporary))) as client,
        ):
            rows = kind.rows // 20 if options.quick else kind.rows
            searches = FEW if options.quick else SEARCHES
            found = measure(client, rows, dimension=DIMENSION, searches=searches, folder=Path(temporary))
        lines.append(line(store, found))
        seconds[store] = found.seconds
        said = ", ".join(f"{name} {value}" for name, value in lines[-1].items() if value is not None)
        print(said, f"MISSED: {', '.join(missed(lines[-1]))}" if missed(lines[-1]) else "ok", sep="   ", flush=True)
    if options.write:
        config = {"dimension": DIMENSION, "rounds": ROUNDS, "searches": SEARCHES, "k": K}
        bounds = {"ratio": BOUND, "searcher adds ms": SEARCHER_BOUND_MS}
        print(write(Path(__file__).parent, {**config, "bounds": bounds}, {"seconds": seconds}, table=lines))
    return 1 if any(missed(each) for each in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
