"""Put a trained encoder in its folder, at once, so that nobody loads half of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from demo_encoders.models import save
from demo_encoders.recipes import Recipe
from demo_encoders.training import Trained

__all__ = ["publish"]


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
