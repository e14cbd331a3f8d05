"""Printed characters in the files of Flickr30k, COCO (Karpathy's splits) and nocaps: the protocol's formats, small."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

from glyph_pairs import CHARACTERS

from crossfade.datasets.glyphs import render

NAMED = [c for c in CHARACTERS if unicodedata.name(c, "")]


def write(data: Path) -> None:
    """Flickr30k with 20 images, COCO with 160 to train on and 10 + 10 to search, nocaps with 15; two captions each."""
    (data / "flickr30k").mkdir(parents=True)
    (data / "coco").mkdir()
    (data / "nocaps").mkdir()
    flickr = [_image(data / "flickr30k" / "images", c, "DejaVuSerif", n, "test") for n, c in enumerate(NAMED[:20])]
    _dump(data / "flickr30k" / "dataset_flickr30k.json", {"images": flickr, "dataset": "flickr30k"})
    coco: list[dict[str, Any]] = []
    for n, c in enumerate(NAMED[20:200]):
        split = "train" if n >= 20 else "val" if n < 10 else "restval"
        folder = "train2014" if split == "train" else "val2014"
        image = _image(data / "coco" / folder, c, "DejaVuSans", n, split)
        coco.append({**image, "filepath": folder})
    _dump(data / "coco" / "dataset_coco.json", {"images": coco, "dataset": "coco"})
    images, annotations = [], []
    for n, c in enumerate(NAMED[200:215]):
        one = _image(data / "nocaps" / "images", c, "DejaVuSerif", n, "")
        images.append({"id": n, "file_name": one["filename"]})
        annotations += [{"id": s["sentid"], "image_id": n, "caption": s["raw"]} for s in one["sentences"]]
    _dump(data / "nocaps" / "nocaps_val_4500_captions.json", {"images": images, "annotations": annotations})


def _image(folder: Path, character: str, face: str, number: int, split: str) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    name = f"{ord(character):04X}.png"
    render(character, face, size=40).save(folder / name)
    words = unicodedata.name(character)
    sentences = [
        {"raw": text, "tokens": text.split(), "sentid": 2 * number + place, "imgid": number}
        for place, text in enumerate((words, f"{words} LETTER"))
    ]
    return {"filename": name, "imgid": number, "split": split, "sentences": sentences}


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
