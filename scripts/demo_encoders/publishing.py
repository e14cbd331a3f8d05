"""Put a trained encoder in its folder, at once, so that nobody loads half of it; write down what it reaches."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open

from demo_encoders.models import save
from demo_encoders.recipes import Recipe
from demo_encoders.training import Trained

__all__ = ["publish", "write_results"]

_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---

# glyphs-{encoder}

A small dual encoder of printed characters and their Unicode names, in the transformers CLIP format:
{parameters:,} parameters, vectors of {dimension} components, images of {size} x {size} pixels. It is the {encoder}
one of the two encoders with which Crossfade shows and tests an upgrade, and is of no use beyond glyphs.

* **Data**: the split `train` of `crossfade.datasets.glyphs` ({share:.0%} of its images): the DejaVu and STIX
  typefaces that come with Matplotlib, the character names that come with Python.
* **Training**: {steps:,} steps, {seconds:,} seconds on two shared CPU cores. `training.json` holds the whole recipe,
  which `scripts/train_demo_encoders.py` follows.
* **Licence**: Apache-2.0.

Recall in percent, measured from these files (`benchmarks/demo-encoders/result.json`):

| split | images | captions | direction | R@1 | R@5 | R@10 |
|---|---|---|---|---|---|---|
{rows}
"""


def publish(trained: Trained, recipe: Recipe, folder: Path) -> None:
    """Write the model, its tokenizer, its image processor and ``training.json``, replacing what stood there."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    replaced = folder.with_name(f".{folder.name}.replaced")
    for leftover in (unfinished, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save(trained.model, trained.tokenizer, unfinished)
    record = {"recipe": dataclasses.asdict(recipe), "seconds": round(trained.seconds)}
    (unfinished / "model.safetensors").chmod(0o644)
    (unfinished / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(replaced)
    unfinished.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    print(f"wrote {folder}")


def write_results(measured: dict[str, Any], models: Path, folder: Path) -> None:
    """Write what was measured: ``result.json`` in the folder, and the ``README.md`` of each encoder."""
    recipes = {}
    for encoder, splits in measured["recalls"].items():
        home = models / f"glyphs-{encoder}"
        recipes[encoder] = training = json.loads((home / "training.json").read_text(encoding="utf-8"))
        recipe = training["recipe"]
        card = _CARD.format(
            encoder=encoder,
            parameters=_parameters(home / "model.safetensors"),
            dimension=recipe["shape"]["dimension"],
            size=recipe["shape"]["image_size"],
            share=recipe["share"],
            steps=recipe["steps"],
            seconds=training["seconds"],
            rows="\n".join(_rows(splits)),
        )
        (home / "README.md").write_text(card, encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    result = json.dumps({**measured, "training": recipes}, indent=2)
    (folder / "result.json").write_text(result + "\n", encoding="utf-8")
    print(f"wrote {folder / 'result.json'}")


def _rows(splits: dict[str, Any]) -> Iterator[str]:
    """The lines of the table of recalls."""
    for split, found in splits.items():
        for direction in ("text_to_image", "image_to_text"):
            recalls = " | ".join(f"{recall:.1f}" for recall in found[direction].values())
            sizes = f"{found['images']:,} | {found['captions']:,}"
            yield f"| {split} | {sizes} | {direction.replace('_', ' ')} | {recalls} |"


def _parameters(path: Path) -> int:
    with safe_open(path, framework="np") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
